# SPDX-License-Identifier: Apache-2.0
"""Test the node with each executor of rclpy that it can run in."""

from __future__ import annotations

import signal

import pytest
from rclpy.subscription import Subscription
from ros_helpers import Client, NodeProcess
from scenes import message_of, scene

EXECUTORS = ('events', 'single_threaded')

#: Release of rclpy without the events executor.
OLD_RCLPY = 'import sys; sys.modules["rclpy.experimental"] = None'

#: Camera that fails at the second image, through an error in the node's code.
BROKEN = """
from stdc_ros.node.camera import Camera
take = Camera._take
def fail(self, data, delivery):
    if self.statistics.received == 1:
        raise RuntimeError('broken camera')
    take(self, data, delivery)
Camera._take = fail
"""


def running(executor: str, prelude: str = '') -> NodeProcess:
    return NodeProcess('-p', f'executor:={executor}', namespace='/left', prelude=prelude)


@pytest.mark.parametrize(
    ('executor', 'prelude'), [*((name, '') for name in EXECUTORS), ('events', OLD_RCLPY)], ids=[*EXECUTORS, 'old rclpy']
)
def test_node_follows_its_listeners(executor, prelude):
    with running(executor, prelude) as process, Client('/left') as client:
        for outputs in (['mask'], ['mask', 'overlay'], ['confidence']):
            client.listen(*outputs)
            client.segment(message_of(scene()), outputs[-1])
        assert client.set_parameter('overlay_opacity', 0.2).successful
        # Only callbacks that receive the delivery information can count.
        missed = '0' if hasattr(Subscription, 'CallbackType') else 'unknown'
        assert client.diagnostics()['frames missed'] == missed
        assert process.end(signal.SIGINT) == 0, process.output
        assert 'Traceback' not in process.output


@pytest.mark.parametrize('executor', EXECUTORS)
def test_error_in_a_callback_ends_the_node_with_its_traceback(executor):
    with running(executor, BROKEN) as process, Client('/left') as client:
        client.listen('mask')
        client.segment(message_of(scene()))
        client.spin_until(
            lambda: process.process.poll() is not None or client.send(message_of(scene())), 'the end of the node'
        )
        assert process.wait() == 1
        assert 'Traceback' in process.output and process.output.endswith('RuntimeError: broken camera\n')


def test_unknown_executor_is_an_error():
    with running('multi_threaded') as process:
        assert process.wait() == 1
        assert "executor is 'multi_threaded', expected one of events, single_threaded" in process.output
