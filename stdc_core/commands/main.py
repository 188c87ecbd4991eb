# SPDX-License-Identifier: Apache-2.0
"""The command ``stdc``: train, evaluate, export and measure from a shell."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from stdc_core.classes import class_table
from stdc_core.training.config import TrainConfig, explain
from stdc_core.training.pretrain_config import PretrainConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; a user's mistake is one line on stderr and exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f'stdc {options.command}: {error}', file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"stdc {options.command}: needs {error.name}: pip install '.[train]' in the repository", file=sys.stderr)
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
    train.add_argument('--data', type=Path, help='dataset with train and val splits')
    train.add_argument(
        '--extra',
        action='append',
        default=[],
        metavar='FOLDER[=SHARE]',
        help='more data to train on, and its share of the samples, such as idd=0.3; may be repeated',
    )
    train.add_argument(
        '--out', type=Path, help='folder to create for the run; default: runs/ and the name of the config'
    )
    train.add_argument('--init', type=Path, help='weights to begin with: network, model.onnx or backbone')
    train.add_argument(
        '--teacher',
        type=Path,
        action='append',
        default=[],
        metavar='FILE',
        help='network to learn from: weights, model.onnx or another ONNX file; --extra data may then lack labels',
    )
    train.add_argument('--resume', action='store_true', help='continue the interrupted run in OUT where it was')
    train.add_argument('--set', action='append', default=[], metavar='KEY=VALUE', help='override one key of the config')
    train.formatter_class = argparse.RawDescriptionHelpFormatter
    train.epilog = f'keys of the configuration, with their defaults:\n{explain(TrainConfig)}'

    pretrain = command('pretrain', _pretrain, 'Train a backbone as a classifier; writes OUT/classifier.safetensors.')
    pretrain.add_argument('config', type=Path, nargs='?', help='YAML file with any of the keys below')
    pretrain.add_argument('--data', type=Path, help='folder with train/CLASS/* and val/CLASS/*, such as ImageNet')
    pretrain.add_argument(
        '--out', type=Path, help='folder to create for the run; default: runs/ and the name of the config'
    )
    pretrain.add_argument('--resume', action='store_true', help='continue the interrupted run in OUT where it was')
    pretrain.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE', help='override one key of the config'
    )
    pretrain.formatter_class = argparse.RawDescriptionHelpFormatter
    pretrain.epilog = f'keys of the configuration, with their defaults:\n{explain(PretrainConfig)}'

    evaluate = command('evaluate', _evaluate, 'mIoU of a network on a dataset, by the protocol of the paper.')
    evaluate.add_argument('model', type=Path, nargs='?', help='a model.onnx, or weights (.safetensors) of stdc train')
    evaluate.add_argument(
        '--data', type=Path, required=True, nargs='+', help='datasets: folder, CamVid or Cityscapes; several: one table'
    )
    evaluate.add_argument('--split', default='val', help='default: val')
    evaluate.add_argument('--out', type=Path, help='new or empty folder for report.json, confusion.png and sheet.png')
    evaluate.add_argument('--input-scale', type=float, metavar='S', help='default: as trained, less for large images')
    evaluate.add_argument('--scales', type=float, nargs='+', default=[1.0], metavar='S', help='average over scales')
    evaluate.add_argument('--flip', action='store_true', help='average over the mirrored image too')
    evaluate.add_argument('--limit', type=int, metavar='N', help='only N images, evenly spread')
    evaluate.add_argument('--threads', type=int, default=0, help='CPU threads (default: all)')
    evaluate.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='for torch; default: auto')
    evaluate.add_argument('--backend', default='auto', help='of a model.onnx: auto, onnxruntime, openvino or tensorrt')
    evaluate.add_argument('--precision', default='auto', help='of tensorrt: auto, fp32, fp16 or int8')
    evaluate.epilog = (
        'A model.onnx runs as the node runs it, without torch; weights, other scales and mirrored images run in torch, '
        'and so does a model.onnx with --device cuda.'
    )

    predict = command('predict', _predict, 'Segment images, folders of images and videos into files.')
    predict.add_argument('inputs', type=Path, nargs='+', help='images, videos, and folders searched for both')
    predict.add_argument('--out', type=Path, required=True, help='folder to write to')
    predict.add_argument('--model', type=Path, help='a model.onnx (default: the shipped model)')
    predict.add_argument(
        '--outputs',
        nargs='+',
        choices=('mask', 'color', 'overlay', 'confidence'),
        default=['mask', 'overlay'],
        help='default: mask overlay',
    )
    predict.add_argument('--input-scale', type=float, metavar='S', help="default: the model's, less for large images")
    predict.add_argument('--overlay-opacity', type=float, default=0.5, metavar='W', help='0 to 1; default: 0.5')
    predict.add_argument('--backend', default='auto', help='auto (default), onnxruntime, openvino or tensorrt')
    predict.add_argument('--precision', default='auto', help='of tensorrt: auto (default), fp32, fp16 or int8')
    predict.add_argument('--overwrite', action='store_true', help='replace outputs that exist')
    predict.add_argument('--threads', type=int, default=0, help='CPU threads (default: all)')
    predict.formatter_class = argparse.RawDescriptionHelpFormatter
    predict.epilog = """what is written:
  of street.jpg:  street_mask.png (class ids), street_color.png, street_overlay.png, street_confidence.png
  of drive.mp4:   drive_mask/000000.png ... (class ids), drive_color.webm, drive_overlay.webm,
                  drive_confidence/000000.png ...
  of a folder:    the same for each file in it, in the same sub-folders"""

    export = command('export', _export, 'Turn weights into one self-describing model.onnx.')
    export.add_argument('weights', type=Path, help='.safetensors of stdc train, or a model.onnx to export anew')
    export.add_argument('out', type=Path, help='the model.onnx to write')
    export.add_argument('--input-scale', type=float, metavar='S', help='0.5 is Seg50, 0.75 Seg75; default: as trained')
    export.add_argument('--overwrite', action='store_true', help='replace OUT if it exists')

    quantize = command('quantize', _quantize, 'Make an int8 model.onnx of a float one, calibrated on your images.')
    quantize.add_argument('model', type=Path, help='a model.onnx of stdc export')
    quantize.add_argument('out', type=Path, help='the model.onnx to write')
    quantize.add_argument('--images', type=Path, nargs='+', required=True, help='images, or folders searched for them')
    quantize.add_argument('--data', type=Path, help='labelled dataset, to measure mIoU before and after')
    quantize.add_argument('--split', default='val', help='of the dataset; default: val')
    quantize.add_argument(
        '--max-loss', type=float, metavar='P', help='points of mIoU (default: 0.5); without --data, %% of labels (1)'
    )
    quantize.add_argument('--threads', type=int, default=0, help='CPU threads (default: all)')
    quantize.add_argument('--overwrite', action='store_true', help='replace OUT if it exists')

    engine = command('engine', _engine, "Build TensorRT's engine of a model ahead, for this machine's GPU.")
    engine.add_argument('model', type=Path, nargs='?', help='a model.onnx (default: the shipped model)')
    engine.add_argument('--size', type=_size, required=True, metavar='HxW', help='of the images, such as 1080x1920')
    engine.add_argument('--precision', default='auto', help='auto (default), fp32, fp16 or int8')
    engine.add_argument('--input-scale', type=float, metavar='S', help="default: the model's, less for large images")
    engine.add_argument('--batch', type=int, default=1, metavar='N', help='cameras of the node (default: 1)')

    imports = command('import', _import, 'Convert a checkpoint of the reference implementation to weights.')
    imports.add_argument('checkpoint', type=Path, help='the .pth of a segmentation network or .tar of a classifier')
    imports.add_argument('out', type=Path, help='the .safetensors to write')
    imports.add_argument(
        '--classes', default='cityscapes', help='of a segmentation network: cityscapes (default), camvid or a YAML file'
    )

    benchmark = command(
        'benchmark', _benchmark, "Time the segmenter's whole call against PyTorch eager on this machine."
    )
    benchmark.add_argument('model', type=Path, nargs='?', help='a model.onnx or weights (default: the shipped model)')
    benchmark.add_argument('--size', type=_size, default=(1024, 2048), metavar='HxW', help='image; default: 1024x2048')
    benchmark.add_argument('--input-scale', type=float, default=0.5, help='default: 0.5, so the network sees 512x1024')
    benchmark.add_argument('--threads', type=int, default=2, help='CPU threads of both sides (default: 2)')
    benchmark.add_argument('--int8', action='store_true', help='time the network in int8 as well')
    benchmark.add_argument('--runs', type=int, default=15, help='timed runs of each side (default: 15)')
    return parser


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f'expected HEIGHTxWIDTH in pixels, such as 360x480, found {text!r}')
    return int(height), int(width)


def _render(options: argparse.Namespace) -> None:
    from stdc_core.data.synthetic import SyntheticDrive
    from stdc_core.io.files import write_png

    for name in ('drives', 'frames', 'every'):
        if getattr(options, name) < 1:
            raise ValueError(f'--{name}: expected 1 or more, found {getattr(options, name)}')
    folders = [options.out / options.split / name for name in ('images', 'labels')]
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
                write_png(path, picture)


def _train(options: argparse.Namespace) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    from stdc_core.training.config import load_config
    from stdc_core.training.extra_data import ExtraData
    from stdc_core.training.train import resume, train

    say = rank_zero_only(print)

    if options.resume:
        if options.config or options.extra or options.init or options.teacher:
            raise ValueError('--resume takes the configuration, --extra, --init and --teacher from the run in --out')
        say(resume(_run_folder(options), options.set, options.data))
        return
    if options.data is None:
        raise ValueError('--data is missing: the dataset to train on')
    config = load_config(options.config, options.set)
    asked = any(setting.partition('=')[0].strip() == 'extra_share' for setting in options.set)
    extra = [ExtraData.parse(text) for text in options.extra]
    if config.extra_share and all(each.share is not None for each in extra) and not asked:
        say(
            f'warning: without --extra, of which {options.config} would take {config.extra_share:g} of the samples '
            '(`stdc render FOLDER` makes such data)',
            file=sys.stderr,
        )
        config = dataclasses.replace(config, extra_share=0.0)
    say(train(config, options.data, _run_folder(options), extra, options.init, teacher=options.teacher))


def _run_folder(options: argparse.Namespace) -> Path:
    if options.out is None and options.config is None:
        raise ValueError('--out is missing: the folder of the run')
    return options.out or Path('runs', options.config.stem)


def _pretrain(options: argparse.Namespace) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    from stdc_core.training.config import read_config
    from stdc_core.training.pretrain import pretrain, resume

    say = rank_zero_only(print)

    if options.resume:
        if options.config:
            raise ValueError('--resume takes the configuration from the run in --out')
        say(resume(_run_folder(options), options.set, options.data))
        return
    if options.data is None:
        raise ValueError('--data is missing: the folder of images to train on')
    say(pretrain(read_config(PretrainConfig, options.config, options.set), options.data, _run_folder(options)))


def _dataset_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each dataset: its folder's, or where two are alike, its path's."""
    short = [path.resolve().name for path in paths]
    names = {path: name if short.count(name) == 1 else str(path) for path, name in zip(paths, short, strict=True)}
    if len(names) < len(paths):
        raise ValueError('--data: the same folder is there twice')
    return {path: name.strip('/').replace('/', '_') for path, name in names.items()}


