# SPDX-License-Identifier: Apache-2.0
"""A procedural renderer of driving scenes with exact labels; needs numpy and OpenCV only."""

from stdc_core.data.synthetic.drive import Frame, SyntheticDrive

__all__ = ['Frame', 'SyntheticDrive']
