"""Values that others sent, in messages for people: on one line, without control characters, and short."""

from __future__ import annotations

import reprlib
from typing import Any

#: Characters of a string that are shown, and numbers of a list.
TEXT = 80
NUMBERS = 14

_REPR = reprlib.Repr()
_REPR.maxstring = TEXT
_REPR.maxlist = NUMBERS


def quoted(value: Any) -> str:
    """``repr`` of a string, or of a list of numbers; of one that is too long, its beginning and its end."""
    return _REPR.repr(value)