def _evaluate(options: argparse.Namespace) -> None:
    from stdc_core.data.datasets import open_dataset
    from stdc_core.evaluation.evaluate import evaluate, evenly
    from stdc_core.evaluation.groups import grouped
    from stdc_core.evaluation.predictors import open_predictor
    from stdc_core.evaluation.report import check_folder, describe, summary, write_report
    from stdc_core.evaluation.table import table

    if options.limit is not None and options.limit < 1:
        raise ValueError(f'--limit: expected 1 or more, found {options.limit}')
    if options.model is None and len(options.data) > 1 and options.data[-1].is_file():
        # `--data FOLDER MODEL`: the option has taken the model for another dataset.
        options.model = options.data.pop()
    if options.model is None:
        raise ValueError('the model is missing: `stdc evaluate MODEL --data FOLDER ...`')
    names = _dataset_names(options.data)
    if options.out is not None:
        check_folder(options.out)
    predictor = open_predictor(
        options.model,
        options.input_scale,
        options.scales,
        options.flip,
        options.threads,
        options.device,
        options.backend,
        options.precision,
    )
    datasets = [open_dataset(data, options.split, predictor.classes) for data in options.data]
    evaluations = []
    for data, opened in zip(options.data, datasets, strict=True):
        used, dataset = grouped(predictor, opened)
        chosen = evenly(options.limit or len(dataset), len(dataset))
        evaluation = evaluate(used, dataset, chosen, progress=True)
        evaluations.append(evaluation)
        if len(datasets) == 1:
            print(summary(evaluation))
        of = f' of {len(dataset)}' if len(chosen) < len(dataset) else ''
        print(f'({len(chosen)}{of} images of {data}, split {options.split}; {describe(predictor)})')
        if options.out is not None:
            out = options.out / names[data] if len(datasets) > 1 else options.out
            write_report(out, evaluation, used, dataset, options.model, data, options.split)
            print(out)
    if len(datasets) > 1:
        print(table([names[data] for data in options.data], evaluations))


