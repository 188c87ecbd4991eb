# SPDX-License-Identifier: Apache-2.0
"""Test settings of the running node, warnings about useless cameras, the grid, engine builds and lost backends."""

from __future__ import annotations

import re
import signal
from importlib.util import find_spec

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import OccupancyGrid
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_helpers import Client, NodeProcess, lost_backend
from scenes import message_of, pinhole_info, pixels, scene
from sensor_msgs.msg import CameraInfo

from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL, Segmenter
from stdc_core.inference.int8_file import int8_path
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_ros.ground.camera_model import CameraModel
from stdc_ros.ground.drivable_grid import DrivableGrid, GridSettings
from stdc_ros.ground.pose import pose_of_body


@pytest.fixture(scope='module')
def process():
    with NodeProcess(namespace='/left') as process:
        process.wait_for_output('/left/image -> /left/segmentation/mask')
        yield process


@pytest.fixture
def client(process):
    with Client('/left') as client:
        yield client
        client.listen()


def now(client: Client):
    return client.node.get_clock().now()


def test_confidence_threshold(client):
    image = scene()
    found = Segmenter.load()(image, confidence=True)
    threshold = float(np.median(found.confidence)) / 255
    client.listen('mask')
    assert client.set_parameter('confidence_threshold', threshold).successful
    mask = pixels(client.segment(message_of(image)))
    unsure = found.confidence / 255 < threshold
    assert 0.2 < unsure.mean() < 0.8
    np.testing.assert_array_equal(mask, np.where(unsure, 255, found.mask))
    assert client.set_parameter('confidence_threshold', 0.0).successful
    np.testing.assert_array_equal(pixels(client.segment(message_of(image))), found.mask)


def test_old_frames_are_dropped_and_counted(client, process):
    client.listen('mask')
    client.segment(message_of(scene()))
    assert client.set_parameter('max_frame_age', 10.0).successful
    before = client.diagnostics()
    client.send(message_of(scene()))  # stamped in 2023
    client.wait_for_diagnostics('frames too old', str(int(before['frames too old']) + 1))
    assert 'images on /left/image are left out' in process.output
    timer = client.node.create_timer(0.1, lambda: client.send(message_of(scene())))
    status = client.diagnostics()
    client.node.destroy_timer(timer)
    assert re.fullmatch(r'/left/image: since the last report \d+ frames too old \(.* s old, .*\)', status['message'])
    assert status['level'] == str(DiagnosticStatus.WARN[0])
    assert client.diagnostics()['message'] == 'ok'
    young = message_of(scene())
    young.header.stamp = now(client).to_msg()
    client.segment(young)
    assert client.set_parameter('max_frame_age', 0.0).successful
    client.segment(message_of(scene()))


def test_disabled_node_unsubscribes_from_the_camera(client):
    client.listen('mask')
    client.segment(message_of(scene()))
    answer = client.set_enabled(False)
    assert (answer.success, answer.message) == (True, 'segmentation is switched off')
    client.spin_until(lambda: client.camera_subscriptions == 0, 'the disabled node unsubscribes from the camera')
    client.wait_for_diagnostics('enabled', 'false')
    client.wait_for_diagnostics('message', 'switched off')
    answer = client.set_enabled(True)
    assert (answer.success, answer.message) == (True, 'segmentation is switched on')
    client.spin_until(lambda: client.camera_subscriptions == 1, 'the enabled node subscribes to the camera')
    client.segment(message_of(scene()))
    client.listen()
    client.wait_for_diagnostics('message', 'idle: nobody listens to an output')
    assert client.diagnostics()['hardware_id'] == '/left/image'


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('confidence_threshold', -0.1, 'out of range'),
        ('max_frame_age', 'soon', 'expected'),
        ('enabled', 1, 'expected'),
        ('output_size', 'network', 'read-only'),
    ],
)
def test_invalid_value_is_refused_with_the_reason(client, name, value, words):
    result = client.set_parameter(name, value)
    assert not result.successful
    assert words in result.reason


def test_frozen_or_dark_camera_gives_a_warning(client, process):
    client.listen('mask')
    assert client.set_parameter('stale_after', 0.5).successful
    for image, words in ((scene(), 'shows the same image for'), (np.zeros((96, 128, 3), np.uint8), 'shows dark for')):
        client.spin_until(
            lambda image=image, words=words: words in process.output or client.send(message_of(image)), words
        )
        assert client.diagnostics()['level'] == str(b'\x01'[0])
    assert client.set_parameter('stale_after', 3.0).successful


