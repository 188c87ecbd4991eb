"""From an image to a mask with one ``model.onnx``. Needs neither torch nor ROS."""

from stdc_core.inference.backends import BACKENDS, BackendError
from stdc_core.inference.model_file import ModelError, ModelInfo
from stdc_core.inference.segmenter import DEFAULT_MODEL, Segmentation, Segmenter

__all__ = ['BACKENDS', 'DEFAULT_MODEL', 'BackendError', 'ModelError', 'ModelInfo', 'Segmentation', 'Segmenter']
