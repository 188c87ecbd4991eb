# SPDX-License-Identifier: Apache-2.0
"""Read the arguments of ``--extra``: further training datasets, each with its share of the samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExtraData:
    """Further training dataset.

    Args:
        path: Folder of the dataset.
        share: Share of the samples to draw from it, above 0 and at most 1. The datasets with None supply
            ``extra_share`` of the samples together.
    """

    path: Path
    share: float | None = None

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        return str(self.path) if self.share is None else f'{self.path}={self.share!r}'

    @classmethod
    def parse(cls, text: str) -> ExtraData:
        """Read ``FOLDER`` or ``FOLDER=SHARE``. The name of a folder may contain ``=``.

        Args:
            text: Argument of ``--extra``.

        Raises:
            ValueError: The share is not above 0 and at most 1.
        """
        folder, equals, number = text.rpartition('=')
        if not equals or Path(text).exists():
            return cls(Path(text))
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise ValueError(
                f'--extra {text}: expected FOLDER=SHARE with a share above 0 and at most 1, found {number!r}'
            )
        return cls(Path(folder), share)
