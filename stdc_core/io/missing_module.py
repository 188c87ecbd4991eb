# SPDX-License-Identifier: Apache-2.0
"""Say how to install a Python module that is missing."""

from __future__ import annotations

#: Extra in ``setup.py`` that installs a module.
EXTRAS = {
    'av': 'video',
    'cuda': 'tensorrt',
    'huggingface_hub': 'compare',
    'lightning': 'train',
    'openvino': 'openvino',
    'ray': 'ray',
    'safetensors': 'train',
    'tensorboard': 'train',
    'tensorrt': 'tensorrt',
    'timm': 'compare',
    'torch': 'train',
    'torchmetrics': 'train',
    'torchvision': 'compare',
}

#: Package on PyPI of a module that every installation has.
PACKAGES = {
    'backports': 'backports.zstd',
    'cv2': "'opencv-python-headless<5'",
    'google': 'onnx',
    'lz4': 'lz4',
    'numpy': 'numpy',
    'onnx': 'onnx',
    'onnxruntime': 'onnxruntime',
    'rosbags': 'rosbags',
    'simplejpeg': 'simplejpeg',
    'tqdm': 'tqdm',
    'yaml': 'pyyaml',
}


def how_to_install(error: ModuleNotFoundError) -> str:
    """Return one line that names the missing module and the command that installs it.

    Args:
        error: Error of the import. Its name may be that of a submodule.
    """
    name = error.name or str(error)
    top = name.split('.')[0]
    if top in EXTRAS:
        command = f"pip install '.[{EXTRAS[top]}]' in the repository"
    elif top in PACKAGES:
        command = f'pip install {PACKAGES[top]}'
    else:
        command = 'pip install . in the repository'
    return f'the Python module {name} is missing; install it with: {command}'
