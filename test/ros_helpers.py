# SPDX-License-Identifier: Apache-2.0
"""Run a segmentation node as a process, and a ROS 2 client to talk to it, on real rclpy and real Fast DDS.

Import this module before rclpy: it isolates the test run from every other ROS 2 system on the machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import stdc_ros
from stdc_ros.playback.isolation import isolated_environment, profile_variable

CONFIG = Path(__file__).parent.parent / 'config'

#: Longest wait in seconds. Discovery takes 0.1 s or 3 s; everything takes longer on a busy machine.
TIMEOUT = 60.0

#: Seconds without an answer after which an image is published again. A mask takes much less.
RESEND = 6.0


def ros_environment() -> dict[str, str]:
    """Return environment variables for this process and its children: an isolated ROS domain, and checked messages."""
    return {
        **isolated_environment(),
        'ROS_PYTHON_CHECK_FIELDS': '1',
        profile_variable(): str(CONFIG / 'fastdds.xml'),
    }


os.environ.update(ros_environment())

import rclpy  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from nav_msgs.msg import OccupancyGrid  # noqa: E402
from rcl_interfaces.msg import SetParametersResult  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.publisher import Publisher  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.subscription import Subscription  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402

#: Message class of the outputs that are not images.
TYPES = {
    'camera_info': CameraInfo,
    'drivable_grid': OccupancyGrid,
    'mask/compressed': CompressedImage,
    'color_mask/compressed': CompressedImage,
    'overlay/compressed': CompressedImage,
}


def lost_backend(image: int) -> str:
    """Return a prelude that makes the backend fail for good.

    Args:
        image: Number of the image that fails, counted from 1 without the test image of each model.
    """
    return f"""
from stdc_core.inference.backend import BackendError
from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend as Backend
run, left = Backend.__call__, list(range({image}))
def fail(self, *arguments):
    if not left:
        self.failure = BackendError('backend tensorrt: the GPU fell off the bus')
        raise self.failure
    left.pop()
    return run(self, *arguments)
