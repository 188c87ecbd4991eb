# SPDX-License-Identifier: Apache-2.0
"""Build script of the ament_python package; `pip install .` uses it as well."""

from __future__ import annotations

from glob import glob
from xml.etree import ElementTree

from setuptools import find_packages, setup

NAME = 'stdc_ros'
MANIFEST = ElementTree.parse('package.xml').getroot()

setup(
    name=NAME,
    version=MANIFEST.findtext('version'),
    description=' '.join(MANIFEST.findtext('description').split()),
    maintainer=MANIFEST.findtext('maintainer'),
    maintainer_email=MANIFEST.find('maintainer').get('email'),
    license=MANIFEST.findtext('license'),
    python_requires='>=3.10',
    packages=find_packages(include=['stdc_core', 'stdc_core.*', 'stdc_ros', 'stdc_ros.*']),
    package_data={'stdc_core': ['weights/*', 'inference/*.jpg', 'inference/tensorrt/*.cu']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        (f'share/{NAME}/launch', glob('launch/*.launch.py')),
        (f'share/{NAME}/config', glob('config/*.*')),
        (f'share/{NAME}/config/classes', glob('config/classes/*.yaml')),
        (f'share/{NAME}/config/labels', glob('config/labels/*.yaml')),
        (f'share/{NAME}/config/sros2', glob('config/sros2/*.xml')),
        (f'share/{NAME}/config/train', glob('config/train/*.yaml')),
    ],
    zip_safe=False,
    install_requires=[
        'setuptools',
        'numpy>=1.21',
        # Headless, because no windows are opened and opencv-python needs libGL from the system. Below 5, because its
        # new type numbers break cv_bridge.
        'opencv-python-headless>=4.5,<5',
        'onnx>=1.14',
        'onnxruntime>=1.16',
        'pyyaml',
        'tqdm',
        'rosbags>=0.11',
        'rosbags-image>=0.10',
        # Reports damaged JPEGs. rosdep has no key for it; without it, OpenCV decodes them.
        'simplejpeg>=1.6',
        # Part of the standard library since Python 3.14.
        'backports.zstd; python_version < "3.14"',
    ],
    extras_require={
        # ROS 2 Jazzy from PyPI, for machines where no ROS 2 is installed.
        'ros': [
            'ros-rclpy[fastrtps]==7.1.6',
            'ros-sensor-msgs==5.3.6',
            'ros-diagnostic-msgs==5.3.6',
            'ros-nav-msgs==5.3.6',
            'ros-std-srvs==5.3.6',
        ],
        # `stdc export` uses the older ONNX exporter, which newer versions of torch may drop: see docs/architecture.md.
        'train': ['torch>=2.5,<2.15', 'lightning>=2.6', 'safetensors', 'tensorboard'],
        # Backbones of timm under the STDC decoder.
        'compare': ['timm>=1.0.9', 'torchvision', 'huggingface_hub'],
        'openvino': ['openvino>=2024.4'],
        'ray': ['ray>=2.9'],
        # For H.264 and H.265 topics of bags, and MP4 files.
        'video': ['av>=16'],
        'tensorrt': ['tensorrt>=10', 'cuda-bindings[all]>=12.6'],
        # The wheels contain all NVIDIA libraries; only a driver is needed. For CUDA 12: -cu12.
        'rtx': ['tensorrt-rtx-cu13>=1.2', 'cuda-bindings[all]>=13,<14'],
        # By this extra, colcon detects that the tests use pytest. Without it, colcon runs no test and reports success.
        'test': ['pytest>=7.4,<9', 'hypothesis'],
    },
    entry_points={
        'console_scripts': [
            'segmentation_node = stdc_ros.node.main:main',
            'segment_bag = stdc_ros.offline.segment_bag:main',
            'play_bag = stdc_ros.playback.play_bag:main',
            'stdc_demo = stdc_ros.playback.demo:main',
            'stdc = stdc_core.commands.main:main',
        ],
    },
)
