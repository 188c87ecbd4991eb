# SPDX-License-Identifier: Apache-2.0
"""Shorten text from a file, a message or a library for a one-line message."""

from __future__ import annotations

import reprlib
from typing import Any

#: Number of characters of a string that ``quoted`` shows.
TEXT = 80
#: Number of entries of a list that ``quoted`` shows.
NUMBERS = 14

_REPR = reprlib.Repr()
_REPR.maxstring = TEXT
_REPR.maxlist = NUMBERS


def one_line(text: object, limit: int = 200) -> str:
    """Return text without line breaks and control characters, cut at ``limit`` characters.

    Args:
        text: Exception, name from a file, or value that was found.
        limit: Largest length of the result, characters.

    Example:
        >>> one_line('several words', limit=10)
        'several...'
    """
    # Cut first, because names in a hostile file can have millions of characters.
    words = ' '.join(str(text)[: 4 * limit].split())
    shown = ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in words)
    return shown if len(shown) <= limit else f'{shown[: limit - 3]}...'


def quoted(value: Any) -> str:
    """Return the ``repr`` of a string or a list of numbers; of a long one, only its beginning and its end."""
    return _REPR.repr(value)
