# SPDX-License-Identifier: Apache-2.0
"""Decide after a GPU error whether to try again or to give the GPU up."""

from __future__ import annotations


class FailureState:
    """Whether a GPU error is worth another try.

    Attributes:
        lost: Whether the GPU is given up.
    """

    def __init__(self) -> None:
        self.lost = False
        self._shaky = False

    def succeeded(self) -> None:
        """Note that an image was segmented."""
        self._shaky = False

    def may_retry(self, error: Exception) -> bool:
        """Return whether to try again after an error: once between two images, and never after a lasting error."""
        if self._shaky or getattr(error, 'lasting', False):
            return False
        self._shaky = True
        return True
