# SPDX-License-Identifier: Apache-2.0
"""Segment images with a ``model.onnx``, on CPU or GPU. Needs neither torch nor ROS.

May import ``io`` and ``classes``.
"""

from stdc_core.inference.backend import PRECISIONS, BackendError
from stdc_core.inference.backend_choice import BACKENDS
from stdc_core.inference.model_file import ModelError, ModelInfo
from stdc_core.inference.segmenter import DEFAULT_MODEL, MAX_PIXELS, Segmentation, Segmenter, SizeError

__all__ = [
    'BACKENDS',
    'DEFAULT_MODEL',
    'MAX_PIXELS',
    'PRECISIONS',
    'BackendError',
    'ModelError',
    'ModelInfo',
    'Segmentation',
    'Segmenter',
    'SizeError',
]
