# SPDX-License-Identifier: Apache-2.0
"""Test the managed node through its real lifecycle services, which ``ros2 lifecycle`` and Nav2 call."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.task import Future
from ros_helpers import Client, NodeProcess, lost_backend
from scenes import message_of, pixels, scene
from test_node_signals import check_clean_end

from stdc_core.inference import DEFAULT_MODEL, Segmenter

UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED = (
    State.PRIMARY_STATE_UNCONFIGURED,
    State.PRIMARY_STATE_INACTIVE,
    State.PRIMARY_STATE_ACTIVE,
    State.PRIMARY_STATE_FINALIZED,
)


class Manager(Client):
    """Client that also requests lifecycle transitions."""

    def __init__(self, namespace: str = '/left'):
        super().__init__(namespace)
        node = f'{namespace}/segmentation'
        self._change = self.node.create_client(ChangeState, f'{node}/change_state')
        self._get = self.node.create_client(GetState, f'{node}/get_state')
        self._discovered = False

    def request(self, transition: int) -> Future:
        """Request a transition."""
        if not self._discovered:  # a transition that is requested twice fails
            self._discovered = self.state in (UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED)
        self.spin_until(self._change.service_is_ready, 'the service change_state of the node')
        future = self._change.call_async(ChangeState.Request(transition=Transition(id=transition)))
        self.spin(0.1)
        return future

    def change(self, transition: int) -> bool:
        """Request a transition and return whether it succeeded."""
        future = self.request(transition)
        self.spin_until(future.done, 'an answer of change_state')
        return future.result().success

    @property
    def state(self) -> int:
        """Return the lifecycle state of the node."""
        return self.ask(self._get, GetState.Request(), 'get_state').current_state.id

    def has_mask_topic(self) -> bool:
        return self.node.count_publishers('/left/segmentation/mask') == 1


def managed(*arguments: str, prelude: str = '') -> NodeProcess:
    return NodeProcess(*arguments, namespace='/left', prelude=prelude, options=['--lifecycle'])


def memory(process: NodeProcess) -> float:
    """Return the resident memory of the node in MB."""
    status = Path(f'/proc/{process.process.pid}/status').read_text()
    return int(re.search(r'VmRSS:\s+(\d+)', status)[1]) / 1024


def test_lifecycle_transitions():
    image = scene(480, 640)
    expected = Segmenter.load()(image).mask
    with managed() as process, Manager() as manager:
        assert manager.state == UNCONFIGURED
        assert manager.diagnostics()['message'] == 'unconfigured'
        for _ in range(2):  # the second time must work like the first
            assert manager.change(Transition.TRANSITION_CONFIGURE)
            assert manager.state == INACTIVE
            assert manager.diagnostics()['message'] == 'inactive'
            assert not manager.has_mask_topic()
            assert manager.change(Transition.TRANSITION_ACTIVATE)
            manager.listen('mask')
            np.testing.assert_array_equal(pixels(manager.segment(message_of(image))), expected)
            loaded = memory(process)
            assert manager.change(Transition.TRANSITION_DEACTIVATE)
            manager.spin_until(lambda: not manager.has_mask_topic(), 'the node closes its topics')
            assert manager.camera_subscriptions == 0
            assert manager.state == INACTIVE
            assert manager.change(Transition.TRANSITION_CLEANUP)
            assert memory(process) < loaded - 20  # the weights have 34 MB
            assert manager.state == UNCONFIGURED
        assert process.end(signal.SIGINT) == 0
        assert 'Traceback' not in process.output


#: Transitions of Nav2's lifecycle manager (startup, pause, resume, reset, startup, shutdown) and the state after each.
NAV2 = [
    *((Transition.TRANSITION_CONFIGURE, INACTIVE), (Transition.TRANSITION_ACTIVATE, ACTIVE)),
    *((Transition.TRANSITION_DEACTIVATE, INACTIVE), (Transition.TRANSITION_ACTIVATE, ACTIVE)),
    *((Transition.TRANSITION_DEACTIVATE, INACTIVE), (Transition.TRANSITION_CLEANUP, UNCONFIGURED)),
    *((Transition.TRANSITION_CONFIGURE, INACTIVE), (Transition.TRANSITION_ACTIVATE, ACTIVE)),
    *((Transition.TRANSITION_DEACTIVATE, INACTIVE), (Transition.TRANSITION_CLEANUP, UNCONFIGURED)),
    (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, FINALIZED),
]


def test_nav2_lifecycle_manager_drives_the_node():
    with managed() as process, Manager() as manager:
        for transition, state in NAV2:
            assert manager.change(transition)
            assert manager.state == state
        assert process.process.poll() is None
        assert process.end(signal.SIGINT) == 0


def test_unreadable_model_leads_through_the_error_state(tmp_path):
    model = tmp_path / 'model.onnx'
    with managed('-p', f'model:={model}') as process, Manager() as manager:
        assert not manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.state == UNCONFIGURED
        report = manager.diagnostics()
        assert report['level'] == '2'
        assert re.fullmatch(rf'unconfigured: .*{re.escape(str(model))}.*', report['message'])
        assert '[ERROR]' in process.output and str(model) in process.output
        model.write_bytes(DEFAULT_MODEL.read_bytes())
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.diagnostics()['message'] == 'inactive'
        assert manager.state == INACTIVE


def test_impossible_transition_is_refused():
    with managed() as process, Manager() as manager:
        assert not manager.change(Transition.TRANSITION_ACTIVATE)
        assert manager.state == UNCONFIGURED
        # Newer releases of rclpy, such as Kilted's, refuse it themselves.
        assert re.search(r"transition is refused|from current state \(1, 'unconfigured'\)", process.output)
        assert manager.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert manager.state == FINALIZED
        assert process.end(signal.SIGTERM) == 0


def test_lost_backend_deactivates_the_node():
    with managed(prelude=lost_backend(2)) as process, Manager() as manager:
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.change(Transition.TRANSITION_ACTIVATE)
        manager.listen('mask')
        manager.segment(message_of(scene()))
        manager.send(message_of(scene()))
        manager.spin_until(lambda: manager.state == UNCONFIGURED, 'the node leaves the active state')
        report = manager.diagnostics()
        assert report['message'] == 'unconfigured: backend tensorrt: the GPU fell off the bus'
        assert report['level'] == '2'
        assert process.process.poll() is None


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_an_active_node(number):
    with managed() as process, Manager() as manager:
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.change(Transition.TRANSITION_ACTIVATE)
        assert process.end(number) == 0
        assert 'Traceback' not in process.output


#: A model that takes minutes to load, and an engine that takes minutes to build.
SLOW = """
import time
from stdc_core.inference import Segmenter
def take_minutes(*arguments, **options):
    print('takes minutes', flush=True)
    time.sleep(1000)
Segmenter.{method} = take_minutes
Segmenter.backend = 'tensorrt'
"""


@pytest.mark.parametrize('method', ['load', 'prepare'], ids=['load', 'build'])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_configure_ends_the_node_at_once(number, method):
    with managed('-p', 'image_size:=64x48', prelude=SLOW.format(method=method)) as process, Manager() as manager:
        manager.request(Transition.TRANSITION_CONFIGURE)
        process.wait_for_output('takes minutes')
        process.process.send_signal(signal.SIGINT)
        check_clean_end(process, process.end(number))
        assert 'a signal ends the node before it is configured' in process.output


def test_build_only_is_refused():
    with managed('-p', 'build_only:=true') as process:
        assert process.wait() == 1
        assert 'build_only is true, expected false with --lifecycle' in process.output
