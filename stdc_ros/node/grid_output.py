# SPDX-License-Identifier: Apache-2.0
"""Make the ``~/drivable_grid`` messages from the parameters and the pose of each camera."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

from stdc_core.classes import ClassTable
from stdc_core.inference import Segmentation
from stdc_ros.ground.camera_info import CameraInfoError
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.drivable_grid import DrivableGrid, GridSettings, make_grid_message
from stdc_ros.messages.cdr import TYPES
from stdc_ros.node.camera_pose import FixedPose, TransformedPose, Transforms, listen, tf_frame
from stdc_ros.node.parameters import Parameters

#: Numbers of a pose: x, y, z, roll, pitch, yaw.
POSE_NUMBERS = 6


class GridOutput:
    """Grid messages of one camera.

    Args:
        settings: Extent and cells of the grid, and drivable classes.
        classes: Class table of the model.
        frame: Name of the ground frame.
        pose: Function that returns the camera's pose in the ground frame for the header of an image.
        rectified: Whether the images are rectified.
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
        self._frame = tf_frame(frame)
        self._pose = pose
        self._rectified = rectified

    def message(self, header: Any, segmentation: Segmentation, info: Any) -> Any:
        """Return a ``nav_msgs/OccupancyGrid`` at the stamp of an image, in the ground frame.

        Args:
            header: Header of the image.
            segmentation: Mask and confidence of the segmenter, before ``confidence_threshold`` is applied. The pixels
                that it clears would look like edges inside an object.
            info: ``CameraInfo`` of the image.

        Raises:
            CameraInfoError: Camera or pose is invalid, or TF does not know the pose.
            GridError: The mask does not fit the grid.
        """
        camera = CameraModel.from_info(info, self._rectified)
        cells = self._grid(segmentation.mask, segmentation.confidence, camera, self._pose(header))
        ground = TYPES.types['std_msgs/msg/Header'](stamp=header.stamp, frame_id=self._frame)
        return make_grid_message(TYPES.types['nav_msgs/msg/OccupancyGrid'], ground, cells, self._grid.settings)


class GridOutputs(dict[str, GridOutput]):
    """Grids by camera name, and the TF listener that they share.

    Args:
        node: Node that listens to TF.
        parameters: Values of the parameters.
        classes: Class table of the model.

    Raises:
        GridError: The parameters of the grid are invalid.
        CameraInfoError: There are not six pose numbers for each camera, or none are given and tf2_ros is not installed.
    """

    def __init__(self, node: Node, parameters: Parameters, classes: ClassTable):
        super().__init__()
        p = parameters
        extent = p.grid_x_min, p.grid_x_max, p.grid_y_min, p.grid_y_max
        drivable = p.grid_classes or GridSettings.drivable
        settings = GridSettings(*extent, p.grid_resolution, drivable, p.grid_min_confidence)
        names, poses = p.cameras or ('',), p.grid_camera_pose
        if poses and len(poses) != POSE_NUMBERS * len(names):
            raise CameraInfoError(
                f'grid_camera_pose has {len(poses)} numbers, expected {POSE_NUMBERS} for each of {len(names)} cameras'
            )
        self._transforms: Transforms | None = None if poses else listen(node)
        if not poses and self._transforms is None:
            raise CameraInfoError('drivable_grid needs grid_camera_pose here: tf2_ros is not installed')
        try:
            for index, name in enumerate(names):
                self[name] = GridOutput(settings, classes, p.grid_frame, self._pose(p, index), p.grid_rectified)
        except Exception:
            self.close()
            raise

    def _pose(self, p: Parameters, index: int) -> FixedPose | TransformedPose:
        """Return the pose of the camera with this index."""
        if self._transforms is not None:
            return TransformedPose(self._transforms, p.grid_frame)
        return FixedPose(p.grid_camera_pose[POSE_NUMBERS * index : POSE_NUMBERS * (index + 1)])

    @property
    def transforms(self) -> Transforms | None:
        """TF listener of the grids; None if the poses are parameters."""
        return self._transforms

    def close(self) -> None:
        """Stop listening to TF."""
        if self._transforms is not None:
            self._transforms.close()
