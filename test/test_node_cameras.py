# SPDX-License-Identifier: Apache-2.0
"""Test the node with several cameras, compressed images, CameraInfo and outputs of another size."""

from __future__ import annotations

from contextlib import ExitStack

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import Client, NodeProcess
from scenes import compressed_of, message_of, next_header, pixels, scene
from sensor_msgs.msg import CameraInfo, CompressedImage

from stdc_core.inference import Segmenter
from stdc_core.pictures.overlay import overlay
from stdc_ros.messages.images import image_to_bgr

CAMERAS = ('front', 'left', 'right', 'rear')


@pytest.fixture(scope='module')
def segmenter() -> Segmenter:
    return Segmenter.load()


def camera_info(message, focal_length: float = 100.0) -> CameraInfo:
    """Return a CameraInfo for an image message, with another stamp, as after a dropped frame."""
    info = CameraInfo(header=next_header(), height=message.height, width=message.width, distortion_model='plumb_bob')
    info.k = [focal_length, 0.0, 64.0, 0.0, focal_length, 48.0, 0.0, 0.0, 1.0]
    info.p = [focal_length, 0.0, 64.0, 0.0, 0.0, focal_length, 48.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    return info


#: Makes ONNX Runtime segment several images in one call, as GPU backends do.
BATCHES = 'from stdc_core.inference.backend import Backend; Backend.max_batch = 4'


@pytest.mark.parametrize('prelude', ['', BATCHES], ids=['one by one', 'in batches'])
def test_four_cameras_share_one_network(segmenter, prelude):
    with ExitStack() as stack:
        names = f'cameras:=[{", ".join(CAMERAS)}]'
        process = stack.enter_context(NodeProcess('-p', names, namespace='/car', prelude=prelude))
        clients = {name: stack.enter_context(Client('/car', camera=name)) for name in CAMERAS}
        process.wait_for_output('/car/front/image -> /car/front/segmentation/mask')
        sent = {}
        for seed, (name, client) in enumerate(clients.items()):
            client.listen('mask')
            # Two sizes, so that waiting frames are not always one batch.
            sent[name] = message_of(scene(64 + 32 * (seed % 2), seed=seed), frame_id=name)
        # All at once, and each camera more often than the node can process.
        for _ in range(5):
            for name, client in clients.items():
                client.send(sent[name])
        for name, client in clients.items():
            mask = client.segment(sent[name])
            assert mask.header.frame_id == name
            np.testing.assert_array_equal(pixels(mask), segmenter(image_to_bgr(sent[name])).mask, name)
            report = client.diagnostics()
            assert int(report['frames received']) >= int(report['frames segmented']) >= 1
        # Each camera changes its size while it publishes, two of them to the former size of another one.
        for seed, (name, client) in enumerate(clients.items()):
            sent[name] = message_of(scene(96 - 32 * (seed % 2), 128 if seed < 2 else 101, seed), frame_id=name)
            client.send(sent[name])
        for name, client in clients.items():
            mask = client.wait_for('mask', sent[name].header.stamp)
            np.testing.assert_array_equal(pixels(mask), segmenter(image_to_bgr(sent[name])).mask, name)
        clients['front'].listen()  # waits until the node has unsubscribed from this camera
        assert [client.camera_subscriptions for client in clients.values()] == [0, 1, 1, 1]


def test_fast_camera_does_not_starve_the_others():
    with (
        NodeProcess('-p', 'cameras:=[front, rear]', '-p', 'input_scale:=1.0', namespace='/car') as process,
        Client('/car', camera='front') as front,
        Client('/car', camera='rear') as rear,
    ):
        process.wait_for_output('/car/rear/segmentation/mask')
        front.listen('mask')
        rear.listen('mask')
        flood, calm = message_of(scene(240, 320)), message_of(scene(240, 320, seed=1))
        rear.segment(calm)
        for _ in range(10):
            before = len(rear.received['mask'])
            rear.send(calm)
            for _ in range(1000):
                front.send(flood)
                rear.spin(0.002)
                if len(rear.received['mask']) > before:
                    break
            else:
                pytest.fail('no mask of the slow camera within 1000 images of the fast one')
        assert int(front.diagnostics()['frames dropped']) > 0
        assert rear.diagnostics()['frames dropped'] == '0'


@pytest.mark.parametrize('form', ['png', 'jpeg'])
def test_compressed_images_are_segmented(form, segmenter):
    with (
        NodeProcess('-p', 'image_transport:=compressed', '-r', 'image:=/cam/image_raw', namespace='/left') as process,
        Client('/left', image='/cam/image_raw/compressed', of=CompressedImage) as client,
    ):
        process.wait_for_output('/cam/image_raw/compressed -> /left/segmentation/mask')
        client.listen('mask', 'overlay')
        message = compressed_of(scene(), form)
        image = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        mask = client.segment(message)
        assert mask.header == message.header
        np.testing.assert_array_equal(pixels(mask), segmenter(image).mask)
        expected = overlay(image, segmenter(image).mask, segmenter.info.classes)
        np.testing.assert_array_equal(pixels(client.wait_for('overlay', message.header.stamp)), expected)
        truncated = compressed_of(scene(), form)
        truncated.data = truncated.data[:20]
        client.send(truncated)
        client.wait_for_diagnostics('bad images', '1')
        client.segment(compressed_of(scene(seed=3), form))


def test_pictures_are_published_as_jpeg():
    with NodeProcess('-p', 'jpeg_quality:=90', namespace='/left') as process, Client('/left') as client:
        process.wait_for_output('/left/segmentation/mask')
        client.listen('overlay', 'overlay/compressed')
        message = message_of(scene())
        raw = pixels(client.segment(message, 'overlay'))
        compressed = client.wait_for('overlay/compressed', message.header.stamp)
        assert compressed.format == 'bgr8; jpeg compressed bgr8'
        assert bytes(compressed.data) == cv2.imencode('.jpg', raw, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def test_camera_info_is_scaled_with_the_masks(segmenter):
    with (
        NodeProcess('-p', 'output_size:=64x24', '-r', 'image:=/cam/image_raw', namespace='/left') as process,
        Client('/left', image='/cam/image_raw') as client,
    ):
        process.wait_for_output('/left/segmentation/mask')
        client.listen('mask', 'camera_info', 'mask/compressed')
        camera = client.node.create_publisher(CameraInfo, '/cam/camera_info', 1)
        client.spin_until(lambda: camera.get_subscription_count() == 1, 'the node subscribes to the camera_info')
        message = message_of(scene(96, 128))
        client.send_with_info(message, camera, camera_info(message), 'camera_info')
        info, mask = client.received['camera_info'][0], client.wait_for('mask', message.header.stamp)
        assert info.header == message.header
        assert (info.width, info.height) == (mask.width, mask.height) == (64, 24)
        np.testing.assert_allclose(info.k, [50, 0, 32, 0, 25, 12, 0, 0, 1])
        assert list(info.d) == [0.1, 0.0, 0.0, 0.0, 0.0]
        compressed = client.wait_for('mask/compressed', message.header.stamp)
        decoded = cv2.imdecode(np.frombuffer(compressed.data, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(decoded, pixels(mask))


def test_missing_camera_info_is_reported():
    with NodeProcess('-p', 'stale_after:=0.3', namespace='/left') as process, Client('/left') as client:
        client.listen('camera_info')
        client.send(message_of(scene()))
        client.spin_until(
            lambda: 'no CameraInfo on /left/camera_info' in process.output or client.send(message_of(scene())),
            'a warning that there is no camera_info',
        )


def test_camera_info_complaint_ends_with_its_subscription():
    with NodeProcess('-p', 'stale_after:=0.3', namespace='/left') as process, Client('/left') as client:
        infos = client.node.create_publisher(CameraInfo, '/left/camera_info', 1)
        client.listen('camera_info')
        client.spin_until(lambda: infos.get_subscription_count() == 1, 'the node subscribes to the camera_info')
        message = message_of(scene())
        info = camera_info(message_of(scene(48, 64)))
        another = 'CameraInfo of images of 64 x 48'
        client.spin_until(
            lambda: another in process.output or infos.publish(info) or client.send(message),
            'a warning about the other size',
        )
        client.listen('camera_info')
        silent = 'no CameraInfo on /left/camera_info: 1 publisher: /client is there but silent'
        client.spin_until(lambda: silent in process.output or client.send(message), 'a warning that none arrives')


def test_latched_camera_info_is_received_with_overridden_qos():
    name = 'qos_overrides./left/camera_info.subscription'
    arguments = ['-p', f'{name}.durability:=transient_local', '-p', f'{name}.reliability:=reliable']
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    with NodeProcess(*arguments, namespace='/left'), Client('/left') as client:
        message = message_of(scene())
        client.node.create_publisher(CameraInfo, '/left/camera_info', latched).publish(camera_info(message))
        client.listen('camera_info')
        client.spin_until(lambda: bool(client.received['camera_info']) or client.send(message), 'a camera_info')


def test_swapped_camera_topics(segmenter):
    swapped = ['-r', 'a/image:=/car/b/image', '-r', 'b/image:=/car/a/image']
    with (
        NodeProcess('-p', 'cameras:=[a, b]', *swapped, namespace='/car') as process,
        Client('/car', camera='a', image='/car/b/image') as a,
        Client('/car', camera='b', image='/car/a/image') as b,
    ):
        process.wait_for_output('/car/b/image -> /car/a/segmentation/mask')
        for seed, client in enumerate((a, b)):
            client.listen('mask')
            message = message_of(scene(seed=seed))
            np.testing.assert_array_equal(pixels(client.segment(message)), segmenter(image_to_bgr(message)).mask)


#: Prints each published output and each call of the network, which is made to take 1 s.
WATCHED = f"""{BATCHES}
import time
from stdc_core.inference import Segmenter
from stdc_ros.node.camera import Camera
publish, segment = Camera.publish, Segmenter.__call__
def watched(self, output, message):
    print('published', self.name, output, flush=True)
    publish(self, output, message)
def slow(self, images, confidence=False):
    print('segmenting', len(images), *['with confidence'] * confidence, flush=True)
    time.sleep(1.0)
    return segment(self, images, confidence)
Camera.publish, Segmenter.__call__ = watched, slow
"""


def test_masks_of_a_batch_are_published_before_pictures():
    with (
        NodeProcess('-p', 'cameras:=[a, b]', namespace='/car', prelude=WATCHED) as process,
        Client('/car', camera='a') as a,
        Client('/car', camera='b') as b,
    ):
        process.wait_for_output('/car/b/segmentation/mask')
        for client in (a, b):
            client.listen('mask', 'overlay')
        for seed in range(3):  # while the first is processed, one frame of each camera waits
            for client in (a, b):
                client.send(message_of(scene(seed=seed)))
        process.wait_for_output('segmenting 2')

        def together() -> list[str]:
            return process.output.partition('segmenting 2\n')[2].partition('segmenting')[0].splitlines()

        b.spin_until(lambda: len(together()) == 4, 'two masks and two overlays')
        assert [line.split()[2] for line in together()] == ['mask', 'mask', 'overlay', 'overlay']


def test_disabled_node_publishes_nothing():
    with NodeProcess(namespace='/left', prelude=WATCHED) as process, Client('/left') as client:
        client.listen('mask', 'overlay')
        client.send_until(lambda: 'segmenting 1\n' in process.output, message_of(scene()), 'a frame in progress')
        assert client.set_enabled(False).success
        client.wait_for_diagnostics('frames unwanted', '1')
        assert 'published' not in process.output
        assert not client.received['mask']


@pytest.mark.parametrize('given', ['image/compressed', 'image'])
def test_camera_info_is_beside_a_remapped_compressed_image(given):
    arguments = ['-p', 'image_transport:=compressed', '-r', f'{given}:=/front/image_raw/compressed']
    with NodeProcess(*arguments) as process, Client(image='/front/image_raw/compressed', of=CompressedImage) as client:
        process.wait_for_output('/front/image_raw/compressed -> ')
        client.listen('camera_info')
        infos = client.node.create_publisher(CameraInfo, '/front/camera_info', 1)
        client.spin_until(lambda: infos.get_subscription_count() == 1, 'the node subscribes to the camera_info')


def test_every_silent_camera_is_reported():
    with (
        NodeProcess('-p', 'cameras:=a,b', '-p', 'stale_after:=0.3') as process,
        Client(camera='a') as a,
        Client(camera='b') as b,
    ):
        a.listen('mask')
        b.listen('mask')
        for camera in 'ab':
            process.wait_for_output(f'no image on /{camera}/image for')


def test_performance_reports_every_stage_of_every_camera():
    with NodeProcess('-p', 'cameras:=[a, b]', namespace='/left') as process, Client('/left', camera='b') as client:
        process.wait_for_output('/left/b/segmentation/mask')
        client.listen('mask')
        client.segment(message_of(scene()))
        reports: list[DiagnosticArray] = []
        client.node.create_subscription(DiagnosticArray, '/left/segmentation/performance', reports.append, 10)
        client.spin_until(lambda: bool(reports), 'a report on ~/performance')
        assert [status.name for status in reports[-1].status] == ['left/segmentation: a', 'left/segmentation: b']
        idle, busy = ({value.key: value.value for value in status.values} for status in reports[-1].status)
        for stage in ('wait', 'convert', 'inference', 'publish', 'image to mask'):
            for percent in (50, 95, 99):
                assert float(busy[f'{stage} p{percent} (ms)']) >= 0
                assert idle[f'{stage} p{percent} (ms)'] == 'none yet'
        assert float(busy['masks per second']) > 0
        assert (idle['frames segmented'], busy['frames segmented']) == ('0', '1')