Backend.__call__ = fail
"""


class NodeProcess:
    """Process of ``segmentation_node``; a context manager that ends it.

    Args:
        arguments: Arguments after ``--ros-args``, such as ``'-p', 'threads:=1'``.
        namespace: Namespace such as ``'/left'``, which separates nodes that run at the same time.
        prelude: Python code to run in the process before the node.
        options: Arguments before ``--ros-args``, such as ``'--lifecycle'``.
    """

    def __init__(self, *arguments: str, namespace: str = '', prelude: str = '', options: Sequence[str] = ()):
        self.namespace = namespace
        self._log = tempfile.NamedTemporaryFile('r', suffix='.log')  # noqa: SIM115 (closed in __exit__)
        # The process uses the same stdc_ros as this one.
        path = os.pathsep.join([str(Path(stdc_ros.__file__).parent.parent), os.environ.get('PYTHONPATH', '')])
        node = 'import sys; from stdc_ros.node.main import main; sys.exit(main())'
        command = [sys.executable, *(['-c', f'{prelude}\n{node}'] if prelude else ['-m', 'stdc_ros.node.main'])]
        self.process = subprocess.Popen(
            [*command, *options, '--ros-args', '-r', f'__ns:={namespace or "/"}', *arguments],
            stdout=self._log.fileno(),
            stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONPATH': path},
        )

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()

    @property
    def output(self) -> str:
        """Output of the process so far."""
        return Path(self._log.name).read_text()

    def wait_for_output(self, text: str) -> None:
        """Wait until the output contains the text. Fail with the output if the process ends or takes too long."""
        deadline = time.monotonic() + TIMEOUT
        while text not in self.output:
            assert self.process.poll() is None, f'the node ended with status {self.process.returncode}:\n{self.output}'
            assert time.monotonic() < deadline, f'{text!r} is not in the output of the node:\n{self.output}'
            time.sleep(0.02)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)

    def wait(self) -> int:
        """Wait until the process ends by itself and return the exit status."""
        return self.process.wait(TIMEOUT)


class Client:
    """Publishes images, and subscribes to the outputs of the node and to ``/diagnostics``.

    Args:
        namespace: Namespace of the segmentation node.
        reliability: Reliability of the published images.
        image: Topic to publish on; default: ``image`` in the namespace of the node.
        camera: Name of one of several cameras of the node.
        of: Message class of the images.
    """

    def __init__(
        self,
        namespace: str = '',
        reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
        image: str = '',
        camera: str = '',
        of: type = Image,
    ):
        inside = f'{namespace}/{camera}' if camera else namespace
        self._node = f'{namespace}/segmentation'
        self._status = f'{namespace}/segmentation: {camera or "segmentation"}'
        self._segmentation = f'{inside}/segmentation'
        self._context = Context()
        self._context.init()
        self.node = Node('client', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        quality = QoSProfile(depth=5, reliability=reliability)
        self._camera = self.node.create_publisher(of, image or f'{inside}/image', quality)
        self.sent = 0  # images
        self._listening: list[Subscription] = []
        self.received: dict[str, list[Image]] = {}
        self._diagnostics: dict[str, str] = {}
        self._reports = 0
        self._parameters = self.node.create_client(SetParameters, f'{self._node}/set_parameters')
        self._enable = self.node.create_client(SetBool, f'{self._node}/set_enabled')
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._keep_diagnostics, 10)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spin(self, seconds: float) -> None:
        """Receive messages for some seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.02)

    def spin_until(self, condition: Callable[[], bool], what: str) -> None:
        """Receive messages until the condition holds. After TIMEOUT, fail with ``what`` did not happen."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, f'{what}: not within {TIMEOUT} s'
            self._executor.spin_once(timeout_sec=0.02)

    def listen(self, *outputs: str, camera: bool = True) -> None:
        """Subscribe to these outputs and to no other. Return when the node has noticed.

        Args:
            outputs: Names of outputs.
            camera: Whether to wait until the node has subscribed to the camera or, without outputs, unsubscribed.
        """
        for subscription in self._listening:
            self.node.destroy_subscription(subscription)
        self._listening = []
        if camera:
            # Also between two sets of outputs. Otherwise, the subscription for the first would count for the second.
            self.spin_until(lambda: self._camera.get_subscription_count() == 0, 'the node unsubscribes from the camera')
        for name in outputs:
            self.received[name] = []
            topic = f'{self._segmentation}/{name}'
            of = TYPES.get(name, Image)
            self._listening.append(self.node.create_subscription(of, topic, self.received[name].append, 50))
        if camera and outputs:
            self.spin_until(lambda: self._camera.get_subscription_count() == 1, 'the node subscribes to the camera')
        if len(outputs) > 1:
            # The subscription to the camera only shows that the node has noticed one listener.
            self.wait_for_diagnostics('outputs', ', '.join(outputs))

    def send(self, message: Image | CompressedImage) -> None:
        self._camera.publish(message)
        self.sent += 1

    @property
    def camera_subscriptions(self) -> int:
        return self._camera.get_subscription_count()

    def send_until(self, condition: Callable[[], bool], message: Image | CompressedImage, what: str) -> None:
        """Publish an image until the condition holds. Fail after TIMEOUT.

        One image is nearly always enough. But the node's subscription is best effort and receives nothing from a
        publisher that it has not discovered yet, and the publisher cannot tell whether it has.
        """
        next_time = 0.0

        def sent() -> bool:
            nonlocal next_time
            if condition():
                return True
            if time.monotonic() >= next_time:
                self.send(message)
                next_time = time.monotonic() + RESEND
            return False

        self.spin_until(sent, what)

    def segment(self, message: Image | CompressedImage, output: str = 'mask') -> Image:
        """Publish an image and return the output with its stamp."""
        stamp = message.header.stamp
        self.send_until(lambda: bool(self._found(output, stamp)), message, _described(output, stamp))
        return self._found(output, stamp)[0]

    def send_with_info(self, message: Image, camera: Publisher, info: CameraInfo, output: str) -> None:
        """Publish an image and its CameraInfo until an output arrives; best effort may lose either of them."""
        self.spin_until(lambda: bool(self.received[output]) or camera.publish(info) or self.send(message), output)

    def wait_for(self, output: str, stamp: Time) -> Image:
        """Wait for the message of an output with this stamp and return it."""
        self.spin_until(lambda: bool(self._found(output, stamp)), _described(output, stamp))
        return self._found(output, stamp)[0]

    def _found(self, output: str, stamp: Time) -> list[Image]:
        return [message for message in self.received[output] if message.header.stamp == stamp]

    def set_parameter(self, name: str, value: object) -> SetParametersResult:
        """Set a parameter of the node, as ``ros2 param set`` does."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.ask(self._parameters, request, 'set_parameters').results[0]

    def ask(self, client: Any, request: Any, what: str) -> Any:
        """Call a service that may be called twice, and return the answer.

        The node does not answer a client that it has not discovered yet, so the request is sent again after RESEND.
        Clients that were created before this one are known to the node when it answers.
        """
        self.spin_until(client.service_is_ready, f'the service {what} of the node')
        asked: list[Any] = []
        next_time = 0.0

        def answered() -> bool:
            nonlocal next_time
            if time.monotonic() >= next_time:
                asked.append(client.call_async(request))
                next_time = time.monotonic() + RESEND
            return any(future.done() for future in asked)

        self.spin_until(answered, f'an answer of {what}')
        return next(future for future in asked if future.done()).result()

    def activate(self) -> None:
        """Configure and activate a managed node."""
        change = self.node.create_client(ChangeState, f'{self._node}/change_state')
        self.spin_until(change.service_is_ready, 'the service change_state of the node')
        self.ask(self.node.create_client(GetState, f'{self._node}/get_state'), GetState.Request(), 'get_state')
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            future = change.call_async(ChangeState.Request(transition=Transition(id=transition)))
            self.spin_until(future.done, 'an answer of change_state')
            assert future.result().success

    def set_enabled(self, enabled: bool) -> SetBool.Response:
        """Call the node's service ``~/set_enabled``."""
        return self.ask(self._enable, SetBool.Request(data=enabled), 'set_enabled')

    def diagnostics(self) -> dict[str, str]:
        """Return the values of a new report on /diagnostics, and its ``message``, ``level`` and ``hardware_id``."""
        # The report after the next, because the next may be older than the caller's last action.
        wanted = self._reports + 2
        self.spin_until(lambda: self._reports >= wanted, 'a report on /diagnostics')
        return self._diagnostics

    def wait_for_diagnostics(self, key: str, value: str) -> None:
        """Wait until /diagnostics reports this value."""
        self.spin_until(lambda: self._diagnostics.get(key) == value, f'{key!r} is {value} on /diagnostics')

    def _keep_diagnostics(self, report: DiagnosticArray) -> None:
        status = next((status for status in report.status if f'/{status.name}' == self._status), None)
        if status is None:
            return
        self._diagnostics = {value.key: value.value for value in status.values}
        self._diagnostics.update(message=status.message, level=str(status.level[0]), hardware_id=status.hardware_id)
        self._reports += 1


def _described(output: str, stamp: Time) -> str:
    return f'{output} of the image stamped {stamp.sec}.{stamp.nanosec:09d}'
