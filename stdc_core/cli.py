"""The command ``stdc``: train, evaluate, export and measure from a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from stdc_core.classes import CLASS_TABLES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; a user's mistake is one line on stderr and exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f'stdc {options.command}: {error}', file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f'stdc {options.command}: needs {error.name}; install the extra: stdc_ros[train]', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('stdc', description='STDC-Seg: train, evaluate, export, measure.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    def command(name: str, run, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run)
        return sub

    render = command('render', _render, 'Write synthetic drives as a dataset: OUT/SPLIT/images and OUT/SPLIT/labels.')
    render.add_argument('out', type=Path, help='folder to create or add to')
    render.add_argument('--split', default='train', help='name of the split (default: train)')
    render.add_argument('--drives', type=int, default=60, help='number of drives (default: 60)')
    render.add_argument('--seed', type=int, default=1000, help='seed of the first drive (default: 1000)')
    render.add_argument('--frames', type=int, default=12, help='frames kept of each drive (default: 12)')
    render.add_argument('--every', type=int, default=25, help='keep each n-th frame of a drive (default: 25)')
    render.add_argument('--size', type=_size, default=(360, 480), metavar='HxW', help='default: 360x480')

    train = command('train', _train, 'Train a network; writes OUT/weights.safetensors.')
    train.add_argument('config', type=Path, nargs='?', help='YAML file with any of the keys below')
    train.add_argument('--data', type=Path, required=True, help='dataset with train and val splits')
    train.add_argument('--extra', type=Path, action='append', default=[], help='more data to train on; may be repeated')
    train.add_argument('--out', type=Path, required=True, help='folder for weights, checkpoints and metrics')
    train.add_argument('--init', type=Path, help='weights to begin with (.safetensors or .onnx)')
    train.add_argument('--set', action='append', default=[], metavar='KEY=VALUE', help='override one key of the config')
    train.epilog = 'The keys are the fields of stdc_core.training.config.TrainConfig, documented there.'

    evaluate = command('evaluate', _evaluate, 'mIoU of a model.onnx on a dataset, by the protocol of the paper.')
    evaluate.add_argument('model', type=Path, help='a model.onnx')
    evaluate.add_argument('--data', type=Path, required=True, help='dataset')
    evaluate.add_argument('--split', default='val', help='default: val')
    evaluate.add_argument('--threads', type=int, default=0, help='CPU threads (default: all)')

    export = command('export', _export, 'Turn weights into one self-describing model.onnx.')
    export.add_argument('weights', type=Path, help='.safetensors of stdc train, or a model.onnx to export anew')
    export.add_argument('out', type=Path, help='the model.onnx to write')
    export.add_argument('--input-scale', type=float, default=1.0, help='1, or 0.5 (Seg50), 0.75 (Seg75); default: 1')
    export.add_argument('--overwrite', action='store_true', help='replace OUT if it exists')

    imports = command('import', _import, 'Convert a .pth of the reference implementation to weights.')
    imports.add_argument('checkpoint', type=Path, help='the .pth')
    imports.add_argument('out', type=Path, help='the .safetensors to write')
    imports.add_argument('--classes', choices=CLASS_TABLES, default='cityscapes', help='default: cityscapes')

    benchmark = command(
        'benchmark', _benchmark, "Time the segmenter's whole call against PyTorch eager on this machine."
    )
    benchmark.add_argument('model', type=Path, nargs='?', help='a model.onnx or weights (default: the shipped model)')
    benchmark.add_argument('--size', type=_size, default=(1024, 2048), metavar='HxW', help='image; default: 1024x2048')
    benchmark.add_argument('--input-scale', type=float, default=0.5, help='default: 0.5, so the network sees 512x1024')
    benchmark.add_argument('--threads', type=int, default=2, help='CPU threads of both sides (default: 2)')
    benchmark.add_argument('--runs', type=int, default=15, help='timed runs of each side (default: 15)')
    return parser


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f'expected HEIGHTxWIDTH in pixels, such as 360x480, found {text!r}')
    return int(height), int(width)


def _render(options: argparse.Namespace) -> None:
    import cv2

    from stdc_core.data.synthetic import SyntheticDrive

    folders = [options.out / options.split / name for name in ('images', 'labels')]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    height, width = options.size
    length = options.frames * options.every
    for seed in tqdm(range(options.seed, options.seed + options.drives), unit='drive', disable=None):
        drive = SyntheticDrive(seed=seed, height=height, width=width, frames=length)
        for index in range(0, length, options.every):
            frame = drive[index]
            for folder, picture in zip(folders, (frame.image, frame.label), strict=True):
                path = folder / f'drive{seed:05d}_{index:05d}.png'
                if path.exists():
                    raise FileExistsError(f'{path} exists; choose another folder, split or --seed')
                if not cv2.imwrite(str(path), picture):
                    raise OSError(f'{path}: could not be written')


def _train(options: argparse.Namespace) -> None:
    from stdc_core.training.config import load_config
    from stdc_core.training.train import train

    config = load_config(options.config, options.set)
    print(train(config, options.data, options.out, options.extra, options.init))


def _evaluate(options: argparse.Namespace) -> None:
    from stdc_core.data.folder import SegmentationFolder
    from stdc_core.evaluation.metrics import ConfusionMatrix
    from stdc_core.inference import Segmenter

    segmenter = Segmenter.load(options.model, options.threads)
    classes = segmenter.info.classes
    folder = SegmentationFolder(options.data, options.split, classes)
    confusion = ConfusionMatrix(len(classes))
    for index in tqdm(range(len(folder)), unit='image', disable=None):
        sample = folder[index]
        confusion.update(segmenter(sample.image).mask, sample.label)
    for name, iou in zip(classes.names, confusion.iou(), strict=True):
        print(f'{name:>16} {100 * iou:6.2f} %')
    print(f'{"mIoU":>16} {100 * confusion.miou():6.2f} %')
    print(f'{"pixel accuracy":>16} {100 * confusion.pixel_accuracy():6.2f} %   ({len(folder)} images)')


def _export(options: argparse.Namespace) -> None:
    from stdc_core.export.onnx import export

    info = export(options.weights, options.out, options.input_scale, options.overwrite)
    print(f'{options.out}: {info.name}, {len(info.classes)} classes')


def _import(options: argparse.Namespace) -> None:
    from stdc_core.model.reference import import_reference
    from stdc_core.model.weights import save_weights

    if options.out.exists():
        raise FileExistsError(f'{options.out} exists; choose another name or move it away')
    classes = CLASS_TABLES[options.classes]
    model = import_reference(options.checkpoint, classes)
    save_weights(model, options.out, classes, {'imported from': options.checkpoint.name})
    print(f'{options.out}: {model.backbone.name}, {len(classes)} classes')


def _benchmark(options: argparse.Namespace) -> None:
    from stdc_core.benchmark import benchmark

    benchmark(options.model, options.size, options.input_scale, options.threads, options.runs)


if __name__ == '__main__':
    sys.exit(main())
