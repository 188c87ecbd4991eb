"""What others sent, in messages for people: on one line, without control characters, and short."""

from __future__ import annotations

import reprlib
from typing import Any

#: Characters of a string or a reason that are shown, and numbers of a list.
TEXT = 80
REASON = 300
NUMBERS = 14

_REPR = reprlib.Repr()
_REPR.maxstring = TEXT
_REPR.maxlist = NUMBERS


def quoted(value: Any) -> str:
    """``repr`` of a string, or of a list of numbers; of one that is too long, its beginning and its end."""
    return _REPR.repr(value)


def one_line(reason: object) -> str:
    """An error of another library as one short line; what is not printable becomes a space."""
    text = str(reason)[: 4 * REASON]
    line = ' '.join(''.join(character if character.isprintable() else ' ' for character in text).split())
    return line if len(line) <= REASON else f'{line[:REASON]} ...'
