# SPDX-License-Identifier: Apache-2.0
"""Compare the masks of TensorRT and of TensorRT for RTX on a GPU with those of ONNX Runtime on the CPU.

``pytest -m gpu`` runs these tests. Each library is skipped with the reason where it is not installed or does not run.
TensorRT builds engines, which takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from stdc_core.classes import class_table
from stdc_core.data.synthetic import SyntheticDrive
from stdc_core.inference import DEFAULT_MODEL, BackendError, Segmenter
from stdc_core.inference.input_scale import InputScale
from stdc_core.inference.model_file import read_model
from stdc_core.inference.onnxruntime_backend import OnnxRuntimeBackend
from stdc_core.inference.tensorrt import make_backend as making
from stdc_core.inference.tensorrt.backend import TensorRtBackend
from stdc_core.inference.tensorrt.cuda import CudaDevice, CudaError, missing_driver
from stdc_core.inference.tensorrt.engine_cache import EngineCache, cache_folder
from stdc_core.inference.tensorrt.library import TENSORRT, TENSORRT_RTX, load_library
from stdc_core.inference.tensorrt.make_backend import RtxEngineBuilder, make_rtx_backend, make_tensorrt_backend
from stdc_core.inference.tensorrt.options import GpuOptions
from stdc_core.pictures.overlay import overlay

SIZE = (360, 480)

#: What a mask never holds: outputs are filled with it before they are written.
POISON = 251

#: Share of labels that have to be those of float32, and how far confidences may be off on average, of 255.
EQUAL, UNSURE = 0.999, 1.0

#: Share of labels that int8 may change on the GPU beyond those that it changes on the CPU.
MORE_CHANGED = 0.01


def missing(library: str) -> str:
    """Return why a library does not run here, or an empty text."""
    reason = missing_driver()
    if not reason:
        try:
            load_library(library)
            CudaDevice()
        except (BackendError, ImportError, CudaError) as error:
            reason = str(error)
    return reason


def library_or_skip(name: str):
    reason = missing(name)
    return pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=f'{name}: {reason}'))


pytestmark = pytest.mark.gpu

each_library = pytest.mark.parametrize('library', [library_or_skip(TENSORRT), library_or_skip(TENSORRT_RTX)])
rtx_only = pytest.mark.parametrize('library', [library_or_skip(TENSORRT_RTX)])
both_libraries = pytest.mark.skipif(
    bool(missing(TENSORRT) or missing(TENSORRT_RTX)), reason=missing(TENSORRT) or missing(TENSORRT_RTX)
)


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    """Keep engines from test to test, and no longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('STDC_CACHE_DIR', str(tmp_path_factory.mktemp('engines')))
        yield


@pytest.fixture(scope='module')
def frames() -> np.ndarray:
    drive = SyntheticDrive(seed=3, height=SIZE[0], width=SIZE[1], frames=160)
    return np.stack([drive[index].image for index in (0, 50, 100, 150)])


@pytest.fixture(scope='module')
def expected(shipped_model, frames):
    """Masks and confidences in float32 on the CPU, at the model's own scale."""
    return OnnxRuntimeBackend(shipped_model)(frames, True)


def make(library: str, model: onnx.ModelProto, precision: str, **options) -> TensorRtBackend:
    maker: Callable = make_tensorrt_backend if library == TENSORRT else make_rtx_backend
    backend = maker(model, precision, GpuOptions(**options))
    backend.prepare(SIZE, lambda text: None)
    return backend


def assert_alike(found, expected) -> None:
    assert found[0].shape == expected[0].shape
    assert (found[0] == expected[0]).mean() >= EQUAL
    if found[1] is not None:
        assert np.abs(found[1].astype(float) - expected[1]).mean() <= UNSURE


