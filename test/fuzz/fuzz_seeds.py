# SPDX-License-Identifier: Apache-2.0
"""Make valid files of every kind that users provide, and load each kind as a program would."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from bag_helpers import CAMERA, make_bag
from onnx import TensorProto, helper, numpy_helper

from stdc_core.classes import CAMVID, ClassTable
from stdc_core.inference import DEFAULT_MODEL, ModelError, Segmenter, SizeError
from stdc_core.inference.model_file import ModelInfo
from stdc_core.training.config import ConfigError, read_config
from stdc_core.training.pretrain_config import PretrainConfig
from stdc_core.training.train_config import TrainConfig
from stdc_ros.bags.message import BagError
from stdc_ros.bags.reader import Bag
from stdc_ros.messages.cdr import COMPRESSED_IMAGE, IMAGE
from stdc_ros.messages.images import ImageError

ROOT = Path(__file__).resolve().parents[2]


class Kind(NamedTuple):
    """Kind of file.

    Args:
        make_seeds: Function that writes valid files to a folder and returns their paths.
        load: Function that loads a file as a user's program does.
        refusals: Documented exceptions of ``load``.
        dense: Number of first and of last bytes that are changed most often.
    """

    name: str
    make_seeds: Callable[[Path], list[Path]]
    load: Callable[[Path], None]
    refusals: tuple[type[Exception], ...]
    dense: tuple[int, int]


def tiny_model(path: Path) -> Path:
    """Write a model file with first and last layers like an exported one, and one convolution between them."""
    ends = np.zeros((len(CAMVID), 3, 1, 1), np.float32) + np.arange(len(CAMVID), dtype=np.float32)[:, None, None, None]
    constants = {'model.head.1.weight': ends, 'scale': np.float32([255])}
    nodes = [
        helper.make_node('Transpose', ['image'], ['planes'], perm=[0, 3, 1, 2]),
        helper.make_node('Cast', ['planes'], ['floats'], to=TensorProto.FLOAT),
        helper.make_node('Conv', ['floats', 'model.head.1.weight'], ['logits']),
        helper.make_node('ArgMax', ['logits'], ['ids'], axis=1, keepdims=0),
        helper.make_node('Cast', ['ids'], ['mask'], to=TensorProto.UINT8),
        helper.make_node('Softmax', ['logits'], ['probabilities'], axis=1),
        helper.make_node('ReduceMax', ['probabilities'], ['largest'], axes=[1], keepdims=0),
        helper.make_node('Mul', ['largest', 'scale'], ['scaled']),
        helper.make_node('Cast', ['scaled'], ['confidence'], to=TensorProto.UINT8),
    ]
    sizes = ['batch', 'height', 'width']
    graph = helper.make_graph(
        nodes,
        'tiny',
        [helper.make_tensor_value_info('image', TensorProto.UINT8, [*sizes, 3])],
        [helper.make_tensor_value_info(name, TensorProto.UINT8, sizes) for name in ('mask', 'confidence')],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, ModelInfo('stdc1', 1.0, CAMVID, {'data': 'none'}).to_metadata())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def _models(folder: Path) -> list[Path]:
    folder.mkdir()
    shipped = folder / 'shipped.onnx'
    shipped.write_bytes(DEFAULT_MODEL.read_bytes())
    # The shipped model takes 50 times as long.
    return [*(tiny_model(folder / f'tiny{index}.onnx') for index in range(20)), shipped]


def _load_model(path: Path) -> None:
    segmenter = Segmenter.load(path, threads=1)
    try:
        segmenter(np.full((24, 40, 3), 90, np.uint8), confidence=True)
    except ModelError as error:
        raise ModelError(f'{path}: {error}') from error
    except SizeError:  # the input scale is too small for the image
        pass


def reference_state() -> dict[str, Any]:
    """Return a checkpoint of the reference implementation: tensors by name, all zeros."""
    import torch

    reference = np.load(ROOT / 'test' / 'data' / 'reference.npz')
    return {  # only the batch counters are scalars
        str(key): torch.zeros([int(n) for n in size.split('x')]).half() if size else torch.tensor(0)
        for key, size in zip(reference['stdc1_keys'], map(str, reference['stdc1_shapes']), strict=True)
        if '.backbone.x' not in key
    }


def _weights(folder: Path) -> list[Path]:
    import torch

    from stdc_core.model.segmentation import STDCSeg
    from stdc_core.model.stdc import STDCClassifier
    from stdc_core.model.weights import save_classifier, save_weights

    folder.mkdir()
    torch.manual_seed(0)
    made = [folder / name for name in ('network.safetensors', 'classifier.safetensors', 'network.pth', 'network.tar')]
    save_weights(STDCSeg('stdc1', len(CAMVID)), made[0], CAMVID, {'class_offset': json.dumps([0.0] * len(CAMVID))})
    save_classifier(STDCClassifier('stdc1', 5), made[1], list('abcde'), {})
    state = reference_state()
    torch.save(state, made[2])
    torch.save({'state_dict': state}, made[3], _use_new_zipfile_serialization=False)
    return made


def _load_weights(path: Path) -> None:
    from stdc_core.classes import CITYSCAPES
    from stdc_core.model.reference import import_reference
    from stdc_core.model.weights import load_classifier, load_weights

    if path.suffix in ('.pth', '.tar'):
        import_reference(path, CITYSCAPES)
    elif path.name.startswith('classifier'):
        load_classifier(path)
    else:
        load_weights(path)


_BAGS = [
    ('rosbag1', ''),
    ('rosbag1', 'lz4'),
    ('rosbag1', 'bz2'),
    ('sqlite3', ''),
    ('sqlite3', 'file'),
    ('sqlite3', 'message'),
    ('mcap', ''),
    ('mcap', 'storage'),
    ('mcap folder', 'file'),
]


def _bags(folder: Path) -> list[Path]:
    topics = {CAMERA: IMAGE, '/rear/compressed': COMPRESSED_IMAGE, '/chatter': 'std_msgs/msg/String'}
    made = []
    for kind, compression in _BAGS:
        place = folder / f'{kind} {compression}'
        place.mkdir(parents=True)
        made.append(make_bag(place, kind, topics, 4, compression))
    return made


def _load_bag(path: Path) -> None:
    with Bag(path) as bag:
        for message in bag.messages(bag.select_topics(all_topics=True)):
            try:
                message.header()
                message.bgr()
            except ImageError:
                pass


def _yaml(folder: Path) -> list[Path]:
    folder.mkdir()
    files = [*(ROOT / 'config' / 'train').glob('*.yaml'), *(ROOT / 'config' / 'classes').glob('*.yaml')]
    for file in files:
        (folder / f'{file.parent.name}_{file.name}').write_bytes(file.read_bytes())
    return sorted(folder.iterdir())


def _load_yaml(path: Path) -> None:
    if path.name.startswith('classes'):
        ClassTable.from_yaml(path)
    else:
        read_config(PretrainConfig if 'imagenet' in path.name else TrainConfig, path)


def _refusals() -> tuple[type[Exception], ...]:
    if not find_spec('torch'):
        return ()
    from stdc_core.model.weights import WeightsError

    return (WeightsError,)


KINDS = {
    kind.name: kind
    for kind in (
        Kind('onnx', _models, _load_model, (ModelError,), (3000, 3000)),
        Kind('weights', _weights, _load_weights, _refusals(), (40_000, 40_000)),
        # Class tables raise ValueError.
        Kind('yaml', _yaml, _load_yaml, (ConfigError, ValueError), (1000, 1000)),
        Kind('bag', _bags, _load_bag, (BagError,), (4000, 4000)),
    )
    if kind.refusals
}
