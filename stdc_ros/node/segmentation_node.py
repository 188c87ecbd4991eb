# SPDX-License-Identifier: Apache-2.0
"""Plain ROS 2 node of the segmentation; ``lifecycle_node.SegmentationLifecycleNode`` is the managed one."""

from __future__ import annotations

from rclpy.node import Node

from stdc_ros.node.camera_segmentation import CameraSegmentation
from stdc_ros.node.declare_parameters import warn_of_unknown


class SegmentationNode(Node):
    """Plain node ``segmentation``, which segments from its start to its end.

    Attributes:
        segmentation: Segmentation that runs on this node.

    Raises:
        rclpy.exceptions.ParameterException, FileNotFoundError, ValueError: See :class:`CameraSegmentation` and its
            methods; the message is one line for the user.
    """

    def __init__(self) -> None:
        super().__init__('segmentation')
        self.segmentation = CameraSegmentation(self)
        # Before the model is loaded, so that other nodes discover the topics meanwhile.
        self.segmentation.open_topics()
        warn_of_unknown(self)
        self.segmentation.load()
        if not self.segmentation.settings.build_only:
            self.segmentation.start()

    @property
    def failure(self) -> Exception | None:
        """Error that keeps the node from working, or None."""
        return self.segmentation.look_for_failure()

    @property
    def builds(self) -> bool:
        """Whether a thread is building an engine. Only the end of the process can stop it."""
        return self.segmentation.builds

    def close(self) -> None:
        """Stop segmenting and destroy the node. Raises WorkerHangsError if the current frame does not finish."""
        self.segmentation.close()
        self.destroy_node()
