# SPDX-License-Identifier: Apache-2.0
"""The node's ``~/drivable_grid``: settings from parameters, a pose for each camera, messages of results."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

from stdc_core.classes import ClassTable
from stdc_core.inference import Segmentation
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.drivable_grid import DrivableGrid, GridSettings, make_grid_message
from stdc_ros.messages.cdr import TYPES
from stdc_ros.node.camera_pose import FixedPose, TransformedPose, listen
from stdc_ros.node.parameters import Parameters

POSE_NUMBERS = 6


class GridOutput:
    """Grids of one camera.

    Args:
        settings: where they lie and what is drivable.
        classes: of the model.
        frame: name of the ground frame.
        pose: tells the camera's pose in it.
        rectified: whether the images are.
    """

    def __init__(
        self,
        settings: GridSettings,
        classes: ClassTable,
        frame: str,
        pose: FixedPose | TransformedPose,
        rectified: bool,
    ):
        self._grid = DrivableGrid(settings, classes)
        self._frame = frame
        self._pose = pose
        self._rectified = rectified

    def message(self, header: Any, found: Segmentation, info: Any) -> Any:
        """A ``nav_msgs/OccupancyGrid`` at the stamp of the image, in the ground frame.

        Args:
            header: of the image.
            found: mask and confidence as the segmenter made them: pixels without a class inside an object would be
                edges.
            info: ``CameraInfo`` of the image.

        Raises:
            CameraInfoError: camera or pose cannot be used, or TF does not know the pose.
            GridError: the mask fits no grid.
        """
        camera = CameraModel.from_info(info, self._rectified)
        cells = self._grid(found.mask, found.confidence, camera, self._pose(header))
        ground = TYPES.types['std_msgs/msg/Header'](stamp=header.stamp, frame_id=self._frame)
        return make_grid_message(TYPES.types['nav_msgs/msg/OccupancyGrid'], ground, cells, self._grid.settings)


def make_grids(node: Node, parameters: Parameters, classes: ClassTable) -> dict[str, GridOutput]:
    """A :class:`GridOutput` by camera name.

    Raises:
        GridError: the parameters make no grid.
        CameraInfoError: the poses are not six numbers for each camera, or none is given and there is no TF.
    """
    p = parameters
    extent = p.grid_x_min, p.grid_x_max, p.grid_y_min, p.grid_y_max
    drivable = p.grid_classes or GridSettings.drivable
    settings = GridSettings(*extent, p.grid_resolution, drivable, p.grid_min_confidence)
    names, poses = p.cameras or ('',), p.grid_camera_pose
    if poses and len(poses) != POSE_NUMBERS * len(names):
        raise CameraInfoError(
            f'grid_camera_pose has {len(poses)} numbers, expected {POSE_NUMBERS} for each of {len(names)} cameras'
        )
    transforms = None if poses else listen(node)
    if not poses and transforms is None:
        raise CameraInfoError('drivable_grid needs grid_camera_pose here: tf2_ros is not installed')
    grids = {}
    for index, name in enumerate(names):
        fixed = poses[POSE_NUMBERS * index : POSE_NUMBERS * (index + 1)]
        pose = FixedPose(fixed) if fixed else TransformedPose(transforms, p.grid_frame)
        grids[name] = GridOutput(settings, classes, p.grid_frame, pose, p.grid_rectified)
    return grids
