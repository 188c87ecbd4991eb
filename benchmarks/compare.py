# SPDX-License-Identifier: Apache-2.0
"""Compare STDC with BiSeNet and with other backbones on this machine, beside the numbers of the papers.

    make compare                                # speed, size and memory of all networks
    make compare COMPARE='--data camvid'        # and the accuracy, after the same training of each

All networks are exported as by `stdc export`. The segmenter runs them in turns, from the bytes of an image to its mask.
Without timm, the backbones from timm are left out. Without a GPU, each training has 300 steps unless --set steps=...
says otherwise. OUT/compare.md has the tables, OUT/compare.png the plot and OUT/compare.json the numbers.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from network_comparison.measuring import Row, time_classifiers, time_networks, usable_backends
from network_comparison.published import NETWORKS, PUBLISHED_CLASSIFIERS, SCALES
from network_comparison.report import write
from network_comparison.training import check_trainings, train_and_score

from stdc_core.commands.arguments import image_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print its tables. Returns 0, or 2 after a user's mistake, which is one line on stderr."""
    options = parse(arguments)
    try:
        compare(options)
    except (ValueError, OSError) as error:
        print(f'compare: {error}', file=sys.stderr)
        return 2
    print((options.out / 'compare.md').read_text())
    return 0


def compare(options: argparse.Namespace) -> None:
    """Measure all networks and, with a dataset, train them; write the tables after each part."""
    names = networks_to_compare(options.only)
    backends = usable_backends(options)
    if options.data:
        check_trainings(options, names)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    rows = [row for scale in options.scales for row in time_networks(names, backends, scale, options)]
    classifiers = time_classifiers([name for name in names if name in PUBLISHED_CLASSIFIERS], options)
    write(options, rows, classifiers)
    if options.data:
        add_accuracy(options, names, rows, classifiers)


def add_accuracy(
    options: argparse.Namespace, names: Sequence[str], rows: Sequence[Row], classifiers: Sequence[Row]
) -> None:
    """Train the networks once for each seed, add the mIoU to their rows, and write the tables after each seed."""
    for seed in range(options.seeds):
        for name in names:
            print(f'training {NETWORKS[name]}, seed {seed} (seeds: 0 to {options.seeds - 1})', flush=True)
            score = train_and_score(options, name, seed)
            for row in rows:
                if row.network == name:
                    row.miou.append(score)
        # A comparison that must end early is complete with fewer seeds.
        write(options, rows, classifiers)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. ``scales`` are the input scales."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('runs/compare'), help='folder (default: runs/compare)')
    parser.add_argument('--size', type=image_size, default=(1024, 2048), metavar='HxW', help='size of the image')
    parser.add_argument('--runs', type=int, default=10, help='timed runs of each network (default: 10)')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default: 2)')
    parser.add_argument('--only', action='append', choices=list(NETWORKS), help='compare this network with STDC2')
    parser.add_argument('--backend', action='append', help='backends (default: onnxruntime, and tensorrt on a GPU)')
    parser.add_argument(
        '--quick', action='store_true', help='try the program: one run on an image of 128x256 at one input scale'
    )
    parser.add_argument('--data', type=Path, help='dataset to train and validate each network on')
    parser.add_argument('--seeds', type=int, default=3, help='trainings of each network (default: 3)')
    recipe = Path('config/train/camvid_stdc1.yaml')
    parser.add_argument('--config', type=Path, default=recipe, help=f'recipe of all trainings (default: {recipe})')
    parser.add_argument('--extra', type=Path, action='append', default=[], help='more training data')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE', help='override a key of the recipe')
    options = parser.parse_args(arguments)
    for name in ('runs', 'threads', 'seeds'):
        if getattr(options, name) < 1:
            parser.error(f'--{name}: expected 1 or more, found {getattr(options, name)}')
    options.scales = SCALES
    if options.quick:
        options.size, options.runs, options.scales = (128, 256), 1, SCALES[:1]
    return options


def networks_to_compare(only: Sequence[str] | None) -> list[str]:
    """Return the names of the networks, STDC2 first. Those from timm are left out where it is not installed."""
    names = ['stdc2', *(name for name in only or NETWORKS if name != 'stdc2')]
    if importlib.util.find_spec('timm') is None:
        left_out = [name for name in names if name.startswith('timm/')]
        names = [name for name in names if name not in left_out]
        if left_out:
            print(f'timm is not installed, so {len(left_out)} networks are left out; `make compare` installs it')
    return names


if __name__ == '__main__':
    sys.exit(main())
