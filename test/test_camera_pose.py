# SPDX-License-Identifier: Apache-2.0
"""Test frame names for tf2."""

from __future__ import annotations

import logging

import ros_helpers  # noqa: F401  (isolates this run; before rclpy)

from stdc_ros.node.camera_pose import tf_frame


def test_leading_slash_is_stripped_and_logged_once(caplog):
    with caplog.at_level(logging.WARNING, 'stdc_ros'):
        for _ in range(3):
            assert tf_frame('/old_camera') == 'old_camera'
            assert tf_frame('new_camera') == 'new_camera'
    (record,) = [record for record in caplog.records if record.name.startswith('stdc_ros')]
    assert record.getMessage() == "frame_id '/old_camera' begins with a slash, which tf2 refuses: using 'old_camera'"
