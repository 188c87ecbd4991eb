# SPDX-License-Identifier: Apache-2.0
"""Test that damaged JPEG and PNG, and huge claimed sizes, give an image or an error with a reason."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from fuzzing import FUZZ, PICTURES, PIXELS, chunk, image_or_error, picture_of, png_claiming
from hypothesis import given
from hypothesis import strategies as st

from stdc_ros.messages import jpeg_decoder
from stdc_ros.messages.compressed_images import compressed_to_bgr
from stdc_ros.messages.images import MAX_SIDE, ImageError, image_to_bgr
from stdc_ros.messages.opencv_jpeg import decode_by_opencv


@FUZZ
@given(
    name=st.sampled_from(sorted(PICTURES)),
    keep=st.integers(0, 2000),
    at=st.integers(0, 2000),
    new=st.binary(max_size=12),
    insert=st.booleans(),
)
def test_damaged_picture_is_decoded_or_refused_silently(name, keep, at, new, insert):
    data = PICTURES[name]
    data = (data[:at] + new + data[at + (0 if insert else len(new)) :])[: keep if keep < len(data) else None]
    read, write = os.pipe()
    stderr = os.dup(2)
    os.dup2(write, 2)
    try:
        image = image_or_error(compressed_to_bgr, picture_of(data))
    finally:
        os.dup2(stderr, 2)
        os.close(write)
        os.close(stderr)
        with os.fdopen(read, 'rb') as file:
            told = file.read()
    assert told == b''
    if data == PICTURES[name]:
        assert image is not None
        assert image.shape == PIXELS.shape


@FUZZ
@given(data=st.binary(max_size=200), magic=st.sampled_from([b'', b'\xff\xd8\xff', PICTURES['png'][:8]]))
def test_noise_is_refused(data, magic):
    assert image_or_error(compressed_to_bgr, picture_of(magic + data)) is None


@pytest.mark.parametrize('name', sorted(PICTURES))
def test_picture_cut_at_every_byte_is_an_error(name):
    data = PICTURES[name]
    assert image_or_error(compressed_to_bgr, picture_of(data)).shape == PIXELS.shape
    # A JPEG that only lacks its end marker has every pixel.
    for length in range(len(data) - (2 if 'jpeg' in name else 0)):
        assert image_or_error(compressed_to_bgr, picture_of(data[:length])) is None, length


def test_jpeg_with_a_gap_or_with_bytes_behind_its_end():
    data = PICTURES['jpeg']
    with pytest.raises(ImageError, match='damaged: Corrupt JPEG data: premature end'):
        compressed_to_bgr(picture_of(data[: len(data) * 2 // 3] + data[-2:]))
    np.testing.assert_array_equal(
        compressed_to_bgr(picture_of(data + bytes(300))), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    )


@pytest.mark.parametrize('with_simplejpeg', [True, False])
def test_other_output_to_stderr_during_decoding_is_kept(capfd, monkeypatch, with_simplejpeg):
    if not with_simplejpeg:
        monkeypatch.setattr(jpeg_decoder, '_decoder', lambda: decode_by_opencv)
    image = cv2.resize(PIXELS, (1600, 1200))
    message = picture_of(cv2.imencode('.jpg', image)[1].tobytes()[:-2000] + b'\xff\xd9')
    ended = threading.Event()
    written = []

    def write() -> None:
        while not ended.is_set():
            written.append(f'[WARN] line {len(written)}\n')
            os.write(2, written[-1].encode())
            ended.wait(0.001)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(10):
        assert image_or_error(compressed_to_bgr, message) is None
    ended.set()
    thread.join()
    assert sorted(capfd.readouterr().err.splitlines(keepends=True)) == sorted(written)


@pytest.mark.parametrize('extension', ['.tiff', '.webp', '.bmp'])
def test_only_jpeg_and_png_reach_a_decoder(extension):
    data = cv2.imencode(extension, PIXELS)[1].tobytes()
    with pytest.raises(ImageError, match='the data begins with .*, expected a whole JPEG or PNG'):
        compressed_to_bgr(picture_of(data))


def test_depth_images_are_named():
    with pytest.raises(ImageError, match="'16UC1; compressedDepth png' .* holds depths"):
        compressed_to_bgr(picture_of(bytes(12) + PICTURES['png'], '16UC1; compressedDepth png'))


def test_exif_orientation_is_ignored():
    tag = struct.pack('<HHII', 0x112, 3, 1, 6)  # rotation by 90 degrees
    exif = b'Exif\0\0II*\0' + struct.pack('<IH', 8, 1) + tag + bytes(4)
    data = PICTURES['jpeg']
    turned = data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (32, 24, 3)
    assert compressed_to_bgr(picture_of(turned)).shape == (24, 32, 3)


def test_endless_headers_and_scans_are_refused():
    data = PICTURES['jpeg']
    for damaged in (
        data[:2] + b'\xff\xfe\0\2' * 2000 + data[2:],
        data[:-2] + data[data.find(b'\xff\xda') : -2] * 200 + data[-2:],
        PICTURES['png'][:33] + chunk(b'tEXt', b'') * 70_000 + PICTURES['png'][33:],
    ):
        with pytest.raises(ImageError, match='has more than'):
            compressed_to_bgr(picture_of(damaged))


CLAIMS = """
import resource
from types import SimpleNamespace
from stdc_ros.messages.compressed_images import compressed_to_bgr
from stdc_ros.messages.images import ImageError, image_to_bgr
from fuzzing import jpeg_claiming, picture_of, png_claiming
raw = dict(encoding='bgr8', is_bigendian=0, data=bytes(100))
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = most()
for convert, message in (
    (image_to_bgr, SimpleNamespace(width=100_000, height=100_000, step=300_000, **raw)),
    (image_to_bgr, SimpleNamespace(width=32_000, height=2_000, step=96_000, **raw)),
    (compressed_to_bgr, picture_of(png_claiming(100_000, 100_000))),
    (compressed_to_bgr, picture_of(png_claiming(2**31 - 1, 2**31 - 1))),
    (compressed_to_bgr, picture_of(png_claiming(60_000, 60_000, bytes(10_000_000)))),
    (compressed_to_bgr, picture_of(jpeg_claiming(65_535, 65_535))),
    (compressed_to_bgr, picture_of(jpeg_claiming(30_000, 30_000))),
):
    try:
        convert(message)
    except ImageError:
        continue
    raise SystemExit(f'{message.__dict__.keys()} was read')
print(most() - before)
"""


def test_huge_claimed_size_allocates_nothing():
    message = SimpleNamespace(
        width=100_000, height=100_000, step=300_000, encoding='bgr8', is_bigendian=0, data=bytes(100)
    )
    tracemalloc.start()
    with pytest.raises(ImageError, match='100000 x 100000 pixels, expected at most'):
        image_to_bgr(message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    run = subprocess.run([sys.executable, '-c', CLAIMS], env=environment, capture_output=True, text=True, check=True)
    # In MB. The largest message takes 10 MB while it is created.
    assert int(run.stdout) < 50


def test_largest_picture():
    data = png_claiming(8192, 8192, bytes(8192 * (1 + 3 * 8192)))
    assert compressed_to_bgr(picture_of(data)).shape == (8192, 8192, 3)
    for width, height in ((8193, 8192), (MAX_SIDE + 1, 1)):
        with pytest.raises(ImageError, match=f'{width} x {height} pixels, expected at most'):
            compressed_to_bgr(picture_of(png_claiming(width, height)))
