# SPDX-License-Identifier: Apache-2.0
"""Test ``stdc predict``: outputs of images, folders and videos, and inputs that are refused."""

import errno
import os
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from stdc_core.commands.main import main
from stdc_core.commands.predict_files import OUTPUTS, PredictError, predict
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL, Segmenter
from stdc_core.io.files import appearing, walk, write_png
from stdc_core.io.video import DEFAULT_RATE, VideoError, VideoReader, webm_writer
from stdc_core.pictures.overlay import colorize, overlay

HEIGHT, WIDTH, FRAMES, RATE = 96, 128, 7, 12.5


@pytest.fixture(scope='module')
def segmenter():
    return Segmenter.load(threads=1)


@pytest.fixture(scope='module')
def drive():
    return SyntheticDrive(seed=4, height=HEIGHT, width=WIDTH, frames=FRAMES)


@pytest.fixture
def street(drive, tmp_path) -> Path:
    path = tmp_path / 'in' / 'street.png'
    write_png(path, drive[0].image)
    return path


@pytest.fixture
def clip(drive, tmp_path) -> Path:
    path = tmp_path / 'in' / 'clip.v2.webm'
    with webm_writer(path, (HEIGHT, WIDTH), RATE) as write:
        for frame in drive:
            write(frame.image)
    return path


