# SPDX-License-Identifier: Apache-2.0
"""Render driving scenes with exact labels, with NumPy and OpenCV.

May import only ``stdc_core.classes``.
"""

from stdc_core.data.synthetic.drive import Frame, SyntheticDrive
from stdc_core.data.synthetic.light import WEATHER
from stdc_core.data.synthetic.scenes import SCENES

__all__ = ['SCENES', 'WEATHER', 'Frame', 'SyntheticDrive']
