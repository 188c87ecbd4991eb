# SPDX-License-Identifier: Apache-2.0
"""The stand-in for TensorRT offers nothing that the real modules do not have: names, signatures, flags."""

from __future__ import annotations

import inspect
import re

import fake_tensorrt
import pytest
from fake_tensorrt import GENERATIONS, WEAK, real

#: Each stand-in and the real class that it stands for.
CLASSES = {
    fake_tensorrt.Builder: 'Builder',
    fake_tensorrt.Network: 'INetworkDefinition',
    fake_tensorrt.Timed: 'IBuilderConfig',
    fake_tensorrt.Runtime: 'Runtime',
    fake_tensorrt.CudaEngine: 'ICudaEngine',
    fake_tensorrt.Context: 'IExecutionContext',
}

#: What only tests use.
HELPERS = {'parser', 'tensors'}


def modules() -> list:
    """Return TensorRT for RTX and, where it is installed, TensorRT."""
    try:
        import tensorrt
    except (ImportError, OSError):
        return [real]
    return [real, tensorrt]


def public(of: type) -> list[str]:
    return [name for name in dir(of) if not name.startswith('_') and name not in HELPERS]


def signatures(method) -> list[list[str]]:
    """Return the names of the parameters of each overload of a pybind11 method, without self."""
    lines = re.findall(rf'{method.__name__}\((self: .*?)\) -> ', method.__doc__)
    return [re.findall(r'(?:^|, )(\w+): ', line)[1:] for line in lines]


@pytest.mark.parametrize('stand_in', CLASSES, ids=lambda of: of.__name__)
def test_every_method_is_a_real_one_with_the_same_parameters(stand_in):
    for trt in modules():
        of = getattr(trt, CLASSES[stand_in])
        for name in public(stand_in):
            found = getattr(of, name)
            if callable(getattr(stand_in, name)):
                parameters = list(inspect.signature(getattr(stand_in, name)).parameters)[1:]
                # A configuration for RTX may be given to create_execution_context, which TensorRT does without.
                assert parameters in [each[: len(parameters)] for each in signatures(found)], (name, found.__doc__)


def test_attributes_of_an_object_are_real_ones():
    assert hasattr(real.IExecutionContext, 'active_optimization_profile')
    for name in ('num_optimization_profiles', 'get_tactic_sources', 'progress_monitor'):
        assert hasattr(real.IBuilderConfig, name)
    for name in ('name', 'dtype', 'shape', 'allowed_formats'):
        assert hasattr(real.ITensor, name)


@pytest.mark.parametrize('version', GENERATIONS)
def test_flags_are_real_ones_or_named_as_those_of_tensorrt_alone(version):
    flags, creation, features, _ = GENERATIONS[version]
    assert set(flags) - set(WEAK) <= set(real.BuilderFlag.__members__)
    assert set(creation) - {'EXPLICIT_BATCH', 'PREFER_AOT_PYTHON_PLUGINS'} <= set(
        real.NetworkDefinitionCreationFlag.__members__
    )
    assert not set(features) & set(real.PreviewFeature.__members__)


def test_flags_that_tensorrt_alone_has_are_those_of_the_installed_version():
    trt = pytest.importorskip('tensorrt', reason='TensorRT is not installed')
    major = trt.__version__.partition('.')[0]
    version = next((version for version in GENERATIONS if version.partition('.')[0] == major), None)
    if version is None:
        pytest.skip(f'no stand-in for TensorRT {trt.__version__}')
    flags, creation, _, monitored = GENERATIONS[version]
    assert set(flags) <= set(trt.BuilderFlag.__members__)
    assert ('FP16' in flags) == hasattr(trt.BuilderFlag, 'FP16')
    assert set(creation) <= set(trt.NetworkDefinitionCreationFlag.__members__)
    assert monitored == hasattr(trt, 'IProgressMonitor')