def poisoned(backend: TensorRtBackend, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mask and confidence, each written over POISON on the device and on the host."""
    pipeline = backend.pipeline(images.shape, True)
    for memory, host in pipeline.outputs:
        host[:] = POISON
        backend.device.upload(memory, host)
    found = pipeline(images)
    pipeline.close()
    return found


@each_library
@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_masks_and_confidences_are_those_of_onnx_runtime(library, shipped_model, frames, expected, precision):
    backend = make(library, shipped_model, precision)
    assert backend.name == f'{library} {precision}'
    for index in range(len(frames)):
        wanted = [each[index : index + 1] for each in expected]
        assert_alike(poisoned(backend, frames[index : index + 1]), wanted)
        assert_alike(backend(frames[index : index + 1], True), wanted)
    mask, confidence = backend(frames[:1], False)
    assert confidence is None
    assert_alike((mask, None), [each[:1] for each in expected])


@each_library
def test_the_engine_in_one_piece_computes_the_same(library, shipped_model, frames, expected):
    backend = make(library, shipped_model, 'fp32', kernels=False)
    assert_alike(poisoned(backend, frames[:1]), [each[:1] for each in expected])


@each_library
@pytest.mark.parametrize('scale', [0.5, 0.75])
def test_other_input_scales_compute_the_same(library, shipped_model, frames, scale):
    segmenter = Segmenter.load(input_scale=scale, backend='onnxruntime')
    backend = make(library, shipped_model, 'fp32', scale=InputScale(scale))
    found = segmenter(frames[:1], confidence=True)
    assert_alike(backend(frames[:1], True), (found.mask, found.confidence))


@each_library
def test_the_larger_network_with_nineteen_classes_computes_the_same(library, tmp_path, frames):
    torch = pytest.importorskip('torch', reason='torch is not installed')
    from stdc_core.export.onnx import export
    from stdc_core.model.segmentation import STDCSeg
    from stdc_core.model.weights import save_weights

    torch.manual_seed(0)
    save_weights(STDCSeg('stdc2', 19), tmp_path / 'weights.safetensors', class_table('cityscapes'), {})
    export(tmp_path / 'weights.safetensors', tmp_path / 'model.onnx')
    stdc2 = read_model(tmp_path / 'model.onnx')[0]
    assert_alike(make(library, stdc2, 'fp32')(frames[:1], True), OnnxRuntimeBackend(stdc2)(frames[:1], True))


@each_library
def test_int8_changes_as_few_labels_as_on_the_cpu(library, tmp_path, frames, expected):
    quantization = pytest.importorskip('stdc_core.export.quantize', reason='torch is not installed')
    from stdc_core.io.files import write_png

    other = SyntheticDrive(seed=4, height=SIZE[0], width=SIZE[1], frames=160)
    for index in range(0, 160, 20):
        write_png(tmp_path / f'{index:03}.png', other[index].image)
    quantization.quantize(DEFAULT_MODEL, tmp_path / 'int8.onnx', sorted(tmp_path.glob('*.png')))
    int8 = read_model(tmp_path / 'int8.onnx')[0]
    backend = make(library, int8, 'int8')
    on_cpu, _ = OnnxRuntimeBackend(int8)(frames, False)
    on_gpu = np.concatenate([backend(frame[None], False)[0] for frame in frames])
    assert (on_gpu == expected[0]).mean() >= (on_cpu == expected[0]).mean() - MORE_CHANGED


@each_library
def test_batches_are_the_masks_of_their_images(library, shipped_model, frames, expected):
    backend = make(library, shipped_model, 'fp32', max_batch=3)
    if backend.max_batch == 1:
        pytest.skip('this version takes no batches')
    for indices in (slice(0, 3), slice(1, 3), slice(2, 3), slice(0, 4)):
        assert_alike(backend(frames[indices], True), [each[indices] for each in expected])


@each_library
def test_other_sizes_come_and_go(library, shipped_model, frames):
    backend, on_cpu = make(library, shipped_model, 'fp32'), OnnxRuntimeBackend(shipped_model)
    for height, width in ((96, 128), (97, 131), (96, 128)):
        image = np.ascontiguousarray(frames[1:2, :height, :width])
        assert_alike(backend(image, True), on_cpu(image, True))


@each_library
def test_overlays_are_those_of_the_cpu(library, shipped_model, frames):
    backend, classes = make(library, shipped_model, 'fp32'), class_table('camvid')
    for index in range(2):
        (mask,), _ = backend(frames[index : index + 1], False)
        drawn = backend.overlay(0, classes.blending_bgr(0.5))
        assert drawn is not None, 'NVRTC is not installed'
        assert np.abs(drawn.astype(int) - overlay(frames[index], mask, classes, 0.5)).max() <= 1


@each_library
def test_the_second_time_the_engine_is_read(library, shipped_model, frames, expected, monkeypatch):
    make(library, shipped_model, 'fp32')
    monkeypatch.setattr(making, 'build', lambda *_: pytest.fail('built again'))
    assert_alike(make(library, shipped_model, 'fp32')(frames[:1], True), [each[:1] for each in expected])


@each_library
@pytest.mark.parametrize('damage', ['cut', 'flipped'])
def test_a_damaged_engine_is_built_again(library, shipped_model, frames, expected, caplog, damage):
    make(library, shipped_model, 'fp32')
    for path in cache_folder().glob('*.engine'):
        data = path.read_bytes()
        path.write_bytes(data[:-5] if damage == 'cut' else data[:-1] + bytes([data[-1] ^ 1]))
    assert_alike(make(library, shipped_model, 'fp32')(frames[:1], True), [each[:1] for each in expected])
    assert 'made again' in caplog.text


@each_library
def test_an_engine_that_the_library_refuses_is_built_again(library, shipped_model, frames, expected, caplog):
    """As one of another version, which the library itself has to find."""
    make(library, shipped_model, 'fp32')
    for path in cache_folder().glob('*.engine'):
        EngineCache().write(path.name, b'ftrt' + bytes(1000))
    assert_alike(make(library, shipped_model, 'fp32')(frames[:1], True), [each[:1] for each in expected])
    assert 'built again' in caplog.text


@rtx_only
def test_an_engine_that_was_built_without_a_gpu_runs_and_its_kernels_are_kept(
    library, shipped_model, frames, expected, monkeypatch, tmp_path
):
    monkeypatch.setenv('STDC_CACHE_DIR', str(tmp_path))
    target = making.target_of(CudaDevice().capability)
    RtxEngineBuilder(shipped_model, 'fp16', target=target).prepare(SIZE, lambda text: None)
    monkeypatch.setattr(making, 'build', lambda *_: pytest.fail('built again'))
    assert_alike(make(library, shipped_model, 'fp16')(frames[:1], True), [each[:1] for each in expected])
    (kernels,) = tmp_path.glob('*.kernels')
    written = kernels.stat().st_mtime_ns
    assert_alike(make(library, shipped_model, 'fp16')(frames[:1], True), [each[:1] for each in expected])
    assert kernels.stat().st_mtime_ns == written  # read, not compiled


@both_libraries
def test_rtx_answers_until_tensorrt_has_built_its_engine(frames, expected, monkeypatch, tmp_path):
    monkeypatch.setenv('STDC_CACHE_DIR', str(tmp_path))
    model = read_model(DEFAULT_MODEL)[0]
    others: list[TensorRtBackend] = []

    def other() -> TensorRtBackend:
        others.append(make_rtx_backend(model, 'fp16'))
        return others[-1]

    backend = make_tensorrt_backend(model, 'fp16', GpuOptions(other=other, wait=False))
    assert_alike(backend(frames[:1], True), [each[:1] for each in expected])
    assert [each.name for each in others] == ['tensorrt_rtx fp16']
    backend._builder.join(600)
    assert not backend.activity
    assert_alike(backend(frames[:1], True), [each[:1] for each in expected])
    assert {path.suffix for path in tmp_path.iterdir()} >= {'.engine', '.kernels'}
