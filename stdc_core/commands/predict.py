# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc predict``: segment images, folders of images and videos into files."""

from __future__ import annotations

import argparse
import sys

from stdc_core.io.arguments import expand_user

OUTPUTS = ('mask', 'color', 'overlay', 'confidence')

LISTS = {'--outputs': OUTPUTS.__contains__}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc predict``."""
    parser.add_argument('inputs', type=expand_user, nargs='+', help='images, videos, and folders to search for both')
    parser.add_argument('--out', type=expand_user, required=True, help='folder to write to')
    parser.add_argument('--model', type=expand_user, help='a model.onnx (default: the shipped model)')
    parser.add_argument(
        '--outputs', action='append', choices=OUTPUTS, help='one or more outputs (default: mask overlay)'
    )
    parser.add_argument(
        '--input-scale', type=float, metavar='S', help='input scale (default: that of the model, less for large images)'
    )
    parser.add_argument(
        '--overlay-opacity',
        type=float,
        default=0.5,
        metavar='W',
        help='weight of the class colours in the overlay, 0 to 1 (default: 0.5)',
    )
    parser.add_argument(
        '--backend',
        default='auto',
        help='backend: auto (default), onnxruntime, onnxruntime_cuda, openvino, tensorrt or tensorrt_rtx',
    )
    parser.add_argument('--precision', default='auto', help='precision: auto (default), fp32, bf16, fp16 or int8')
    parser.add_argument(
        '--video-format', choices=('webm', 'mp4'), default='webm', help='webm (VP8, default) or mp4 (H.264, needs PyAV)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace outputs that exist')
    parser.add_argument('--threads', type=int, default=0, help='number of CPU threads (default: all cores)')
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """files written:
  for street.jpg: street_mask.png (class ids), street_color.png, street_overlay.png, street_confidence.png
  for drive.mp4:  drive_mask/000000.png ... (class ids), drive_color.webm, drive_overlay.webm,
                  drive_confidence/000000.png ...
  for a folder:   the same for each file in it, in the same subfolders"""


def run(options: argparse.Namespace) -> None:
    """Segment the inputs, and print the number of images and frames.

    Raises:
        ValueError: An option, the model or an input cannot be used.
        OSError: A file cannot be read or written.
    """
    from stdc_core.commands.predict_files import predict
    from stdc_core.inference import DEFAULT_MODEL, Segmenter
    from stdc_core.inference.int8_file import fastest_precision

    model = options.model or DEFAULT_MODEL
    precision = fastest_precision(model, options.backend, options.precision)
    result = predict(
        Segmenter.load(model, options.threads, options.input_scale, options.backend, precision),
        options.inputs,
        options.out,
        outputs=list(dict.fromkeys(options.outputs or ['mask', 'overlay'])),
        opacity=options.overlay_opacity,
        overwrite=options.overwrite,
        progress=True,
        video_format=options.video_format,
    )
    for warning in result.warnings:
        print(f'stdc predict: {warning}', file=sys.stderr)
    print(f'{options.out}: {result.inputs} inputs segmented, {result.frames} frames')
