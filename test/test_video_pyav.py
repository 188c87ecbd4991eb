# SPDX-License-Identifier: Apache-2.0
"""Test videos that only PyAV can read or write."""

from __future__ import annotations

from contextlib import closing

import cv2
import numpy as np
import pytest

from stdc_core.commands.predict_files import PredictError, predict
from stdc_core.inference import Segmenter
from stdc_core.io import video_pyav
from stdc_core.io.video import VideoError, open_video, webm_writer
from stdc_core.io.video_pyav import PyavReader, mp4_writer

FRAMES, RATE = 8, 12.5


def frame(index: int) -> np.ndarray:
    return np.full((45, 71, 3), 30 * index, np.uint8)


def test_mp4_has_the_frames_and_the_rate(tmp_path):
    pytest.importorskip('av', reason='PyAV is not installed')
    with mp4_writer(tmp_path / 'drive.mp4', (45, 71), RATE) as write:
        for index in range(FRAMES):
            write(frame(index))
    for opened in (open_video(tmp_path / 'drive.mp4'), PyavReader(tmp_path / 'drive.mp4')):
        with closing(opened) as reader:
            assert reader.rate == pytest.approx(RATE) and reader.expected == FRAMES
            pictures = list(reader)
            assert reader.lost() == 0
        assert [picture.shape for picture in pictures] == [(44, 70, 3)] * FRAMES
        for index, picture in enumerate(pictures):
            assert abs(float(picture.mean()) - 30 * index) < 6


def test_predict_writes_mp4(tmp_path):
    pytest.importorskip('av', reason='PyAV is not installed')
    with webm_writer(tmp_path / 'drive.webm', (44, 70), RATE) as write:
        for index in range(FRAMES):
            write(frame(index)[:44, :70])
    result = predict(
        Segmenter.load(), [tmp_path / 'drive.webm'], tmp_path / 'out', outputs=['overlay'], video_format='mp4'
    )
    assert result == (1, FRAMES, [])
    capture = cv2.VideoCapture(str(tmp_path / 'out' / 'drive_overlay.mp4'))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES


@pytest.mark.parametrize(('frames', 'output'), [(3, 'drive_mask/000002.png'), (1, 'drive_mask.png')])
def test_every_frame_of_a_gif_is_segmented(tmp_path, frames, output):
    av = pytest.importorskip('av', reason='PyAV is not installed')
    with av.open(str(tmp_path / 'drive.gif'), 'w') as container:
        stream = container.add_stream('gif', rate=10)
        stream.width, stream.height, stream.pix_fmt = 70, 44, 'rgb8'
        for index in range(frames):
            picture = np.ascontiguousarray(frame(index)[:44, :70])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='bgr24')))
        container.mux(stream.encode(None))
    result = predict(Segmenter.load(), [tmp_path / 'drive.gif'], tmp_path / 'out', outputs=['mask'])
    assert result == (1, frames, []) and (tmp_path / 'out' / output).is_file()


def test_failed_write_leaves_no_file(tmp_path):
    pytest.importorskip('av', reason='PyAV is not installed')
    with pytest.raises(RuntimeError), mp4_writer(tmp_path / 'drive.mp4', (44, 70), RATE) as write:
        write(frame(0))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_invalid_video_gives_one_line(tmp_path):
    (tmp_path / 'text.mp4').write_text('hello')
    with pytest.raises(VideoError, match=r'text\.mp4: neither an image nor a video that OpenCV') as error:
        open_video(tmp_path / 'text.mp4')
    assert len(str(error.value).splitlines()) == 1


def test_mp4_without_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(video_pyav, 'find_spec', lambda name: None)
    with pytest.raises(PredictError, match=r"MP4 needs PyAV: pip install '\.\[video\]'"):
        predict(Segmenter.load(), [tmp_path], tmp_path / 'out', video_format='mp4')
