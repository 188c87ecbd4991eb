# SPDX-License-Identifier: Apache-2.0
"""Define the node's parameters: one table with defaults, descriptions and limits. Imports no rclpy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stdc_core.inference import BACKENDS, PRECISIONS
from stdc_core.inference.backend import MAX_THREADS
from stdc_core.inference.input_scale import scaled_size
from stdc_ros.node.camera_names import parse_camera_names

_SIZE = r'[1-9]\d{0,4}x[1-9]\d{0,4}'


def _parameter(
    default: Any,
    description: str,
    bounds: tuple[Any, Any] | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[Any], str] | None = None,
    at_run_time: bool = False,
    parse: Callable[[Any], Any] | None = None,
) -> Any:
    """Return one row of the table. The type of the parameter is the type of its default.

    Args:
        default: Default value.
        description: Text for ``ros2 param describe``.
        bounds: Smallest and largest value.
        choices: Allowed values; empty if they are not limited.
        check: Function that returns what is expected instead of an invalid value; empty for a valid value.
        at_run_time: Whether the parameter can be changed while the node runs.
        parse: Function that converts the given value, or raises ValueError with the reason.
    """
    metadata = {
        'description': description,
        'bounds': bounds,
        'choices': choices,
        'check': check,
        'at_run_time': at_run_time,
        'parse': parse,
    }
    return field(default=default, metadata=metadata)


def _check_output_size(value: str) -> str:
    return '' if value in ('input', 'network') or re.fullmatch(_SIZE, value) else 'input, network, or WIDTHxHEIGHT'


def _check_image_size(value: str) -> str:
    return '' if not value or re.fullmatch(_SIZE, value) else 'WIDTHxHEIGHT'


@dataclass
class Parameters:
    """Current values of the parameters. Lists are stored as tuples, which are empty by default."""

    model: str = _parameter(
        '', 'Path of a model.onnx from `stdc export`, ~ for the home folder; empty: the shipped model.'
    )
    input_scale: float = _parameter(
        0.0,
        'Factor by which the image is scaled for the network. A smaller one is faster, by its square; a larger one '
        "finds smaller objects. 0: the model's own, and less for images larger than those of its training.",
        bounds=(0.0, 4.0),
    )
    backend: str = _parameter(
        'auto',
        'Library that runs the network. auto: the one that the environment variable STDC_BACKEND names; without it, '
        'tensorrt on an NVIDIA GPU, openvino on a CPU with bfloat16 (or VNNI, in int8), each where it is installed, '
        'else onnxruntime.',
        choices=BACKENDS,
    )
    precision: str = _parameter(
        'auto',
        'Number format. int8 takes model.int8.onnx beside the model. auto: int8 with openvino on a CPU with VNNI, and '
        'for a model of `stdc quantize`; else fp16 on a GPU and bf16 in openvino where they are fast, else fp32, which '
        'is exact.',
        choices=PRECISIONS,
    )
    build_only: bool = _parameter(
        False, 'Build the TensorRT engine for images of image_size, or find it in the cache, and exit.'
    )
    image_size: str = _parameter(
        '',
        'WIDTHxHEIGHT of the images that build_only builds for, and configure of the lifecycle node.',
        check=_check_image_size,
    )
    threads: int = _parameter(
        0, 'Number of CPU threads for inference; 0: one for every core that the node may use.', bounds=(0, MAX_THREADS)
    )
    executor: str = _parameter(
        'events',
        'Executor of rclpy for the callbacks. events: EventsExecutor, which takes less CPU time, where rclpy has it; '
        'single_threaded: SingleThreadedExecutor.',
        choices=('events', 'single_threaded'),
    )
    cameras: tuple[str, ...] = _parameter(
        (),
        'Names of several cameras, [front, left] or "front,left"; each is the namespace of its topics, as in '
        'front/image.',
        parse=parse_camera_names,
    )
    image_transport: str = _parameter(
        'raw',
        'Form of the images. raw: sensor_msgs/Image; compressed: JPEG and PNG from image/compressed.',
        choices=('raw', 'compressed'),
    )
    image_reliability: str = _parameter(
        'best_effort',
        'Reliability of the image subscription. best_effort receives from every camera driver, reliable only from '
        'reliable publishers.',
        choices=('best_effort', 'reliable'),
    )
    output_size: str = _parameter(
        'input',
        'Size of the outputs. input: size of the image; network: size of the image as the network sees it; or '
        'WIDTHxHEIGHT.',
        check=_check_output_size,
    )
    enabled: bool = _parameter(
        True,
        'Whether to segment. False: no camera is subscribed to. The service ~/set_enabled sets it, too.',
        at_run_time=True,
    )
    confidence_threshold: float = _parameter(
        0.0,
        'Least confidence of a pixel, 0 to 1. Pixels of the mask with less become 255, the id for no class.',
        bounds=(0.0, 1.0),
        at_run_time=True,
    )
    max_frame_age: float = _parameter(
        0.0,
        'Greatest age of an image by its stamp, in seconds; older ones are dropped. 0: no limit. Camera and node need '
        'the same clock.',
        bounds=(0.0, 3600.0),
        at_run_time=True,
    )
    stale_after: float = _parameter(
        3.0,
        'Seconds without an image, with the same image repeated, or with a dark image, until the node warns.',
        bounds=(0.1, 3600.0),
        at_run_time=True,
    )
    overlay_opacity: float = _parameter(
        0.5,
        'Weight of the class colours in ~/overlay. 0: the image alone; 1: the colours alone.',
        bounds=(0.0, 1.0),
        at_run_time=True,
    )
    jpeg_quality: int = _parameter(
        85,
        'Quality of the JPEG pictures ~/overlay/compressed and ~/color_mask/compressed.',
        bounds=(1, 100),
        at_run_time=True,
    )
    drivable_grid: bool = _parameter(False, "Whether to publish ~/drivable_grid, a bird's-eye view of drivable ground.")
    grid_frame: str = _parameter('base_link', 'Frame of the grid: x forward, y left, z = 0 on the ground.')
    grid_camera_pose: tuple[float, ...] = _parameter(
        (),
        'Pose of the camera in grid_frame: x, y, z, roll, pitch, yaw in metres and radians; poses of several cameras '
        'follow each other. Not given: from TF, at the stamp of the image.',
    )
    grid_classes: tuple[str, ...] = _parameter((), 'Names of the drivable classes; not given: road.')
    grid_rectified: bool = _parameter(
        False,
        'Whether the images are rectified, as image_rect of image_proc is. True: P of their CameraInfo is used, not K '
        'and the distortion.',
    )
    grid_x_min: float = _parameter(0.0, 'Near edge of the grid, metres ahead.', bounds=(-1000.0, 1000.0))
    grid_x_max: float = _parameter(40.0, 'Far edge of the grid, metres ahead.', bounds=(-1000.0, 1000.0))
    grid_y_min: float = _parameter(-10.0, 'Right edge of the grid, metres to the left.', bounds=(-1000.0, 1000.0))
    grid_y_max: float = _parameter(10.0, 'Left edge of the grid, metres to the left.', bounds=(-1000.0, 1000.0))
    grid_resolution: float = _parameter(0.1, 'Side of a cell of the grid, metres.', bounds=(0.01, 100.0))
    grid_min_confidence: float = _parameter(
        0.5, 'Least confidence of a pixel, 0 to 1. Cells whose pixel has less are unknown.', bounds=(0.0, 1.0)
    )
    points: bool = _parameter(
        False, 'Whether to paint the clouds of the topic points with the classes of the masks, on ~/points.'
    )
    points_only: tuple[str, ...] = _parameter(
        (), 'Names of classes whose points ~/points contains. Not given: all points.'
    )
    points_max_time_difference: float = _parameter(
        0.1,
        'Largest difference between the stamps of a cloud and of its mask, in seconds.',
        bounds=(0.0, 10.0),
    )
    points_fixed_frame: str = _parameter(
        '',
        'Frame of TF that does not move, such as odom: corrects for the motion between the stamps of cloud and image. '
        'Empty: no correction.',
    )
    points_camera_pose: tuple[float, ...] = _parameter(
        (),
        'Pose of the camera in the frame of the clouds: x, y, z, roll, pitch, yaw in metres and radians; poses of '
        'several cameras follow each other. Not given: from TF.',
    )
    points_rectified: bool = _parameter(
        False,
        'Whether the images are rectified, as image_rect of image_proc is. True: P of their CameraInfo is used, not K '
        'and the distortion.',
    )


def output_size(setting: str, image: tuple[int, int], input_scale: float) -> tuple[int, int]:
    """Return height and width of the outputs.

    Args:
        setting: Value of the parameter ``output_size``.
        image: Height and width of the image.
        input_scale: Scale at which the network sees this image.
    """
    if setting == 'input':
        return image
    if setting == 'network':
        height, width = scaled_size(image, input_scale)
        return max(1, height), max(1, width)
    return size_of(setting)


def size_of(text: str) -> tuple[int, int]:
    """Return height and width of the text ``WIDTHxHEIGHT``."""
    width, height = text.split('x')
    return int(height), int(width)
