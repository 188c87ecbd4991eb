# SPDX-License-Identifier: Apache-2.0
"""Change the structure of files, as random bytes cannot. Each function gets a path and a random generator."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import onnx
from bag_helpers import CAMERA
from onnx import TensorProto

from stdc_ros.messages.cdr import IMAGE

#: Values to write into metadata.
VALUES = (
    '',
    'null',
    '[]',
    '{}',
    'nan',
    '1e30',
    '-1',
    '0',
    '"../../etc/passwd"',
    '9' * 5000,
    '[' * 100_000,
    '{"names": [], "colors": []}',
    json.dumps({'names': [f'c{i}' for i in range(300)], 'colors': [[0, 0, 0]] * 300}),
    json.dumps({'names': ['a', 'a'], 'colors': [[0, 0, 0]] * 2}),
    json.dumps({'names': ['a\nb'], 'colors': [[0, 0, 0]]}),
    json.dumps({'names': ['\ud800'], 'colors': [[0, 0, 0]]}),
    json.dumps({'names': ['a/../b'], 'colors': [[0, 0, 999]]}),
    json.dumps({'names': ['x' * 1_000_000], 'colors': [[0, 0, 0]]}),
    json.dumps({'names': 'abc', 'colors': [[0, 0, 0]] * 3}),
    json.dumps({'names': ['a'], 'colors': [[True, 1.5, None]]}),
    '{"names": ["a"], "colors": [[NaN, 0, 0]]}',
    '{"class_offset": "[1]"}',
    '{"class_offset": "x"}',
)


def _change_metadata(path: Path, draw: random.Random) -> None:
    model = onnx.load(path)
    draw.choice(list(model.metadata_props)).value = draw.choice([v for v in VALUES if '\ud800' not in v])
    path.write_bytes(model.SerializeToString())


def _change_graph(path: Path, draw: random.Random) -> None:
    model = onnx.load(path)
    tensor, node = draw.choice(list(model.graph.initializer)), draw.choice(list(model.graph.node))
    how = draw.randrange(6)
    if how == 0:
        tensor.data_location = TensorProto.EXTERNAL
        location = tensor.external_data.add()
        location.key, location.value = 'location', draw.choice(('../../etc/passwd', '/etc/passwd', 'weights.bin'))
    elif how == 1:
        tensor.dims[:] = [draw.choice((0, -1, 2**31, 2**62)) for _ in tensor.dims]
    elif how == 2:
        tensor.data_type = draw.randrange(30)
    elif how == 3:
        node.op_type = draw.choice(('Loop', 'If', 'Resize', 'NoSuchOperator', 'Conv', 'Reshape', 'Gather', 'Tile'))
    elif how == 4 and node.input:  # a constant has no input
        node.input[draw.randrange(len(node.input))] = draw.choice(('', 'absent', node.output[0], '../x\n'))
    else:
        node.domain = draw.choice(('com.microsoft', 'x\ny'))
    path.write_bytes(model.SerializeToString())


def _change_header(path: Path, draw: random.Random) -> None:
    """Change the header of a safetensors file, which is a length and JSON."""
    data = path.read_bytes()
    (size,) = struct.unpack('<Q', data[:8])
    header = json.loads(data[8 : 8 + size])
    name = draw.choice([key for key in header if key != '__metadata__'])
    how = draw.randrange(7)
    if how == 0:
        header[name]['data_offsets'] = draw.choice(([0, 2**62], [-1, 4], [2**63, 2**64], [4, 0], 'x', [[0], [1]]))
    elif how == 1:
        header[name]['shape'] = draw.choice(([2**62, 2**62], [-1], [], ['a'], [0] * 10_000))
    elif how == 2:
        header[name]['dtype'] = draw.choice(('F64', 'BOOL', 'I8', 'C64', 'F8_E4M3', 'none', 7))
    elif how == 3:
        header[draw.choice(('a\nb', '../x', 'y' * 100_000, '\x1b[2J'))] = header.pop(name)
    elif how == 4:
        header['__metadata__'][draw.choice(list(header['__metadata__']))] = draw.choice(VALUES)
    elif how == 5:
        header['__metadata__'] = draw.choice(({}, [], 'x', {'kind': 'classifier'}, {'backbone': 7}))
    else:
        header |= {f'more{index}': header[name] for index in range(draw.choice((1, 100, 20_000)))}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', draw.choice((len(text),) * 6 + (2**40, 2**63))) + text + data[8 + size :])


BOMB = 'a: &a [x,x,x,x,x,x,x,x,x]\n' + ''.join(
    f'{name}: &{name} [{",".join([f"*{before}"] * 9)}]\n' for before, name in zip('abcdefghi', 'bcdefghij', strict=True)
)


def _change_yaml(path: Path, draw: random.Random) -> None:
    lines = path.read_text().splitlines()
    key = draw.choice(('steps', 'learning_rate', 'classes', 'backbone', 'nonsense'))
    added = draw.choice(
        (
            BOMB + f'{key}: *j',
            f'{key}: !!python/object/apply:os.system ["touch {path.parent}/executed"]',
            f'{key}: !!python/name:os.system',
            f'{key}: {"[" * 5000}',
            f'{key}: {"{a: " * 60}1{"}" * 60}',
            f'{key}: 1\n{key}: 2',
            f'{key}: 2020-99-99',
            f'{key}: {"9" * 5000}',
            f'{key}: 0x_',
            f'{key}: .nan',
            f'{key}: "\\0\\e[2J\\n"',
            f'{key}: {"x" * 2_000_000}',
            f'? [{key}]\n: 1',
            '\x00\x01',
            '<<: [1, 2]',
        )
    )
    lines.insert(draw.randrange(len(lines) + 1), added)
    path.write_text('\n'.join(lines))


def _change_bag(path: Path, draw: random.Random) -> None:
    """Change names in a bag, and the metadata.yaml of a folder."""
    if path.is_dir() and draw.random() < 0.7:
        file = path / 'metadata.yaml'
        text = file.read_text()
        storage = next(name for name in path.iterdir() if name.name != 'metadata.yaml').name
        if draw.random() < 0.2:
            file.unlink()
            return
        old, new = draw.choice(
            (
                (storage, f'../{storage}'),
                (storage, '/etc/passwd'),
                (storage, '..'),
                ('sqlite3', '*j'),
                ('compression_format: zstd', 'compression_format: *j'),
                ('version: 8', f'version: {"9" * 5000}'),
                ('cdr', 'pickle'),
                (CAMERA, '"a\\nb"'),
                ('sensor_msgs', '../sensor_msgs'),
            )
        )
        file.write_text((BOMB if '*j' in new else '') + text.replace(old, new))
        return
    file = draw.choice(sorted(path.iterdir())) if path.is_dir() else path
    # Of the same length, so that the lengths before them stay valid.
    swap = {
        CAMERA: '/x\n\x1b[2J\0y',
        IMAGE: 'os;import sys\n(',
        'height': 'import',
        'std_msgs/Header header': '__x = 1',
    }
    old, new = draw.choice(list(swap.items()))
    file.write_bytes(file.read_bytes().replace(old.encode(), new.encode().ljust(len(old), b'x')[: len(old)]))


#: Change by kind of file, with the suffixes that it applies to.
STRUCTURE: dict[str, dict[Callable[[Path, random.Random], None], tuple[str, ...]]] = {
    'onnx': {_change_metadata: ('.onnx',), _change_graph: ('.onnx',)},
    'weights': {_change_header: ('.safetensors',)},
    'yaml': {_change_yaml: ('.yaml',)},
    'bag': {_change_bag: ('', '.bag', '.mcap')},
}