def test_time_may_jump_back(client):
    client.listen('mask')
    messages = [message_of(scene(seed=seed)) for seed in range(6)]
    for message in (*messages[3:], *messages[:3]):
        client.segment(message)
    stamps = [mask.header.stamp.nanosec for mask in client.received['mask']]
    assert stamps == [message.header.stamp.nanosec for message in (*messages[3:], *messages[:3])]


def test_qos_of_every_topic_can_be_overridden():
    overrides = {
        '/right/image.subscription.reliability': 'reliable',
        '/right/segmentation/mask.publisher.reliability': 'best_effort',
        '/right/segmentation/mask.publisher.depth': '2',
        '/right/segmentation/performance.publisher.reliability': 'best_effort',
    }
    arguments = [part for key, value in overrides.items() for part in ('-p', f'qos_overrides.{key}:={value}')]
    with NodeProcess(*arguments, namespace='/right') as process, Client('/right') as client:
        process.wait_for_output('/right/segmentation/mask')
        client.listen('confidence')
        client.segment(message_of(scene()), 'confidence')
        (subscription,) = client.node.get_subscriptions_info_by_topic('/right/image')
        for output in ('mask', 'performance'):
            (publisher,) = client.node.get_publishers_info_by_topic(f'/right/segmentation/{output}')
            assert publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert 'does not exist' not in process.output


GRID = {'drivable_grid': 'true', 'grid_camera_pose': '[0.5, 0.0, 1.4, 0.0, 0.1, 0.0]', 'grid_resolution': '0.5'}


def parameters(**values: str) -> list[str]:
    return [part for name, value in values.items() for part in ('-p', f'{name}:={value}')]


@pytest.mark.parametrize('rectified', [False, True])
def test_drivable_grid_of_the_mask(rectified):
    arguments = parameters(**GRID, grid_rectified=str(rectified).lower())
    with NodeProcess(*arguments, namespace='/right') as process, Client('/right') as client:
        process.wait_for_output('/right/segmentation/mask')
        client.listen('mask', 'confidence', 'drivable_grid')
        camera = client.node.create_publisher(CameraInfo, '/right/camera_info', 1)
        client.spin_until(lambda: camera.get_subscription_count() == 1, 'the node subscribes to the camera_info')
        image = SyntheticDrive(frames=1)[0].image
        message = message_of(image)
        info = pinhole_info(image)
        info.r = np.eye(3).reshape(-1)
        info.p = np.array([600.0, 0, 240, 0, 0, 600, 180, 0, 0, 0, 1, 0])  # a focal length that differs from K
        client.send_with_info(message, camera, info, 'drivable_grid')
        grid = client.received['drivable_grid'][0]
        late: list[OccupancyGrid] = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        client.node.create_subscription(OccupancyGrid, '/right/segmentation/drivable_grid', late.append, latched)
        client.spin_until(lambda: bool(late), 'the last drivable_grid, for a listener that came later')
        mask, confidence = (pixels(client.wait_for(name, message.header.stamp)) for name in ('mask', 'confidence'))
    assert (grid.header.stamp, grid.header.frame_id) == (message.header.stamp, 'base_link')
    assert (grid.info.width, grid.info.height, grid.info.resolution) == (80, 40, 0.5)
    assert (grid.info.origin.position.x, grid.info.origin.position.y) == (0.0, -10.0)
    offline = DrivableGrid(GridSettings(resolution=0.5), Segmenter.load().info.classes)
    pose = pose_of_body([0.5, 0.0, 1.4, 0.0, 0.1, 0.0])
    expected = offline(mask, confidence, CameraModel.from_info(info, rectified), pose)
    assert {-1, 0, 100} == set(np.unique(expected))
    np.testing.assert_array_equal(np.reshape(grid.data, (40, 80)), expected)


def test_no_grid_topic_without_the_parameter(client):
    assert not client.node.get_publishers_info_by_topic('/left/segmentation/drivable_grid')


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'grid_classes': '[street]'}, ["'street'", 'expected some of', 'road']),
        ({'grid_camera_pose': '[1.0, 2.0]'}, ['grid_camera_pose', '2 numbers', 'expected 6']),
        ({'grid_x_min': '50.0'}, ['x 50.0 to 40.0', 'end after it begins']),
    ],
)
def test_invalid_grid_is_an_error_at_the_start(changes, words):
    with NodeProcess(*parameters(**{**GRID, **changes}), namespace='/right') as process:
        assert process.wait() == 1
        (fatal,) = [line for line in process.output.splitlines() if '[FATAL]' in line]
        assert all(word in fatal for word in words), fatal


@pytest.mark.skipif(find_spec('tf2_ros') is not None, reason='tf2_ros is installed')
def test_grid_without_tf_needs_the_pose():
    with NodeProcess(*parameters(drivable_grid='true'), namespace='/right') as process:
        assert process.wait() == 1
        assert 'drivable_grid needs grid_camera_pose here: tf2_ros is not installed' in process.output


