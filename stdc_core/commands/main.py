# SPDX-License-Identifier: Apache-2.0
"""Run the command ``stdc``: parse the arguments and hand over to the module of the subcommand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType

from stdc_core.io.arguments import separate_lists
from stdc_core.io.memory_error import memory_error
from stdc_core.io.missing_module import how_to_install
from stdc_core.io.signals import interrupt_after_block, interrupt_once, interrupted_status

#: Subcommands in the order of a project: name, module in this folder, and summary for ``stdc --help``.
COMMANDS = {
    'render': ('render', 'Render synthetic drives as a labelled dataset.'),
    'train': ('train', 'Train a segmentation network.'),
    'pretrain': ('pretrain', 'Train a backbone as an image classifier.'),
    'evaluate': ('evaluate', 'Measure the mIoU of a network on a dataset.'),
    'explain': ('explain', 'Draw what networks see: heat maps, details, masks and errors.'),
    'predict': ('predict', 'Segment images, folders of images and videos.'),
    'classes': ('classes', 'Print the class table of a segmented bag, a model or a dataset.'),
    'blend': ('blend', 'Blend weights with those from before a training.'),
    'export': ('export', 'Convert weights to a model.onnx that describes itself.'),
    'quantize': ('quantize', 'Convert a model.onnx to int8, calibrated on your images.'),
    'engine': ('engine', 'Build the engine of a model for an NVIDIA GPU ahead of time.'),
    'import': ('import_checkpoint', 'Convert a checkpoint of the reference implementation to weights.'),
    'benchmark': ('benchmark', 'Compare the speed of the segmenter and of PyTorch on this machine.'),
}

#: Exit status after a mistake of the user, as in argparse.
USER_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    A user's mistake is reported in one line on stderr.

    Args:
        arguments: Command line without the program; None takes that of the process.

    Returns:
        Exit status: 0, 2 after a user's mistake, 130 after Ctrl-C, or 143 after SIGTERM. Signals after the first one
        change nothing.
    """
    if arguments is None:
        interrupt_once()
        arguments = sys.argv[1:]
    try:
        return _run(build_parser(arguments).parse_args(separate_lists(arguments, _lists(arguments))))
    except KeyboardInterrupt:
        return interrupted_status()


def _run(options: argparse.Namespace) -> int:
    """Run the subcommand, report a mistake of the user in one line on stderr, and return the exit status."""
    try:
        with interrupt_after_block():
            import numpy  # noqa: F401  (most commands load it inside torch, which would swallow the interrupt)
        command_module(options.command).run(options)
    except ModuleNotFoundError as error:
        print(f'stdc {options.command}: {how_to_install(error)}', file=sys.stderr)
        return USER_ERROR
    except (ValueError, OSError) as error:
        print(f'stdc {options.command}: {error}', file=sys.stderr)
        return USER_ERROR
    except Exception as error:  # OpenCV's, PyTorch's and ONNX Runtime's errors have no base that tells
        if (text := memory_error(error)) is None:
            raise
        print(f'stdc {options.command}: {text}', file=sys.stderr)
        return USER_ERROR
    return 0


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of ``stdc``.

    Args:
        arguments: Command line without the program. Only the subcommand that it names gets its arguments, so that the
            others need not be imported.
    """
    parser = argparse.ArgumentParser('stdc', description='Train, evaluate, export and run STDC segmentation networks.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    chosen = _command(arguments)
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            command_module(name).add_arguments(command)
    return parser


def _command(arguments: Sequence[str]) -> str | None:
    """Return the name of the subcommand on the command line."""
    return next((argument for argument in arguments if not argument.startswith('-')), None)


def _lists(arguments: Sequence[str]) -> Mapping[str, Callable[[str], bool]]:
    """Return the options of the subcommand that take a list; see ``separate_lists``."""
    chosen = _command(arguments)
    return getattr(command_module(chosen), 'LISTS', {}) if chosen in COMMANDS else {}


def command_module(name: str) -> ModuleType:
    """Return the module of a subcommand, which has ``add_arguments(parser)`` and ``run(options)``.

    A module whose options take a list names them in ``LISTS``, as ``separate_lists`` expects them.
    """
    return import_module(f'stdc_core.commands.{COMMANDS[name][0]}')


if __name__ == '__main__':
    sys.exit(main())
