# SPDX-License-Identifier: Apache-2.0
"""Parse command-line arguments: lists that leave positional arguments alone, and paths that begin with ``~``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def separate_lists(arguments: Sequence[str], lists: Mapping[str, Callable[[str], bool]]) -> list[str]:
    """Rewrite ``--name A B in out`` to ``--name=A --name=B in out``, for an option with ``action='append'``.

    With ``nargs='+'``, argparse would take ``in`` and ``out`` as values of the option.

    Args:
        arguments: Command line without the program.
        lists: Options that take a list, each with a function that says whether an argument after the first value is
            another value of the list.

    Example:
        >>> separate_lists(['--outputs', 'mask', 'overlay', 'in'], {'--outputs': {'mask', 'overlay'}.__contains__})
        ['--outputs=mask', '--outputs=overlay', 'in']
    """
    rewritten: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == '--':
            return [*rewritten, argument, *rest]
        name, equals, value = argument.partition('=')
        if name not in lists or (not equals and (not rest or rest[0].startswith('--'))):
            rewritten.append(argument)  # argparse reports a missing value
            continue
        values = [value if equals else rest.pop(0)]
        while rest and not rest[0].startswith('-') and lists[name](rest[0]):
            values.append(rest.pop(0))
        rewritten += [f'{name}={value}' for value in values]
    return rewritten


def expand_user(text: str) -> Path:
    """Return the path of an argument, with a leading ``~`` replaced by the home folder.

    Shells do not replace it in ``--model=~/m``.
    """
    return Path(text).expanduser()