#: Makes the library log in the process of the node.
LOGGING = """
import logging
from stdc_ros.node.camera_segmentation import CameraSegmentation
start, close = CameraSegmentation.start, CameraSegmentation.close
def log(self):
    start(self)
    logging.getLogger('stdc_core.inference').info('the engine is half built')
def ask(self):
    close(self)
    print(logging.getLogger('stdc_core').handlers, 'are left', flush=True)
CameraSegmentation.start, CameraSegmentation.close = log, ask
"""


def test_library_log_is_forwarded():
    with NodeProcess(namespace='/right', prelude=LOGGING) as process:
        process.wait_for_output('[INFO]')
        process.wait_for_output('the engine is half built')
        process.process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert '[] are left' in process.output


#: CPU with VNNI, on which the backend is chosen automatically.
VNNI_CPU = """
import os
from stdc_core.inference import backend_choice
os.environ.pop('STDC_BACKEND', None)
backend_choice.cpu_flags = lambda: frozenset({'avx512_vnni'})
backend_choice.missing_driver = lambda: 'no GPU'
"""


@pytest.mark.skipif(find_spec('openvino') is None, reason='openvino is not installed')
def test_cpu_with_vnni_segments_in_int8_by_default():
    with NodeProcess(namespace='/right', prelude=VNNI_CPU) as process, Client('/right') as client:
        process.wait_for_output('/right/image -> /right/segmentation/mask with stdc1-seg150 on openvino')
        told = process.output
        assert 'precision auto: int8 is the fastest on this CPU; fp32 would compute stdc1_streets.onnx exactly' in told
        assert re.search(r'using openvino: no GPU; the CPU has VNNI; .*int8 changed 0.\d+ % of the labels', told)
        client.listen('mask')
        image = SyntheticDrive(frames=1)[0].image
        mask = pixels(client.segment(message_of(image)))
        expected = Segmenter.load(int8_path(DEFAULT_MODEL))(image).mask
        assert (mask == expected).mean() > 0.98


@pytest.mark.skipif(find_spec('tensorrt_rtx') is None, reason='TensorRT for RTX is not installed')
@pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')
def test_build_only_exits_after_the_build(tmp_path, monkeypatch):
    monkeypatch.setenv('STDC_CACHE_DIR', str(tmp_path))
    settings = parameters(build_only='true', image_size='64x48', backend='tensorrt_rtx')
    with NodeProcess(*settings, namespace='/right') as process:
        assert process.wait() == 0
        assert 'fp16 engine for 64x48 images' in process.output
    assert list(tmp_path.rglob('*.engine'))


def test_build_only_fails_where_no_engine_is_built():
    with NodeProcess(*parameters(build_only='true', image_size='64x48'), namespace='/right') as process:
        assert process.wait() == 1
        assert 'build_only: no engine built, since onnxruntime runs without one' in process.output


def test_build_only_without_a_size_is_an_error():
    with NodeProcess(*parameters(build_only='true'), namespace='/right') as process:
        assert process.wait() == 1
        assert 'build_only needs image_size, WIDTHxHEIGHT of the images, found none' in process.output


@pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')
def test_tensorrt_without_a_gpu_is_an_error():
    with NodeProcess(*parameters(backend='tensorrt'), namespace='/right') as process:
        assert process.wait() == 1
        assert f'backend tensorrt: {missing_driver()}' in process.output


#: Backend that draws overlays, as negatives of the images to tell them apart.
DRAWING = """
from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend as Backend
run = Backend.__call__
def segment(self, images, confidence):
    self.images = images
    return run(self, images, confidence)
Backend.__call__, Backend.overlay = segment, lambda self, index, blending: 255 - self.images[index]
"""


def test_overlay_of_the_backend_is_published():
    image = scene()
    with NodeProcess(namespace='/right', prelude=DRAWING) as process, Client('/right') as client:
        process.wait_for_output('/right/segmentation/mask')
        client.listen('overlay')
        np.testing.assert_array_equal(pixels(client.segment(message_of(image), 'overlay')), 255 - image)


def test_lost_backend_ends_the_node():
    with NodeProcess(namespace='/right', prelude=lost_backend(3)) as process, Client('/right') as client:
        client.listen('mask')
        for _ in range(2):
            client.segment(message_of(scene()))
        client.send(message_of(scene()))
        assert process.wait() == 1
        (fatal,) = [line for line in process.output.splitlines() if '[FATAL]' in line]
        assert fatal.endswith('backend tensorrt: the GPU fell off the bus')