def _predict(options: argparse.Namespace) -> None:
    import signal

    from stdc_core.commands.predict import predict
    from stdc_core.inference import DEFAULT_MODEL, Segmenter

    # As Ctrl-C: unfinished files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    result = predict(
        Segmenter.load(
            options.model or DEFAULT_MODEL, options.threads, options.input_scale, options.backend, options.precision
        ),
        options.inputs,
        options.out,
        outputs=options.outputs,
        opacity=options.overlay_opacity,
        overwrite=options.overwrite,
        progress=True,
    )
    for warning in result.warnings:
        print(f'stdc predict: {warning}', file=sys.stderr)
    print(f'{options.out}: {result.inputs} inputs segmented, {result.frames} frames')


def _export(options: argparse.Namespace) -> None:
    from stdc_core.export.onnx import export

    info = export(options.weights, options.out, options.input_scale, options.overwrite)
    print(f'{options.out}: {info.name}, {len(info.classes)} classes')


def _quantize(options: argparse.Namespace) -> None:
    from stdc_core.data.datasets import open_dataset
    from stdc_core.export.quantize import find_images, quantize
    from stdc_core.inference.model_file import read_model

    classes = read_model(options.model)[1].classes
    data = open_dataset(options.data, options.split, classes) if options.data else None
    report = quantize(
        options.model,
        options.out,
        find_images(options.images),
        data,
        options.max_loss,
        options.threads,
        options.overwrite,
    )
    print(f'calibrated on {report.images} images; {report.changed:.2f} % of labels changed')
    if report.miou is not None:
        before, after = report.miou
        print(f'mIoU {before:.2f} % before, {after:.2f} % after, on {len(data)} images of {options.data}')
    if report.kept:
        print(f'in float: {", ".join(report.kept)}, of these (% of labels changed with each alone in float):')
        for block, changed in sorted(report.blocks.items(), key=lambda item: item[1]):
            print(f'  {block:<20} {changed:.2f}')
    print(f'{options.out}: {report.size[1] / 1e6:.1f} MB, was {report.size[0] / 1e6:.1f}')