def files(folder: Path) -> list[str]:
    """Return the names of all files in a folder, including hidden ones."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if not path.is_dir())


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_every_output_of_an_image(street, segmenter, tmp_path):
    image, out = read(street), tmp_path / 'new' / 'out'
    assert predict(segmenter, [street], out, outputs=list(OUTPUTS), opacity=0.25) == (1, 1, [])
    assert files(out) == [f'street_{name}.png' for name in sorted(OUTPUTS)]
    expected, classes = segmenter(image, confidence=True), segmenter.info.classes
    assert np.array_equal(read(out / 'street_mask.png'), expected.mask)
    assert np.array_equal(read(out / 'street_confidence.png'), expected.confidence)
    assert np.array_equal(read(out / 'street_color.png'), colorize(expected.mask, classes))
    assert np.array_equal(read(out / 'street_overlay.png'), overlay(image, expected.mask, classes, 0.25))


def test_every_output_of_a_video(clip, segmenter, tmp_path):
    out = tmp_path / 'out'
    assert predict(segmenter, [clip], out, outputs=list(OUTPUTS)) == (1, FRAMES, [])
    folders = [f'clip.v2_{name}/{index:06d}.png' for name in ('confidence', 'mask') for index in range(FRAMES)]
    assert files(out) == sorted([*folders, 'clip.v2_color.webm', 'clip.v2_overlay.webm'])
    with closing(VideoReader(clip)) as reader:
        images = list(reader)
    with closing(VideoReader(out / 'clip.v2_overlay.webm')) as reader:
        overlays = list(reader)
        assert reader.rate == RATE
    assert len(overlays) == len(images) == FRAMES
    for index, image in enumerate(images):
        result = segmenter(image, confidence=True)
        assert np.array_equal(read(out / f'clip.v2_mask/{index:06d}.png'), result.mask)
        assert np.array_equal(read(out / f'clip.v2_confidence/{index:06d}.png'), result.confidence)
        expected = overlay(image, result.mask, segmenter.info.classes)
        assert np.abs(overlays[index].astype(int) - expected).mean() < 8


def test_command(street, clip, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main(['predict', str(street), str(clip), '--out', str(out), '--threads', '1']) == 0
    assert f'{out}: 2 inputs segmented, {1 + FRAMES} frames' in capsys.readouterr().out
    assert {'street_mask.png', 'street_overlay.png', 'clip.v2_overlay.webm'} < set(files(out))


def test_help_names_every_output(capsys):
    with pytest.raises(SystemExit):
        main(['predict', '--help'])
    text = capsys.readouterr().out
    assert all(f'street_{name}.png' in text for name in OUTPUTS)
    assert '{' + ','.join(OUTPUTS) + '}' in text


def test_folder_keeps_its_structure(street, segmenter, tmp_path):
    image = read(street)
    for name in ('north/a.png', 'south/a.png', 'south/deep/a.b.PNG', '.hidden.png'):
        write_png(tmp_path / 'in' / name, image)
    (tmp_path / 'in' / 'notes.txt').write_text('no image')
    # Outputs inside the folder are not inputs, neither in this run nor in the next.
    out = tmp_path / 'in' / 'out'
    for _ in range(2):
        result = predict(segmenter, [tmp_path / 'in'], out, outputs=['mask'], overwrite=True)
        assert result.inputs == 4
    expected = ['north/a_mask.png', 'south/a_mask.png', 'south/deep/a.b_mask.png', 'street_mask.png']
    assert files(out) == expected


def test_input_named_twice_is_segmented_once(street, segmenter, tmp_path):
    assert predict(segmenter, [street, street.parent, street], tmp_path / 'out').inputs == 1


def test_file_that_is_several_inputs_has_all_outputs(street, segmenter, tmp_path):
    (street.parent / 'latest.png').symlink_to(street)
    link, out = street.parent / 'latest.png', tmp_path / 'out'
    assert predict(segmenter, [street, link], out, outputs=['mask']).inputs == 2
    assert files(out) == ['latest_mask.png', 'street_mask.png']
    day = tmp_path / 'in' / 'day1'
    write_png(day / 'a.png', read(street))
    assert predict(segmenter, [street.parent, day], tmp_path / 'both', outputs=['mask']).inputs == 4
    assert files(tmp_path / 'both') == ['a_mask.png', 'day1/a_mask.png', 'latest_mask.png', 'street_mask.png']


def test_two_inputs_with_the_same_name(street, segmenter, tmp_path):
    other = tmp_path / 'in' / 'street.bmp'
    cv2.imwrite(str(other), read(street))
    for inputs in ([street, other], [street.parent]):
        with pytest.raises(PredictError, match=r'street\.\w+ and .*street\.\w+ would both be written to .*street_mask'):
            predict(segmenter, inputs, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_output_is_never_an_input(street, segmenter):
    precious = street.with_name('street_mask.png')
    write_png(precious, read(street))
    before = precious.read_bytes()
    with pytest.raises(PredictError, match=r'street_mask\.png: the output of .*street\.png is an input as well'):
        predict(segmenter, [street, precious], street.parent, overwrite=True)
    with pytest.raises(PredictError, match='is both the input and --out'):
        predict(segmenter, [street.parent], street.parent, overwrite=True)
    assert precious.read_bytes() == before


def test_no_output_is_inside_another_or_around_an_input(street, clip, segmenter, tmp_path):
    write_png(clip.parent / 'clip.v2_mask' / 'street.png', read(street))
    with pytest.raises(PredictError, match=r'clip\.v2\.webm and .*/street\.png would both be .* to .*/clip\.v2_mask;'):
        predict(segmenter, [clip.parent], tmp_path / 'out', outputs=['mask'])
    frame = clip.parent / 'clip.v2_mask' / '000000.png'
    frame.with_name('street.png').rename(frame)
    with pytest.raises(PredictError, match=r'clip\.v2_mask: the output of .*webm contains an input as well'):
        predict(segmenter, [clip, frame], clip.parent, outputs=['mask'], overwrite=True)
    assert frame.exists()


def test_existing_outputs_are_kept_without_overwrite(street, clip, segmenter, tmp_path):
    out = tmp_path / 'out'
    (out / 'clip.v2_mask').mkdir(parents=True)
    (out / 'street_overlay.png').write_text('mine')
    with pytest.raises(PredictError, match=r'(?s)street_overlay\.png: exists.*clip\.v2_mask: exists.*--overwrite'):
        predict(segmenter, [street, clip], out)
    assert files(out) == ['street_overlay.png']
    (out / 'clip.v2_mask' / '000099.png').write_text('of an older, longer clip')
    predict(segmenter, [street, clip], out, overwrite=True)
    assert read(out / 'street_overlay.png').shape == (HEIGHT, WIDTH, 3)
    assert len(list((out / 'clip.v2_mask').iterdir())) == FRAMES
    assert not [name for name in files(out) if '/.' in f'/{name}']


def test_other_files_are_never_overwritten(street, clip, segmenter, tmp_path):
    out = tmp_path / 'out'
    (out / 'clip.v2_mask').mkdir(parents=True)
    (out / 'clip.v2_mask' / 'thesis.tex').write_text('mine')
    (out / 'street_mask.png').mkdir()
    for source in (clip, street):
        with pytest.raises(PredictError, match='exists already and is not an earlier output'):
            predict(segmenter, [source], out, overwrite=True)
    assert files(out) == ['clip.v2_mask/thesis.tex']


def test_unreadable_inputs_do_not_stop_the_others(street, tmp_path, capsys):
    for name in ('bad.png', 'worse.mp4', 'worst.xyz'):
        (street.parent / name).write_text('hello')
    bad = [str(street.parent / name) for name in ('bad.png', 'worse.mp4', 'worst.xyz')]
    out = tmp_path / 'out'
    arguments = ['predict', *bad, str(street), '--out', str(out), '--threads', '1']
    assert main([*arguments, '--outputs', 'mask']) == 2
    error = capsys.readouterr().err
    assert all(f'{path}: ' in error for path in bad)
    assert 'The other 1 of 4 inputs are segmented.' in error
    assert files(out) == ['street_mask.png']


def test_broken_link_does_not_stop_the_others(segmenter, street, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'a.png').symlink_to('/nowhere.png')
    (tmp_path / 'mine' / 'z.png').write_bytes(street.read_bytes())
    with pytest.raises(PredictError, match=r'a\.png: cannot be read \(No such file or directory\)'):
        predict(segmenter, [tmp_path / 'mine'], tmp_path / 'out', outputs=['mask'])
    assert files(tmp_path / 'out') == ['z_mask.png']


def test_names_that_are_not_utf8(segmenter, street, clip, tmp_path):
    folder = tmp_path / 'names'
    folder.mkdir()
    data = street.read_bytes()
    for name in (b'caf\xe9.png', b'caf\xe9_of_no_suffix'):
        (folder / os.fsdecode(name)).write_bytes(data)
    photo, plain = (folder / os.fsdecode(name) for name in (b'caf\xe9.png', b'caf\xe9_of_no_suffix'))
    assert predict(segmenter, [photo, plain], tmp_path / 'out', outputs=['mask']) == (2, 2, [])
    assert files(tmp_path / 'out') == ['caf\udce9_mask.png', 'caf\udce9_of_no_suffix_mask.png']
    video = folder / os.fsdecode(b'caf\xe9.webm')
    video.write_bytes(clip.read_bytes())
    with pytest.raises(PredictError, match=r'caf\\udce9\.webm: its path is not UTF-8'):
        predict(segmenter, [video], tmp_path / 'new')
    with pytest.raises(OSError, match=r'caf\\udce9\.webm: its path is not UTF-8'):
        webm_writer(video, (HEIGHT, WIDTH), RATE).__enter__()


def test_video_name_may_look_like_a_time(segmenter, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip.rename('12:00:00.webm')
    assert predict(segmenter, [Path('12:00:00.webm')], Path(), outputs=['overlay']) == (1, FRAMES, [])
    assert Path('12:00:00_overlay.webm').stat().st_size


def test_unopenable_video_gives_the_reason(tmp_path):
    (tmp_path / 'drive.mp4').symlink_to('nowhere')
    with pytest.raises(VideoError, match=r'drive\.mp4: cannot be read \(No such file or directory\)'):
        VideoReader(tmp_path / 'drive.mp4')


def test_huge_claimed_image_is_not_decoded(segmenter, tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 20000, 20000, 8, 2, 0, 0, 0))
    parts = header, chunk(b'IDAT', zlib.compress(bytes(1000))), chunk(b'IEND', b'')
    (tmp_path / 'bomb.png').write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(parts))
    with pytest.raises(PredictError, match=r'bomb\.png: image of 20000 x 20000 pixels.*expected at most'):
        predict(segmenter, [tmp_path / 'bomb.png'], tmp_path / 'out')


def test_truncated_jpeg_is_an_error(segmenter, drive, tmp_path):
    (tmp_path / 'half.jpg').write_bytes(cv2.imencode('.jpg', drive[0].image)[1].tobytes()[:5000])
    with pytest.raises(PredictError, match=r'half\.jpg: the JPEG is cut off: it has no end, expected a whole picture'):
        predict(segmenter, [tmp_path / 'half.jpg'], tmp_path / 'out')


def test_links_to_folders_are_followed_once(segmenter, street, tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'disk' / 'far.png').write_bytes(street.read_bytes())
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'link').symlink_to(tmp_path / 'disk')
    (tmp_path / 'disk' / 'round').symlink_to(tmp_path / 'mine')
    (tmp_path / 'mine' / 'a').mkdir()
    (tmp_path / 'mine' / 'a' / 'link').symlink_to(tmp_path / 'mine' / 'z')  # which is searched itself
    (tmp_path / 'mine' / 'z').mkdir()
    (tmp_path / 'mine' / 'z' / 'near.png').write_bytes(street.read_bytes())
    predict(segmenter, [tmp_path / 'mine'], tmp_path / 'out', outputs=['mask'])
    assert files(tmp_path / 'out') == ['link/far_mask.png', 'z/near_mask.png']


def test_unreadable_folder_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    for name in ('lost+found', 'mine'):
        (tmp_path / name).mkdir()
    scandir = os.scandir

    def scan(path):
        if Path(path).name == 'lost+found':  # root may list every folder, so the error is simulated
            raise PermissionError(errno.EACCES, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', scan)
    assert [folder.name for folder, _, _ in walk(tmp_path, 'program')] == [tmp_path.name, 'mine']
    assert (
        capsys.readouterr().err
        == f'program: {tmp_path / "lost+found"}: cannot be listed and is left out (Permission denied)\n'
    )


def test_unreadable_image_writes_nothing(segmenter, tmp_path):
    (tmp_path / 'bad.png').write_text('hello')
    with pytest.raises(PredictError, match=r'bad\.png: not an image that OpenCV reads'):
        predict(segmenter, [tmp_path / 'bad.png'], tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_too_large_image_does_not_stop_the_others(street, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('stdc_core.inference.segmenter.MAX_PIXELS', 4 * HEIGHT * WIDTH)
    large = street.with_name('large.png')
    write_png(large, np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8))
    arguments = ['predict', str(large), str(street), '--out', str(tmp_path / 'out'), '--outputs', 'mask']
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert f'{large}: image of 256 x 192 pixels, 384 x 288 for the network at input scale 1.5' in error
    assert files(tmp_path / 'out') == ['street_mask.png']
    assert main([*arguments, '--input-scale', '1', '--overwrite']) == 0


def test_truncated_video_is_segmented_up_to_the_cut(segmenter, tmp_path):
    whole, cut = tmp_path / 'whole.webm', tmp_path / 'cut.webm'
    noise(whole, 20, 10)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    result = predict(segmenter, [cut], tmp_path / 'out', outputs=['mask'])
    assert 0 < result.frames < 19
    assert len(files(tmp_path / 'out')) == result.frames
    assert f'cut.webm: cut off or damaged; the first {result.frames} of 20 frames' in result.warnings[0]


def retimed(source: Path, target: Path, times: list[int]) -> None:
    """Copy a WebM file with other frame times in milliseconds.

    Browsers and screen recorders write such files, whose stated rate is not the rate of the frames.
    """
    data = bytearray(source.read_bytes())

    def size(at: int) -> tuple[int, int]:
        """Return an EBML number and the position after it."""
        length = 9 - data[at].bit_length()
        return int.from_bytes(data[at : at + length], 'big') & ((1 << 7 * length) - 1), at + length

    duration = data.index(b'\x44\x89\x88') + 3
    data[duration : duration + 8] = struct.pack('>d', times[-1] + 33)
    cluster = b'\x1f\x43\xb6\x75'
    at, left = data.index(cluster), list(times)
    while left:
        if data.startswith(cluster, at):
            _, at = size(at + 4)
        kind = data[at]
        length, at = size(at + 1)
        if kind == 0xE7:  # time of the cluster
            base = int.from_bytes(data[at : at + length], 'big')
        if kind == 0xA3:  # SimpleBlock: track, and time relative to the cluster
            data[at + 1 : at + 3] = struct.pack('>h', left.pop(0) - base)
        at += length
    target.write_bytes(data)


def noise(path: Path, frames: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    with webm_writer(path, (64, 64), rate) as write:
        for _ in range(frames):
            write(rng.integers(0, 256, (64, 64, 3), np.uint8))


def test_video_with_a_variable_rate(segmenter, tmp_path):
    noise(tmp_path / 'even.webm', 20, 30)
    times = [33 * index for index in range(10)] + [300 + 200 * index for index in range(10)]
    retimed(tmp_path / 'even.webm', tmp_path / 'screen.webm', times)
    with closing(VideoReader(tmp_path / 'screen.webm')) as reader:
        assert reader.expected > 60
        assert reader.rate == pytest.approx(19 / 2.1)
    assert predict(segmenter, [tmp_path / 'screen.webm'], tmp_path / 'out', outputs=['overlay']) == (1, 20, [])
    with closing(VideoReader(tmp_path / 'out' / 'screen_overlay.webm')) as reader:
        assert reader.rate == pytest.approx(19 / 2.1, rel=0.01)


def test_truncated_video_with_a_variable_rate(segmenter, tmp_path):
    noise(tmp_path / 'even.webm', 20, 30)
    retimed(tmp_path / 'even.webm', tmp_path / 'screen.webm', [100 * index for index in range(20)])
    data = (tmp_path / 'screen.webm').read_bytes()
    (tmp_path / 'screen.webm').write_bytes(data[: len(data) // 2])
    result = predict(segmenter, [tmp_path / 'screen.webm'], tmp_path / 'out', outputs=['mask'])
    assert 0 < result.frames < 15
    assert f'the first {result.frames} of 19 frames are segmented' in result.warnings[0]


def test_video_too_small_for_vp8_leaves_nothing(segmenter, tmp_path):
    small, out = tmp_path / 'tiny.avi', tmp_path / 'out'
    writer = cv2.VideoWriter(str(small), cv2.VideoWriter_fourcc(*'MJPG'), 10, (2, 2))
    for value in (50, 100, 150):
        writer.write(np.full((2, 2, 3), value, np.uint8))
    writer.release()
    with pytest.raises(OSError, match=rf'^{out}/tiny_overlay\.webm: not one of 3 frames of 2 x 2 pixels can be read'):
        predict(segmenter, [small], out, outputs=['mask', 'overlay', 'confidence'])
    assert not list(out.iterdir())


def test_interrupted_video_keeps_the_old_output(clip, segmenter, tmp_path):
    out = tmp_path / 'out'
    (out / 'clip.v2_mask').mkdir(parents=True)
    (out / 'clip.v2_mask' / '000000.png').write_text('old')

    class Interrupted:
        info = segmenter.info
        calls = 0

        def __call__(self, image, confidence):
            self.calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt
            return segmenter(image, confidence)

    with pytest.raises(KeyboardInterrupt):
        predict(Interrupted(), [clip], out, overwrite=True)
    assert files(out) == ['clip.v2_mask/000000.png']
    assert (out / 'clip.v2_mask' / '000000.png').read_text() == 'old'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['absent.png', 'gone'], 'absent.png: no such file or folder\ngone: no such'),
        (['in', '--overlay-opacity', '1.5'], 'overlay opacity: expected 0 to 1, found 1.5'),
        (['in', '--threads', '-1'], 'threads: expected 0 to 256, found -1'),
        (['in', '--model', 'absent.onnx'], 'absent.onnx: no such model file'),
        (['empty'], 'empty: contains no images or videos'),
        (['in', '--out', 'file'], 'file: is a file, expected a folder'),
        (['in', '--out', 'file/deeper'], 'file/deeper/street_mask.png: could not be written (Not a directory)'),
    ],
)
def test_wrong_argument_is_reported(arguments, message, street, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('empty').mkdir()
    Path('file').write_text('mine')
    assert main(['predict', '--out', 'out', *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path('out').exists()
    assert Path('file').read_text() == 'mine'


def test_unknown_output(street, segmenter, tmp_path):
    with pytest.raises(PredictError, match='outputs: expected some of mask, color, overlay, confidence, found depth'):
        predict(segmenter, [street], tmp_path / 'out', outputs=['depth'])


def test_file_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    with pytest.raises(RuntimeError), appearing(path) as partial:
        partial.write_text('half')
        raise RuntimeError
    assert not list(path.parent.iterdir())
    with appearing(path) as partial:
        partial.write_text('whole')
        assert not path.exists()
    assert files(path.parent) == ['a.txt']


def test_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'mine').write_text('mine')
    error = pytest.raises(IsADirectoryError, match='folder: is a folder, expected a file')
    with error, appearing(tmp_path / 'folder') as partial:
        partial.write_text('whole')
    assert files(tmp_path) == ['folder/mine']


def test_videos_of_odd_size_and_without_frames(tmp_path):
    with webm_writer(tmp_path / 'odd.webm', (45, 71), 30) as write:
        for value in (50, 200):
            write(np.full((45, 71, 3), value, np.uint8))
    with closing(VideoReader(tmp_path / 'odd.webm')) as reader:
        assert [frame.shape for frame in reader] == [(44, 70, 3)] * 2
    with pytest.raises(OSError, match=r'flat\.webm: this OpenCV cannot write 8 x 1 VP8 video'):
        webm_writer(tmp_path / 'flat.webm', (1, 8), DEFAULT_RATE).__enter__()
    with pytest.raises(VideoError, match='absent'):
        VideoReader(tmp_path / 'absent.mp4')


def test_predict_needs_no_torch(street, tmp_path):
    code = 'import sys; sys.modules["torch"] = None; from stdc_core.commands.main import main; sys.exit(main())'
    command = [sys.executable, '-c', code, 'predict', str(street), '--out', str(tmp_path / 'out')]
    result = subprocess.run([*command, '--model', str(DEFAULT_MODEL)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
