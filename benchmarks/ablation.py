# SPDX-License-Identifier: Apache-2.0
"""Train with and without each part of the recipe, over several seeds, and print a table.

    python benchmarks/ablation.py --data camvid --extra synthetic --out runs/ablation --seeds 3

Every run is an ordinary `stdc train` in its own folder. After an interruption, the same command continues the ablation.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from network_comparison.training import check_same

from stdc_core.model.weights import load_weights
from stdc_core.training.run_folder import RECORD
from stdc_core.training.train import WEIGHTS, resume, train
from stdc_core.training.train_config import load_config

#: Settings by the part of the recipe that they switch off.
VARIANTS = {
    'the recipe': [],
    'no detail guidance': ['detail_weight=0'],
    'no OHEM': ['ohem_threshold=1'],
    'no average of weights': ['ema_decay=0'],
    'no synthetic drives': ['extra_share=0'],
    'no auxiliary heads': ['aux_weight=0'],
    'no class weights': ['class_balance=0'],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', type=Path, default=Path('config/train/camvid_stdc1.yaml'), help='the recipe')
    parser.add_argument('--data', type=Path, required=True, help='dataset')
    parser.add_argument('--extra', type=Path, action='append', default=[], help='synthetic drives')
    parser.add_argument('--out', type=Path, required=True, help='folder for the runs')
    parser.add_argument('--seeds', type=int, default=3, help='runs of each variant (default: 3)')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE', help='override in all runs')
    parser.add_argument('--only', action='append', choices=list(VARIANTS)[1:], help='leave out this, not the others')
    options = parser.parse_args()

    recipe, *others = VARIANTS
    table: dict[str, list[float]] = {name: [] for name in (recipe, *(options.only or others))}
    # All variants of one seed before the next seed, so that an ablation that ends early is complete with fewer seeds.
    for seed in range(options.seeds):
        for name, scores in table.items():
            scores.append(score(options, name, VARIANTS[name], seed))
    reference = statistics.mean(table[recipe])
    print('| | mIoU in % | difference | lowest to highest |\n|---|---|---|---|')
    for name, scores in table.items():
        mean = statistics.mean(scores)
        print(f'| {name} | {mean:.1f} | {mean - reference:+.1f} | {min(scores):.1f} to {max(scores):.1f} |')


def score(options: argparse.Namespace, name: str, changes: list[str], seed: int) -> float:
    """Return the mIoU of one run in %; train the run first if it does not exist.

    Raises:
        ValueError: The run exists with another recipe or other data.
    """
    out = options.out / f'{name.replace(" ", "_")}_seed{seed}'
    config = load_config(options.config, [*options.set, *changes, f'seed={seed}'])
    extra = options.extra if config.extra_share else []
    if (out / RECORD).is_file():
        check_same(out, config, options.data, extra)
    if not (out / WEIGHTS).is_file():
        if (out / RECORD).is_file():
            resume(out)
        else:
            train(config, options.data, out, extra)
    return 100 * float(load_weights(out / WEIGHTS)[2]['miou'].split()[0])


if __name__ == '__main__':
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f'ablation: {error}')