def _engine(options: argparse.Namespace) -> None:
    from stdc_core.inference import DEFAULT_MODEL, Segmenter

    if options.batch < 1:
        raise ValueError(f'--batch: expected 1 or more, found {options.batch}')
    model = options.model or DEFAULT_MODEL
    segmenter = Segmenter.load(model, 0, options.input_scale, 'tensorrt', options.precision, max_batch=options.batch)
    segmenter.prepare(options.size, print)
    print(f'{model}: the engine for {segmenter.backend} on {segmenter.reason} is ready')


def _import(options: argparse.Namespace) -> None:
    from stdc_core.model.reference import import_reference
    from stdc_core.model.stdc import STDCClassifier
    from stdc_core.model.weights import save_classifier, save_weights

    if options.out.exists():
        raise FileExistsError(f'{options.out} exists; choose another name or move it away')
    classes = class_table(options.classes)
    model = import_reference(options.checkpoint, classes)
    provenance = {'imported from': options.checkpoint.name}
    if isinstance(model, STDCClassifier):
        count = model.fc2.out_features
        save_classifier(model, options.out, [str(number) for number in range(count)], provenance)
        print(f'{options.out}: {model.backbone.name}, classifier of {count} classes')
    else:
        save_weights(model, options.out, classes, provenance)
        print(f'{options.out}: {model.backbone.name}, {len(classes)} classes')


def _benchmark(options: argparse.Namespace) -> None:
    from stdc_core.commands.benchmark import benchmark

    benchmark(options.model, options.size, options.input_scale, options.threads, options.runs, options.int8)


if __name__ == '__main__':
    sys.exit(main())
