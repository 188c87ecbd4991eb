# SPDX-License-Identifier: Apache-2.0
"""Find the int8 file of a model: ``mine.int8.onnx`` beside ``mine.onnx``."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import onnx

from stdc_core.inference.backend_choice import prefers_int8
from stdc_core.inference.model_file import ModelError, ModelInfo, read_model
from stdc_core.inference.onnx_graph.quantized import is_quantized

#: Key in the recipe of ``stdc quantize``: SHA-256 of the float file that the int8 file was made from.
MADE_FROM = 'made from'

_log = logging.getLogger(__name__)


def int8_path(model: Path) -> Path:
    """Return the path of the int8 file of a float model: ``mine.int8.onnx`` for ``mine.onnx``."""
    return model.with_suffix('.int8.onnx')


def file_for(path: Path, precision: str) -> Path:
    """Return the model file that is read in a precision.

    Args:
        path: Path of a ``model.onnx``.
        precision: One of ``PRECISIONS``.

    Returns:
        The int8 file beside the model for precision int8, if it exists; else the model itself. It may be a file of
        ``stdc quantize`` already, or in float; then the backend says what it needs.
    """
    beside = int8_path(path)
    return beside if precision == 'int8' and beside.is_file() else path


def read_model_for(path: Path, precision: str) -> tuple[Path, onnx.ModelProto, ModelInfo]:
    """Read the model file that is used in a precision, see :func:`file_for`.

    Args:
        path: Path of a ``model.onnx``.
        precision: One of ``PRECISIONS``.

    Returns:
        Path of the file that was read, its model and its description.

    Raises:
        FileNotFoundError: The model does not exist.
        ModelError: A file is not a model, or the int8 file was made from another model.
    """
    used = file_for(path, precision)
    model, info = read_model(used)
    if used == path:
        return path, model, info
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such model file')
    if not is_quantized(model):
        raise ModelError(f'{used}: a model in float, expected one from stdc quantize; remove it or make it again')
    expected = _made_from(info)
    if expected and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
        raise ModelError(
            f'{used}: made from a model with SHA-256 {expected[:12]}, but {path.name} has {found[:12]}; '
            f'make it again: {quantize_command(path)} --overwrite'
        )
    return used, model, info


def fastest_precision(path: Path, backend: str, precision: str) -> str:
    """Return the precision that is the fastest for a model, if the precision is ``auto``; else the precision itself.

    It is ``int8`` on a CPU with VNNI, where OpenVINO is installed and the int8 file lies beside the model. An int8 file
    that cannot be used is left out with a warning.

    Args:
        path: Path of a ``model.onnx``.
        backend: One of ``BACKENDS``.
        precision: One of ``PRECISIONS``.
    """
    if precision != 'auto' or not int8_path(path).is_file() or not prefers_int8(backend):
        return precision
    try:
        read_model_for(path, 'int8')
    except (ModelError, OSError) as error:
        _log.warning('%s; using %s', error, path.name)
        return precision
    _log.info('precision auto: int8 is the fastest on this CPU; fp32 would compute %s exactly', path.name)
    return 'int8'


def quantize_command(path: Path) -> str:
    """Return the command that makes the int8 file of a model."""
    return f'stdc quantize {path} --images FOLDER'


def _made_from(info: ModelInfo) -> str:
    """Return the SHA-256 of the float file that an int8 file was made from; empty if it does not say it."""
    try:
        return str(json.loads(info.provenance.get('quantized', '{}')).get(MADE_FROM, ''))
    except (ValueError, AttributeError, RecursionError):
        return ''
