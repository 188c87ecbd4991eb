# SPDX-License-Identifier: Apache-2.0
"""Measure what painting a cloud costs and how well hidden points are found: PYTHONPATH=. python benchmarks/points.py.

The time is from the bytes of a cloud of 131072 points to the bytes of the painted one, on one core, with masks of
1080 x 1920. The hidden points are those of rendered drives, whose geometry is known. ``--picture FILE`` draws a frame
of one of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from rendered_lidar import draw_depth, lidar_cloud

from stdc_core.classes import CAMVID, IGNORE
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import Segmenter
from stdc_core.inference.heap_memory import keep_freed_memory
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.pose import pose_of_body
from stdc_ros.messages.cdr import POINT_CLOUD, TYPES, decode, encode
from stdc_ros.points.painting import View, find_visible, paint
from stdc_ros.points.point_cloud import make_painted_cloud, packed_colors, read_cloud

BEAMS, COLUMNS, RUNS = 128, 1024, 50
LENS = CameraModel(1920, 1080, (1100.0, 1100.0), (959.5, 539.5), (-0.31, 0.12, 0.0011, -0.0007, -0.02))
SEEDS, SECONDS = (1, 3, 5, 8), 4.0
HEIGHT, WIDTH = 720, 1280


def street_cloud() -> bytes:
    """Return the bytes of a cloud of a LiDAR 1.9 m above flat ground between walls, with intensity and ring."""
    azimuth = np.tile(np.linspace(-np.pi, np.pi, COLUMNS, endpoint=False), BEAMS)
    elevation = np.repeat(np.radians(np.linspace(-25, 15, BEAMS)), COLUMNS)
    ground = 1.9 / np.maximum(-np.sin(elevation), 1e-3)
    distance = np.minimum(ground, 15 + 10 * np.sin(3 * azimuth)).astype(np.float32)
    # As drivers lay points out that use PCL, with four unused bytes behind z and two at the end.
    layout = {
        'x': ('<f4', 0, 7),
        'y': ('<f4', 4, 7),
        'z': ('<f4', 8, 7),
        'intensity': ('<f4', 16, 7),
        'ring': ('<u2', 20, 4),
    }
    kinds, offsets, datatypes = zip(*layout.values(), strict=True)
    points = np.zeros(len(azimuth), {'names': list(layout), 'formats': kinds, 'offsets': offsets, 'itemsize': 24})
    points['x'] = distance * np.cos(elevation) * np.cos(azimuth)
    points['y'] = distance * np.cos(elevation) * np.sin(azimuth)
    points['z'] = distance * np.sin(elevation)
    step = points.dtype.itemsize
    field, header = TYPES.types['sensor_msgs/msg/PointField'], TYPES.types['std_msgs/msg/Header']
    fields = [field(name, *entry, 1) for name, *entry in zip(layout, offsets, datatypes, strict=True)]
    stamp = TYPES.types['builtin_interfaces/msg/Time'](0, 0)
    size, data = len(points), points.view(np.uint8)
    cloud = TYPES.types[POINT_CLOUD](header(stamp, 'lidar'), 1, size, fields, False, step, size * step, data, True)
    return encode(cloud)


def measure_cost() -> None:
    """Print the time for a cloud, by the number of cameras."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    keep_freed_memory()  # as the node does
    rng, data, colors = np.random.default_rng(0), street_cloud(), packed_colors(CAMVID)
    views = []
    for turn in np.radians([0, 90, 180, 270]):
        mask, confidence = (rng.integers(0, high, (1080, 1920), np.uint8) for high in (11, 256))
        views.append(View(mask, confidence, LENS, np.linalg.inv(pose_of_body([0.3, 0, -0.4, 0, 0, turn]))))
    for count in (1, 4):
        wall, cpu = [], []
        for _ in range(RUNS):
            begin, used = time.perf_counter(), time.thread_time()
            cloud = read_cloud(decode(data, POINT_CLOUD))
            painting = paint(cloud.xyz, views[:count])
            encode(make_painted_cloud(cloud, *painting, colors))
            wall.append(time.perf_counter() - begin)
            cpu.append(time.thread_time() - used)
        seen = int((painting.class_id != IGNORE).sum())
        print(
            f'{len(cloud)} points, {count} camera{"s" if count > 1 else ""}, {seen} painted: '
            f'{1000 * statistics.median(wall):.1f} ms, of which {1000 * statistics.median(cpu):.1f} ms of CPU '
            f'(medians of {RUNS})'
        )


