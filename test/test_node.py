# SPDX-License-Identifier: Apache-2.0
"""Test the node as a process on real rclpy and Fast DDS, with the shipped model."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from ros_helpers import Client, NodeProcess
from scenes import message_of, pixels, scene
from sensor_msgs.msg import CompressedImage, Image

from stdc_core.inference import Segmenter
from stdc_core.pictures.overlay import colorize, overlay
from stdc_ros.messages.images import image_to_bgr
from stdc_ros.node.camera_segmentation import DIAGNOSTICS_PERIOD

MASK_QUALITY = 'qos_overrides./left/segmentation/mask.publisher'
OUTPUTS = ('mask', 'confidence', 'color_mask', 'overlay')


@pytest.fixture(scope='module')
def segmenter() -> Segmenter:
    return Segmenter.load()


@pytest.fixture(scope='module')
def process():
    with NodeProcess() as process:
        process.wait_for_output('/image -> /segmentation/mask')
        yield process


@pytest.fixture(scope='module')
def client(process):
    with Client() as client:
        yield client


def test_camera_is_not_subscribed_to_without_listeners(client):
    client.diagnostics()  # node and client have discovered each other
    assert client.camera_subscriptions == 0
    client.listen('overlay')
    client.segment(message_of(scene()), 'overlay')
    assert client.diagnostics()['frames segmented'] == '1'
    client.listen()  # no output: waits until the node has unsubscribed from the camera
    for _ in range(5):
        client.send(message_of(scene()))
    report = client.diagnostics()
    assert (report['frames received'], report['frames segmented']) == ('1', '1')


def test_outputs_equal_those_of_the_libraries(client, segmenter):
    client.listen(*OUTPUTS)
    image = scene(seed=1)
    message = message_of(image)
    client.segment(message, OUTPUTS[0])
    got = {name: client.wait_for(name, message.header.stamp) for name in OUTPUTS}
    mask, confidence = segmenter(image, confidence=True)
    classes = segmenter.info.classes
    for name, encoding, expected in (
        ('mask', 'mono8', mask),
        ('confidence', 'mono8', confidence),
        ('color_mask', 'bgr8', colorize(mask, classes)),
        ('overlay', 'bgr8', overlay(image, mask, classes, 0.5)),
    ):
        assert got[name].encoding == encoding
        assert got[name].header == message.header
        np.testing.assert_array_equal(pixels(got[name]), expected, name)


def test_outputs_keep_stamps_frame_ids_sizes_and_order(client):
    client.listen('mask')
    sent = []
    for index in range(12):
        size = (64 + 8 * (index % 3), 96 + index)  # odd widths among them
        message = message_of(scene(64, 96, seed=index) if index % 3 == 0 else scene(*size), frame_id=f'camera/{index}')
        client.segment(message)
        sent.append(message)
    got = client.received['mask']
    assert [mask.header for mask in got] == [message.header for message in sent]
    assert [(mask.height, mask.width) for mask in got] == [(message.height, message.width) for message in sent]


def test_bad_images_are_counted_and_reported(client, process):
    client.listen('mask')
    before = int(client.diagnostics()['bad images'])
    changes = ({'step': 5}, {'encoding': 'nonsense'}, {'width': 0}, {'height': 2**32 - 1}, {'data': b'short'})
    for number, change in enumerate(changes, start=1):
        message = message_of(scene())
        for name, value in change.items():
            setattr(message, name, value)
        client.send(message)
        client.wait_for_diagnostics('bad images', str(before + number))
        client.segment(message_of(scene()))
    client.spin_until(lambda: 'image on /image is left out' in process.output, 'a warning that names the topic')
    assert 'Traceback' not in process.output


def test_newest_frame_wins_and_every_frame_is_counted(client):
    client.listen('mask')
    before = client.diagnostics()
    messages = [message_of(scene(480, 640, seed=index)) for index in range(30)]
    for message in messages:
        client.send(message)
        client.spin(0.005)
    client.wait_for('mask', messages[-1].header.stamp)
    after = client.diagnostics()
    received, segmented, dropped = (
        int(after[key]) - int(before[key]) for key in ('frames received', 'frames segmented', 'frames dropped')
    )
    assert segmented == len(client.received['mask']) < len(messages)
    assert dropped > 0
    assert received == segmented + dropped
    stamps = [mask.header.stamp.nanosec for mask in client.received['mask']]
    assert stamps == sorted(set(stamps))


@pytest.mark.skipif(not hasattr(Subscription, 'CallbackType'), reason='rclpy of Humble reports no sequence numbers')
def test_lost_frames_are_counted_as_missed(client, process):
    client.listen('mask')
    client.segment(message_of(scene()))
    before, sent = client.diagnostics(), client.sent
    process.process.send_signal(signal.SIGSTOP)
    try:
        for index in range(8):
            client.send(message_of(scene(seed=index)))
    finally:
        process.process.send_signal(signal.SIGCONT)
    client.segment(message_of(scene(seed=8)))
    after = client.diagnostics()
    received, missed = (int(after[key]) - int(before[key]) for key in ('frames received', 'frames missed'))
    assert missed > 0
    assert received + missed == client.sent - sent
    with Client() as other:  # a second publisher with its own sequence numbers
        other.listen('mask')
        other.segment(message_of(scene()))
        client.segment(message_of(scene()))
        assert client.diagnostics()['frames missed'] == after['frames missed']


def test_overlay_opacity_changes_at_run_time(client, segmenter):
    client.listen('overlay')
    image = scene(seed=2)
    result = client.set_parameter('overlay_opacity', 0.0)
    assert result.successful
    np.testing.assert_array_equal(image_to_bgr(client.segment(message_of(image), 'overlay')), image)
    for value, words in ((1.5, 'out of range'), ('much', 'expected')):
        result = client.set_parameter('overlay_opacity', value)
        assert not result.successful
        assert words in result.reason
    result = client.set_parameter('threads', 1)
    assert not result.successful
    assert 'threads' in result.reason
    assert client.set_parameter('overlay_opacity', 1.0).successful
    colors = colorize(segmenter(image).mask, segmenter.info.classes)
    np.testing.assert_array_equal(image_to_bgr(client.segment(message_of(image), 'overlay')), colors)


def test_diagnostics_report_counts_latencies_and_model(client, segmenter):
    client.listen('mask')
    client.segment(message_of(scene()))
    report = client.diagnostics()
    assert report['model'] == segmenter.info.name
    assert report['backend'] == segmenter.backend
    assert report['reason'] == segmenter.reason
    assert report['activity'] == 'none'
    assert float(report['inference p50 (ms)']) > 0
    assert float(report['image to mask p95 (ms)']) >= float(report['inference p50 (ms)'])
    # The stamps of these tests are years old and give no latency.
    assert report['stamp to mask p50 (ms)'] == 'none yet'
    message = message_of(scene())
    message.header.stamp = client.node.get_clock().now().to_msg()
    client.segment(message)
    assert float(client.diagnostics()['stamp to mask p50 (ms)']) > 0


def test_listeners_come_and_go(client):
    for output in OUTPUTS * 2:
        client.listen(output)
        client.segment(message_of(scene()), output)
        client.send(message_of(scene()))  # still on its way, or being processed, when the listener leaves
        client.listen()
    client.listen('mask')
    client.segment(message_of(scene()))


def test_diagnostics_explain_silence(process, client):
    client.listen('mask')
    client.spin_until(lambda: 'no image on /image for' in process.output, 'a warning that no image arrives')
    assert '/client is there but silent' in process.output


def test_the_process_has_no_torch_and_stays_small(process):
    maps = Path(f'/proc/{process.process.pid}/maps')
    if not maps.exists():
        pytest.skip('this system has no /proc, which lists the loaded libraries of a process')
    assert 'onnxruntime' in maps.read_text()
    assert 'torch' not in maps.read_text()


def test_1080p_best_effort_images_arrive_with_the_profile(process):
    with Client(reliability=ReliabilityPolicy.BEST_EFFORT) as client:
        client.listen('mask')
        image = scene(1080, 1920)
        for _ in range(3):
            mask = client.segment(message_of(image))
            assert (mask.height, mask.width, mask.step) == (1080, 1920, 1920)


def corrupt_model(folder: Path) -> Path:
    path = folder / 'model.onnx'
    path.write_bytes(b'not a model')
    return path


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['-p', 'model:=/nowhere/model.onnx'], ['/nowhere/model.onnx', 'no such']),
        (['-p', 'model:={corrupt}'], ['model.onnx', 'not an ONNX model']),
        (['-p', 'input_scale:=5.0'], ['input_scale', '5.0', 'Max: 4.0']),
        (['-p', 'threads:=many'], ['threads', 'many', 'INTEGER']),
        (['-p', 'overlay_opacity:=2.0'], ['overlay_opacity', '2.0', 'Max: 1.0']),
        (['-p', 'image_reliability:=sometimes'], ['image_reliability', 'sometimes', 'best_effort, reliable']),
        (['-p', 'model:=~/nowhere.onnx'], [f'{Path.home()}/nowhere.onnx']),
        (['-p', 'cameras:=front,l/eft'], ["'l/eft'", 'expected letters, digits and _']),
        (['--params-file', '/nowhere/params.yaml'], ['/nowhere/params.yaml']),
        *(
            (['-p', f'qos_overrides./left/{name}:={value}'], [f'/left/{name} is ', value, 'expected ', expected])
            for topic in ('image.subscription', 'camera_info.subscription', 'segmentation/mask.publisher')
            for name, value, expected in (
                (f'{topic}.reliability', 'perhaps', 'best_effort'),
                (f'{topic}.durability', 'unknown', 'transient_local'),
                (f'{topic}.depth', '-1', '0 to 2147483647'),
            )
        ),
    ],
)
def test_failed_start_gives_one_line(arguments, words, tmp_path):
    arguments = [argument.format(corrupt=corrupt_model(tmp_path)) for argument in arguments]
    with NodeProcess(*arguments, namespace='/left') as process:
        assert process.wait() == 1
        fatal = [line for line in process.output.splitlines() if '[FATAL]' in line]
        assert len(fatal) == 1, process.output
        assert all(word in fatal[0] for word in words), fatal
        assert 'Traceback' not in process.output


def test_input_scale_is_a_parameter():
    with NodeProcess('-p', 'input_scale:=0.75', namespace='/left') as process, Client('/left') as client:
        process.wait_for_output('with stdc1-seg75 on onnxruntime')
        client.listen('mask')
        image = scene()
        mask = client.segment(message_of(image))
    expected = Segmenter.load(input_scale=0.75)(image).mask
    assert bytes(mask.data) == expected.tobytes()


@pytest.mark.parametrize(('output_size', 'size'), [('input', (720, 960)), ('network', (540, 720))])
def test_large_images_are_scaled_to_the_training_size(output_size, size):
    with NodeProcess('-p', f'output_size:={output_size}', namespace='/left') as process, Client('/left') as client:
        client.listen('mask')
        image = scene(720, 960)
        mask = client.segment(message_of(image))
        process.wait_for_output('images of 960x720: the network sees 720x540, the number of pixels in its training')
    assert (mask.height, mask.width) == size
    expected = Segmenter.load(input_scale=0.75)(image).mask
    assert output_size == 'network' or bytes(mask.data) == expected.tobytes()


@pytest.mark.parametrize(
    ('given', 'meant', 'value'),
    [
        ('overlay_opacty', 'overlay_opacity', '0.3'),
        (f'{MASK_QUALITY.replace("mask", "maks")}.depth', f'{MASK_QUALITY}.depth', '3'),
    ],
)
def test_misspelt_parameter_gives_a_warning(given, meant, value):
    with NodeProcess('-p', f'{given}:={value}', namespace='/left') as process:
        process.wait_for_output(f'parameter {given} is given but does not exist: did you mean {meant}?')


def test_incompatible_publishers_are_named():
    with (
        NodeProcess('-p', 'image_reliability:=reliable', namespace='/left') as process,
        Client('/left', ReliabilityPolicy.BEST_EFFORT) as client,
    ):
        client.listen('mask', camera=False)
        client.spin_until(lambda: 'no image on /left/image' in process.output, 'a warning that no image arrives')
        assert '/client is best_effort, which a reliable subscription cannot receive' in process.output


def test_listeners_that_receive_nothing_are_named_once():
    with NodeProcess(namespace='/left') as process, Client('/left') as client:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        client.node.create_subscription(Image, '/left/segmentation/mask', id, latched)
        client.node.create_subscription(CompressedImage, '/left/segmentation/overlay', id, 1)
        expected = [
            '/left/segmentation/mask: /client receives nothing: volatile publisher and transient local subscription\n',
            '/left/segmentation/overlay: /client receives nothing: '
            'it expects sensor_msgs/msg/CompressedImage, the topic is sensor_msgs/msg/Image',
        ]
        for text in expected:
            process.wait_for_output(text)
        client.listen('confidence')
        client.segment(message_of(scene()), 'confidence')
        client.spin(2 * DIAGNOSTICS_PERIOD)
        assert [process.output.count(text) for text in expected] == [1, 1]


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        ([], 'nobody publishes it (remap image to '),
        (['-r', 'image:=/front/image'], 'nobody publishes it\n'),
        (
            ['-r', 'image:=/front/image_raw'],
            'nobody publishes it, but /front/image_raw/compressed is there (set image_transport to compressed)\n',
        ),
        (
            ['-r', 'image:=/front/image_raw/compressed'],
            'publishes sensor_msgs/msg/CompressedImage, expected sensor_msgs/msg/Image (set image_transport to compre',
        ),
        (
            ['-p', 'image_transport:=compressed', '-r', 'image:=/rear/image'],
            'nobody publishes it, but /rear/image is there (set image_transport to raw)\n',
        ),
    ],
)
def test_camera_without_publisher_is_reported(arguments, told):
    arguments = ['-p', 'stale_after:=0.3', *arguments]
    with NodeProcess(*arguments, namespace='/left') as process, Client('/left', image='/another') as client:
        client.node.create_publisher(CompressedImage, '/front/image_raw/compressed', 1)
        client.node.create_publisher(Image, '/rear/image', 1)
        client.listen('mask', camera=False)
        client.spin_until(lambda: told in process.output, told)


def test_other_complaints_do_not_hide_bad_images():
    with NodeProcess('-p', 'stale_after:=0.3', namespace='/left'), Client('/left') as client:
        client.listen('camera_info')
        bad = message_of(scene())
        bad.encoding = 'plaid'
        reports: list[DiagnosticArray] = []
        client.node.create_subscription(DiagnosticArray, '/left/segmentation/performance', reports.append, 10)
        silent = 'no CameraInfo on /left/camera_info: nobody publishes it (remap camera_info '

        def both() -> bool:
            client.send(bad)
            told = [report.status[0].message for report in reports]
            return any(silent in message and 'bad images (' in message for message in told)

        client.spin_until(both, 'both complaints in one report')
