# SPDX-License-Identifier: Apache-2.0
"""Test counts and latencies of a camera's frames, the level of its status, and the hint for a silent topic."""

from __future__ import annotations

import pytest
import ros_helpers  # noqa: F401 (isolates this process before it uses rclpy)
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile

from stdc_ros.messages.cdr import CAMERA_INFO, IMAGE
from stdc_ros.node.diagnostics import assess, explain_silence
from stdc_ros.node.frame_statistics import STAGES, FrameStatistics
from stdc_ros.node.topics import find_sources


def test_rate_of_a_fast_camera():
    statistics = FrameStatistics()
    for frame in range(1200):
        statistics.add(frame / 120)
    assert 119 < statistics.rate(10.0) <= 120


def test_percentiles_of_each_stage():
    statistics = FrameStatistics()
    for number in range(101):
        latencies = {name: (100 * stage + number) / 1000 for stage, name in enumerate(STAGES)}
        statistics.add(0.0, **{name.replace(' ', '_'): seconds for name, seconds in latencies.items()})
    statistics.add(0.0, transport=-5.0, stamp_to_mask=1e6)  # from another clock
    rows = statistics.rows(0.0)
    for stage, name in enumerate(STAGES):
        for percent in (50, 95, 99):
            assert rows[f'{name} p{percent} (ms)'] == f'{100 * stage + percent:.1f}'


def test_trouble_is_reported_once():
    statistics = FrameStatistics()
    for reason in ('cut off', 'of 5 bytes'):
        statistics.add_trouble('bad', reason)
    statistics.add_trouble('without a grid', 'no transform')
    assert list(statistics.new_troubles().values()) == [
        '2 bad images (of 5 bytes)',
        '1 frames without a grid (no transform)',
    ]
    assert statistics.new_troubles() == {}
    statistics.add_trouble('bad', 'empty')
    assert statistics.new_troubles() == {'bad': '1 bad images (empty)'}
    rows = statistics.rows(0.0)
    assert (rows['bad images'], rows['frames without a grid']) == ('3', '1')


OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.mark.parametrize(
    ('changes', 'level', 'message'),
    [
        ({}, OK, 'ok'),
        ({'wanted': False}, OK, 'idle: nobody listens to an output'),
        ({'enabled': False, 'wanted': False}, OK, 'switched off'),
        ({'complaint': 'no image on /image for 4 s'}, WARN, 'no image on /image for 4 s'),
        ({'troubles': {'bad': '2 bad images (empty)'}}, WARN, '/image: since the last report 2 bad images (empty)'),
        (
            {'troubles': {'failed': '1 frames failed (memory)', 'bad': '2 bad images (empty)'}, 'complaint': 'dark'},
            ERROR,
            'dark; /image: since the last report 1 frames failed (memory), 2 bad images (empty)',
        ),
        ({'failure': 'the GPU fell off the bus', 'enabled': False}, ERROR, 'the GPU fell off the bus'),
        ({'state': 'inactive', 'wanted': False}, OK, 'inactive'),
        (
            {'state': 'unconfigured', 'failure': 'model.onnx: no such file'},
            ERROR,
            'unconfigured: model.onnx: no such file',
        ),
    ],
)
def test_level_and_message_of_a_status(changes, level, message):
    usual = {'topic': '/image', 'complaint': '', 'troubles': {}, 'failure': '', 'enabled': True, 'wanted': True}
    assert assess(**{**usual, **changes}) == (level, message)


@pytest.mark.parametrize(
    ('remapped', 'hint'),
    [
        (('image:=/zed/left/image_rect',), True),
        (('image:=/zed/left/image_rect', 'camera_info:=/zed/camera_info'), False),
    ],
    ids=['only the image', 'both'],
)
def test_camera_info_that_nobody_publishes_is_to_be_remapped(remapped, hint):
    context = Context()
    context.init()
    arguments = [part for rule in remapped for part in ('-r', rule)]
    node = Node('segmentation', context=context, cli_args=['--ros-args', *arguments])
    try:
        images, infos = find_sources(node, '', 'raw')
        told = explain_silence(node, infos, CAMERA_INFO, QoSProfile(depth=1))
        remedy = ' (remap camera_info to your camera: --ros-args -r camera_info:=/camera/camera_info)'
        assert told == 'nobody publishes it' + remedy * hint
        assert explain_silence(node, images, IMAGE, QoSProfile(depth=1)) == 'nobody publishes it'
    finally:
        node.destroy_node()
        context.try_shutdown()
