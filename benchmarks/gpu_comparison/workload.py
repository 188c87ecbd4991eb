# SPDX-License-Identifier: Apache-2.0
"""Make and read the models, frames and expected masks of the GPU benchmark.

They are made once, on any machine with the test environment, and read on the machine with the GPU.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gpu_comparison.plan import CLASSES, INT8, INT8_SEG50, NETWORKS, SEG50, SHIPPED

#: Height, width and number of the frames.
SIZE, FRAMES = (1024, 2048), 8

#: Largest number of real images that the masks are compared on.
REAL = 32

_MADE = 'made.json'


def make_ready(
    work: Path,
    data: Path | None,
    size: tuple[int, int] = SIZE,
    frames: int = FRAMES,
    max_loss: float | None = None,
) -> dict[str, Any]:
    """Make models and frames in a folder, unless they are there.

    Args:
        work: Path of the folder.
        data: Dataset with the classes of CamVid. Its val images give the masks, its train images calibrate int8.
            None renders frames for both.
        size: (height, width) of the frames.
        frames: Number of frames.
        max_loss: Points of accuracy that int8 may lose, see ``quantize``; None takes its default.

    Returns:
        What the masks are compared on: ``data``, ``images``, ``size``, ``expected_by``.

    Raises:
        SystemExit: The folder was made of other data, or the data cannot be used.
    """
    file = work / _MADE  # written last
    if not file.is_file():
        work.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_make(work, data, size, frames, max_loss)))
    made = json.loads(file.read_text())
    if data and made['data'] != str(data):
        raise SystemExit(f'{work}: made of {made["data"] or "rendered frames"}, expected {data}; remove the folder')
    return made


def _make(work: Path, data: Path | None, size: tuple[int, int], frames: int, max_loss: float | None) -> dict[str, Any]:
    import onnxruntime
    import torch

    from stdc_core.classes import class_table
    from stdc_core.export.onnx import export
    from stdc_core.model.segmentation import STDCSeg
    from stdc_core.model.weights import save_weights

    real = real_images(data) if data else None
    drive = render(0, size, frames)
    np.save(work / 'frames.npy', np.stack([frame.image for frame in drive]))
    samples = make_shipped(work, real, drive, max_loss)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for backbone in sorted({network.backbone for network in NETWORKS.values()}):
            weights = Path(folder, f'{backbone}.safetensors')
            save_weights(STDCSeg(backbone, CLASSES), weights, class_table('cityscapes'), {})
            export(weights, work / f'{backbone}.onnx', overwrite=True)
    shape = [int(side) for side in samples[0].label.shape]
    known = {'data': str(data) if data else None, 'images': len(samples), 'size': shape}
    return {**known, 'expected_by': f'ONNX Runtime {onnxruntime.__version__} in float32 on the CPU'}


def make_shipped(
    work: Path, real: tuple[list, list[Path]] | None, drive: list, max_loss: float | None = None
) -> list[Any]:
    """Make the shipped model at one scale, its int8 version, and the masks that are expected of it.

    Args:
        work: Path of the folder.
        real: Samples to compare masks on and images to calibrate on, see :func:`real_images`; None takes rendered
            frames.
        drive: Rendered frames to compare masks on.
        max_loss: See :func:`make_ready`.

    Returns:
        The samples that masks are compared on. int8 is calibrated on others.
    """
    from stdc_core.export.quantize import quantize
    from stdc_core.inference import DEFAULT_MODEL, Segmenter
    from stdc_core.inference.model_file import read_model
    from stdc_core.io.files import write_png

    with tempfile.TemporaryDirectory() as folder:
        if real:
            samples, pictures = real
            np.save(work / 'real.npy', np.stack([sample.image for sample in samples]))
        else:
            samples, pictures = drive, [Path(folder, f'{index}.png') for index in range(len(drive))]
            height, width = drive[0].label.shape
            for picture, frame in zip(pictures, render(1, (height, width), len(drive)), strict=True):
                write_png(picture, frame.image)
        own = read_model(DEFAULT_MODEL)[1].input_scale
        onnx.save(at_scale(DEFAULT_MODEL, own if real else NETWORKS[SEG50].scale), work / f'{SHIPPED}.onnx')
        quantize(work / f'{SHIPPED}.onnx', work / f'{INT8}.onnx', pictures, max_loss=max_loss, overwrite=True)
    segmenter = Segmenter.load(work / f'{SHIPPED}.onnx', backend='onnxruntime')
    masks = np.stack([segmenter(sample.image).mask for sample in samples])
    np.savez_compressed(work / 'expected.npz', masks=masks, labels=np.stack([sample.label for sample in samples]))
    return samples


def at_scale(path: Path, scale: float) -> onnx.ModelProto:
    """Return a model whose network sees images of every size at one scale."""
    from onnx import helper

    from stdc_core.inference.input_scale import set_input_scale
    from stdc_core.inference.model_file import read_model

    model, info = read_model(path)
    set_input_scale(model, scale)
    helper.set_model_props(model, info.at(scale).to_metadata())
    return model


def render(seed: int, size: tuple[int, int], frames: int) -> list[Any]:
    """Return frames of a rendered drive, with labels."""
    from stdc_core.data.synthetic import SyntheticDrive

    drive = SyntheticDrive(seed, *size, frames=frames * 20)
    return [drive[index * 20] for index in range(frames)]


def real_images(data: Path) -> tuple[list[Any], list[Path]]:
    """Return samples of val of one size, and the image files of train. Raises SystemExit."""
    from stdc_core.classes import CAMVID
    from stdc_core.data.datasets import open_dataset
    from stdc_core.evaluation.evaluate import evenly

    try:
        val, train = open_dataset(data, 'val', CAMVID), open_dataset(data, 'train', CAMVID, require_labels=False)
        samples = [val[index] for index in evenly(min(REAL, len(val)), len(val))]
    except (OSError, ValueError) as error:
        raise SystemExit(f'--data: {error}') from error
    sizes = {sample.label.shape for sample in samples}
    if len(sizes) != 1:
        raise SystemExit(f'--data: {val}: {len(val)} images of {len(sizes)} sizes, expected images of one size')
    return samples, [train.files(index)[0] for index in range(len(train))]


def read_workload_model(work: Path, name: str) -> onnx.ModelProto:
    """Return the deployed graph of a model of the plan."""
    from stdc_core.inference.model_file import read_model

    if name in NETWORKS:
        return at_scale(weights_of(work, name), NETWORKS[name].scale)
    if name == INT8_SEG50:
        return at_scale(work / f'{INT8}.onnx', NETWORKS[SEG50].scale)
    return read_model(weights_of(work, name))[0]


def weights_of(work: Path, name: str) -> Path:
    """Return the model file that holds the weights of a model of the plan."""
    return work / f'{NETWORKS[name].backbone if name in NETWORKS else name}.onnx'


def scale_of(work: Path, name: str) -> float:
    """Return the scale at which a network sees its images."""
    from stdc_core.inference.model_file import read_model

    return NETWORKS[name].scale if name in NETWORKS else read_model(weights_of(work, name))[1].input_scale


def read_frames(work: Path, name: str) -> np.ndarray:
    """Return the images for a model, uint8 BGR ``[N, H, W, 3]``; real ones for the shipped model, if there are any."""
    if name in (SHIPPED, INT8) and (work / 'real.npy').is_file():
        return np.load(work / 'real.npy')
    every = NETWORKS[name].every if name in NETWORKS else 1
    return np.ascontiguousarray(np.load(work / 'frames.npy')[:, ::every, ::every])


def compare_masks(work: Path, masks: np.ndarray) -> dict[str, float | None]:
    """Compare masks of the shipped model, uint8 ``[N, H, W]``, with those of ONNX Runtime in float32.

    Returns:
        ``equal``: percent of equal labels. ``miou`` and ``miou_expected``: mIoU in percent of these and of the expected
        masks; None where nothing is labelled.
    """
    with np.load(work / 'expected.npz') as expected:
        wanted, labels = expected['masks'], expected['labels']
    if masks.shape != wanted.shape:
        raise ValueError(f'masks of shape {masks.shape}, expected {wanted.shape}')
    equal = 100 * float((masks == wanted).mean())
    return {'equal': equal, 'miou': miou(masks, labels), 'miou_expected': miou(wanted, labels)}


def miou(masks: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the mIoU in percent, of CamVid's classes; None if nothing is labelled."""
    from stdc_core.classes import CAMVID
    from stdc_core.evaluation.metrics import ConfusionMatrix

    confusion = ConfusionMatrix(len(CAMVID))
    for mask, label in zip(masks, labels, strict=True):
        confusion.update(mask, label)
    return None if math.isnan(confusion.miou()) else 100 * confusion.miou()