def measure_hidden() -> None:
    """Print how many of the truly hidden points are found, and how many of the visible ones are lost."""
    totals = np.zeros(4, int)
    for seed in SEEDS:
        drive = SyntheticDrive(seed=seed, height=HEIGHT, width=WIDTH)
        points, transform = lidar_cloud(drive, SECONDS)
        x, y, z = transform[:3, :3] @ points + transform[:3, 3:]
        column, row = camera_of(drive).project(x, y, z)
        inside = np.flatnonzero((column > 0) & (column < WIDTH - 1) & (row > 0) & (row < HEIGHT - 1))
        place = np.rint(row[inside]).astype(int), np.rint(column[inside]).astype(int)
        depth = np.minimum(draw_depth(drive, SECONDS, drive.camera(SECONDS)).depth, 1e4)
        # Points at the edges of things, where the pixels around have both distances, count for neither.
        hidden = z[inside] > cv2.dilate(depth, np.ones((3, 3)))[place] * 1.03 + 0.4
        visible = z[inside] <= cv2.erode(depth, np.ones((3, 3)))[place] * 1.02 + 0.1
        seen = np.isin(inside, find_visible(points, camera_of(drive), transform)[0])
        totals += (hidden & ~seen).sum(), hidden.sum(), (visible & ~seen).sum(), visible.sum()
    found, hidden, lost, visible = totals.tolist()
    print(f'{hidden} points that nearer ones hide: {100 * found / hidden:.1f} % found')
    print(f'{visible} points that the camera sees: {100 * lost / visible:.1f} % taken for hidden')


def camera_of(drive: SyntheticDrive) -> CameraModel:
    matrix = drive.camera_matrix
    return CameraModel(drive.width, drive.height, (matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2]))


def draw(path: Path, seed: int = 3) -> None:
    """Write a picture of a rendered frame, of its painted cloud in the image, and of the cloud from above behind."""
    drive = SyntheticDrive(seed=seed, height=HEIGHT, width=WIDTH)
    index = round(SECONDS * drive.rate)
    image = drive[index].image
    points, transform = lidar_cloud(drive, index / drive.rate, beams=96)
    mask, confidence = Segmenter.load()(image, confidence=True)
    class_id, _ = paint(points, [View(mask, confidence, camera_of(drive), transform)])
    size = (500, 281)
    # Grey in 16 steps, which keeps the file small.
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), size, interpolation=cv2.INTER_AREA)
    grey = cv2.convertScaleAbs(grey, alpha=1.5) // 16 * 16
    left = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    right = left // 3
    colors = CAMVID.palette_bgr()
    seen = np.flatnonzero(class_id != IGNORE)
    column, row = camera_of(drive).project(*(transform[:3, :3] @ points[:, seen] + transform[:3, 3:]))
    for x, y, label in zip(column * size[0] / WIDTH, row * size[1] / HEIGHT, class_id[seen], strict=True):
        cv2.circle(right, (round(x), round(y)), 1, colors[label].tolist(), -1)
    below = np.full((390, 2 * size[0], 3), 255, np.uint8)
    eye = np.linalg.inv(pose_of_body([-8.0, 0.0, 6.5, 0.0, 0.27, 0.0]))
    x, y, z = eye[:3, :3] @ points + eye[:3, 3:]
    for each in np.argsort(-z):
        label, scale = class_id[each], 760 / z[each]
        color = (205, 205, 205) if label == IGNORE else colors[label].tolist()
        center = round(500 + float(x[each] * scale)), round(160 + float(y[each] * scale))
        cv2.circle(below, center, max(1, round(float(scale) * 0.035)), color, -1)
    picture = np.vstack([np.hstack([left, right]), below])
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f'{path}: {path.stat().st_size} bytes')


def main() -> None:
    """Measure, or draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--picture', type=Path, metavar='FILE', help='write a PNG instead')
    given = parser.parse_args()
    if given.picture:
        draw(given.picture)
        return
    measure_hidden()
    measure_cost()


if __name__ == '__main__':
    main()
