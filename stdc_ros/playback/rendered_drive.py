# SPDX-License-Identifier: Apache-2.0
"""Render the demo's drive through several kinds of street into a bag: images, CameraInfo and the true labels."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stdc_core.data.synthetic import SyntheticDrive
from stdc_ros.bags.message import make_header
from stdc_ros.bags.writer import write_bag
from stdc_ros.messages.cdr import CAMERA_INFO, IMAGE, TYPES
from stdc_ros.messages.images import make_image

#: Kind of street, weather and seed of each part of the drive.
PARTS = (('town', None, 2), ('motorway', 'overcast', 3), ('boulevard', 'overcast', 2))

#: Frames per second.
RATE = 15.0

IMAGE_TOPIC = '/camera/image_raw'
CAMERA_INFO_TOPIC = '/camera/camera_info'

#: Stamp of the first frame in nanoseconds. Any time will do except 0, which means "no stamp".
_BEGIN = 10**18


def render_drive(path: Path, frames: int) -> list[np.ndarray]:
    """Render a drive of 480 x 360 pixels at 15 Hz into a bag. Its parts show one kind of street after the other.

    Args:
        path: Bag to write.
        frames: Number of frames.

    Returns:
        True class ids of each frame, uint8 ``[H, W]``.

    Raises:
        BagError: The bag cannot be written.
    """
    lengths = [len(part) for part in np.array_split(np.arange(frames), len(PARTS))]
    labels: list[np.ndarray] = []
    with write_bag(path) as bag, tqdm(total=frames, desc='Rendering a drive', unit='frame') as bar:
        bag.add_topic(IMAGE_TOPIC, IMAGE)
        bag.add_topic(CAMERA_INFO_TOPIC, CAMERA_INFO)
        for (scene, weather, seed), length in zip(PARTS, lengths, strict=True):
            # Drives of fewer frames than parts leave the last parts out.
            drive = SyntheticDrive(seed=seed, frames=max(length, 1), rate=RATE, scene=scene, weather=weather)
            for frame in islice(drive, length):
                stamp = _BEGIN + round(len(labels) / RATE * 1e9)
                header = make_header(stamp, 'camera')
                bag.write(IMAGE_TOPIC, stamp, make_image(TYPES.types[IMAGE], header, frame.image, 'bgr8'))
                bag.write(CAMERA_INFO_TOPIC, stamp, pinhole_info(header, frame.image.shape, drive.camera_matrix))
                labels.append(frame.label)
                bar.update()
    return labels


def pinhole_info(header: Any, shape: tuple[int, ...], matrix: np.ndarray) -> Any:
    """Return the ``sensor_msgs/CameraInfo`` of a camera without distortion.

    Args:
        header: Header of the image.
        shape: Shape of the image, height first.
        matrix: Camera matrix ``[3, 3]`` in pixels.
    """
    region = TYPES.types['sensor_msgs/msg/RegionOfInterest']
    return TYPES.types[CAMERA_INFO](
        header=header,
        height=shape[0],
        width=shape[1],
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=matrix.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([matrix, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=region(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )
