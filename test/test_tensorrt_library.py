# SPDX-License-Identifier: Apache-2.0
"""Choose the precision, name what is missing, and use no name that TensorRT does not have."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from stdc_core.classes import class_table
from stdc_core.commands.main import main
from stdc_core.inference import BackendError, Segmenter, backend_choice
from stdc_core.inference.tensorrt.cuda import missing_driver
from stdc_core.inference.tensorrt.library import logger_of
from stdc_core.inference.tensorrt.precision import choose_precision
from stdc_core.inference.tensorrt.progress import PhaseShare

no_driver = pytest.mark.skipif(not missing_driver(), reason='there is an NVIDIA driver')

CLASSES = class_table('camvid')


@pytest.mark.parametrize(
    ('precision', 'quantized', 'capability', 'chosen'),
    [
        ('auto', False, (9, 0), 'fp16'),
        ('auto', False, (6, 1), 'fp32'),
        ('auto', False, (5, 0), 'fp32'),
        ('auto', True, (9, 0), 'int8'),
        ('fp32', False, (9, 0), 'fp32'),
        ('fp16', False, (6, 1), 'fp16'),
        ('int8', True, (7, 5), 'int8'),
        ('auto', True, (6, 1), 'int8'),
    ],
)
def test_precision(precision, quantized, capability, chosen):
    assert choose_precision(precision, quantized, capability) == chosen


@pytest.mark.parametrize(
    ('precision', 'quantized', 'capability', 'said'),
    [
        ('int8', False, (9, 0), 'stdc quantize'),
        ('fp16', True, (9, 0), 'expected int8 or auto'),
        ('fp16', False, (5, 0), 'compute capability 5.0 has none'),
        ('auto', True, (6, 0), 'precision int8: a GPU of compute capability 6.0 has none'),
        ('int8', True, (6, 2), 'precision int8: a GPU of compute capability 6.2 has none'),
    ],
)
def test_a_precision_that_cannot_be_is_an_error(precision, quantized, capability, said):
    with pytest.raises(BackendError, match=said):
        choose_precision(precision, quantized, capability)


@no_driver
def test_without_a_gpu_auto_says_why_and_a_name_is_an_error(monkeypatch):
    with monkeypatch.context() as patch:
        patch.delenv(backend_choice.BACKEND_VARIABLE, raising=False)
        patch.setattr(backend_choice, 'cpu_flags', frozenset)
        segmenter = Segmenter.load()
    assert segmenter.backend == 'onnxruntime'
    assert segmenter.reason.startswith(missing_driver())
    with pytest.raises(BackendError, match='^backend tensorrt: no NVIDIA driver is installed$|no usable GPU'):
        Segmenter.load(backend='tensorrt')
    with pytest.raises(BackendError, match="precision 'int4', expected one of auto, fp32"):
        Segmenter.load(precision='int4')


@no_driver
def test_an_engine_cannot_be_built_without_a_gpu(capsys):
    assert main(['engine', '--size', '64x96']) == 2
    assert capsys.readouterr().err == f'stdc engine: backend tensorrt: {missing_driver()}\n'
    assert main(['engine', '--size', '64x96', '--batch', '0']) == 2
    assert capsys.readouterr().err == 'stdc engine: --batch: expected 1 or more, found 0\n'


def test_progress_of_nested_phases_never_falls():
    share = PhaseShare()
    share.start('build', None, 4)
    found = [share.complete('build', 0)]
    share.start('tactics', 'build', 10)
    found += [share.complete('tactics', step) for step in range(9)]
    found += [share.finish('tactics'), share.complete('build', 1), share.complete('build', 2), share.finish('build')]
    assert found == sorted(found)
    assert found[0] == 25
    assert found[5] == 25 + 12
    assert found[-1] == 100


def test_numpy_and_onnx_are_enough_for_engines():
    """As on a machine that has a GPU and little else."""
    others = ['cv2', 'onnxruntime', 'torch', 'yaml']
    code = f'import sys; sys.modules.update(dict.fromkeys({others})); import stdc_core.inference.tensorrt.backend'
    subprocess.run([sys.executable, '-c', code], check=True, env={**os.environ, 'PYTHONPATH': str(REPOSITORY)})


def test_every_name_of_tensorrt_that_is_used_is_there():
    trt = pytest.importorskip('tensorrt', reason='tensorrt is not installed')
    weak = hasattr(trt.BuilderFlag, 'FP16')
    assert weak or hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED') or int(trt.__version__[:2]) > 10
    assert not weak or hasattr(trt.BuilderFlag, 'INT8')
    assert hasattr(trt, 'PreviewFeature')
    for of, names in {
        trt.Builder: 'create_network create_builder_config create_optimization_profile build_serialized_network',
        trt.IBuilderConfig: 'set_flag clear_flag add_optimization_profile set_preview_feature set_tactic_sources',
        trt.OnnxParser: 'parse num_errors get_error',
        trt.INetworkDefinition: 'get_input get_output num_outputs',
        trt.ITensor: 'name dtype allowed_formats',
        trt.ICudaEngine: 'create_execution_context get_tensor_shape',
        trt.IExecutionContext: 'active_optimization_profile set_optimization_profile_async set_input_shape '
        'set_tensor_address execute_async_v3',
        trt.Runtime: 'deserialize_cuda_engine',
        trt.TensorFormat: 'LINEAR',
    }.items():
        assert not [name for name in names.split() if not hasattr(of, name)]
    logger = logger_of(trt)
    logger.log(trt.ILogger.Severity.ERROR, 'first\n')
    logger.log(trt.ILogger.Severity.INFO, 'second')
    assert logger.said() == 'first'
    assert logger.said() == 'it does not say why'
    assert logger is logger_of(trt)
