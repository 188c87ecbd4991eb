"""What a file or a library says, as part of a one-line message."""

from __future__ import annotations


def one_line(text: object, limit: int = 200) -> str:
    """Text without line breaks and control characters, cut at ``limit`` characters.

    Args:
        text: such as an exception, a name out of a file, or a value that was found.
    """
    # Not all of it first: a hostile file's names have millions of characters.
    words = ' '.join(str(text)[: 4 * limit].split())
    shown = ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in words)
    return shown if len(shown) <= limit else f'{shown[: limit - 3]}...'
