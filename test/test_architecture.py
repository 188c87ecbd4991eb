# SPDX-License-Identifier: Apache-2.0
"""Check the rules of the house on the source: which room imports which, and where torch and ROS may appear.

The imports are read from the syntax tree, so those inside functions count too, and nothing has to be installed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

#: Rooms from high to low. A room imports only rooms of lower tiers; rooms of one tier do not import each other.
TIERS = {
    'stdc_ros': [{'node', 'playback'}, {'offline'}, {'bags'}, {'points'}, {'ground'}, {'messages'}],
    'stdc_core': [
        {'commands'},
        {'training'},
        {'export'},
        {'evaluation'},
        {'model'},
        {'data'},
        {'inference'},
        {'pictures'},
        {'io', 'classes'},
    ],
}

#: The one import between two rooms of the same tier: class tables are read from YAML files and shorten their errors.
WITHIN_TIER = {('stdc_core.classes', 'stdc_core.io')}

#: Rooms of ``stdc_core`` that run without torch, and so are open to ``stdc_ros``.
WITHOUT_TORCH = {'inference', 'pictures', 'io', 'classes'}

#: More rooms of ``stdc_core`` that a room of ``stdc_ros`` uses: the demo renders a drive and measures the mIoU.
#: The modules that it takes from them load no torch, which ``test_no_torch_at_inference_and_in_ros`` checks.
ALSO_OPEN = {'playback': {'data', 'evaluation'}}

#: Rooms of ``stdc_ros`` that talk to ROS 2.
WITH_RCLPY = {'node', 'playback'}

TORCH = {'torch', 'torchvision', 'torchmetrics', 'lightning', 'safetensors', 'timm', 'huggingface_hub'}
ROS = re.compile(r'rclpy|rpyutils|launch|launch_ros|ament_\w+|cv_bridge|tf2\w*|rosbags|rosbag2_\w+|\w+_msgs|\w+_srvs')


class Import(NamedTuple):
    """One import statement of a module.

    Attributes:
        target: Full name of the imported module; a package stands for its ``__init__``.
        line: Line number of the statement.
        late: Whether the import is inside a function, and so does not run when the module is imported.
    """

    target: str
    line: int
    late: bool


@cache
def modules() -> dict[str, Path]:
    """Return the path of every module of both packages, by its full name."""
    found = {}
    for package in TIERS:
        for path in sorted((REPOSITORY / package).rglob('*.py')):
            parts = path.relative_to(REPOSITORY).with_suffix('').parts
            found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


@cache
def imports(module: str) -> tuple[Import, ...]:
    """Return the imports of a module, those inside functions included."""
    tree = ast.parse(modules()[module].read_text())
    return tuple(_statements(tree, modules(), late=False))


def _statements(node: ast.AST, known: Iterable[str], late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, late)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f'line {child.lineno}: expected an absolute import'
            for alias in child.names:
                inner = f'{child.module}.{alias.name}'
                yield Import(inner if inner in known else str(child.module), child.lineno, late)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _statements(child, known, late or function)


def room(module: str) -> str:
    """Return the room of a module, such as ``stdc_core.inference``; the package itself for its ``__init__``."""
    return '.'.join(module.split('.')[:2])


def tier(name: str) -> int:
    """Return the height of a room, 0 for the highest."""
    package, _, inner = name.partition('.')
    return next(height for height, names in enumerate(TIERS[package]) if inner in names)


def arrows() -> Iterator[tuple[str, str, str]]:
    """Yield every import from one room into another: importing room, imported room, and the place for a message."""
    for module, path in modules().items():
        for target, line, _ in imports(module):
            if '.' in target and target.split('.')[0] in TIERS and room(target) != room(module):
                yield room(module), room(target), f'{path.relative_to(REPOSITORY)}:{line} imports {target}'


def loaded_with(module: str) -> dict[str, str]:
    """Return the modules that importing a module loads, each with the module that asks for it."""
    reached: dict[str, str] = {}
    waiting = [module]
    while waiting:
        current = waiting.pop()
        # Importing a.b.c runs a and a.b first.
        parts = current.split('.')
        parents = ['.'.join(parts[:length]) for length in range(1, len(parts))]
        asked = [entry.target for entry in imports(current) if not entry.late] if current in modules() else []
        for target in (*parents, *asked):
            if target not in reached:
                reached[target] = current
                waiting.append(target)
    return reached


def in_rooms(package: str, rooms: Iterable[str]) -> list[str]:
    return [module for module in modules() if room(module) in {f'{package}.{name}' for name in rooms}]


def test_every_room_has_a_place_in_the_order():
    for package, heights in TIERS.items():
        rooms = {module.split('.')[1] for module in modules() if module.startswith(f'{package}.')}
        assert rooms == set().union(*heights)


def test_rooms_import_lower_rooms_only():
    wrong = []
    for above, below, where in arrows():
        if above.split('.')[0] != below.split('.')[0]:
            allowed = (above.split('.')[0], below.split('.')[0]) == ('stdc_ros', 'stdc_core')
        else:
            allowed = (above, below) in WITHIN_TIER or tier(above) < tier(below)
        if not allowed:
            wrong.append(where)
    assert not wrong, '\n'.join(wrong)


def test_ros_rooms_import_core_rooms_without_torch_only():
    wrong = []
    for above, below, where in arrows():
        if above.startswith('stdc_ros.') and below.startswith('stdc_core.'):
            allowed = WITHOUT_TORCH | ALSO_OPEN.get(above.split('.')[1], set())
            if below.split('.')[1] not in allowed:
                wrong.append(where)
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize(
    'module', [*in_rooms('stdc_core', WITHOUT_TORCH), *(m for m in modules() if m.startswith('stdc_ros'))]
)
def test_no_torch_at_inference_and_in_ros(module):
    direct = {entry.target for entry in imports(module) if entry.target.split('.')[0] in TORCH}
    assert not direct, f'{module} imports {direct}'
    reached = loaded_with(module)
    assert not {f'{name} through {asked}' for name, asked in reached.items() if name.split('.')[0] in TORCH}


def test_no_ros_in_core():
    wrong = [
        f'{module}:{line} imports {target}'
        for module in modules()
        if module.startswith('stdc_core')
        for target, line, _ in imports(module)
        if ROS.fullmatch(target.split('.')[0])
    ]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize(
    'module', [m for m in modules() if m.startswith('stdc_ros') and m.partition('.')[2].split('.')[0] not in WITH_RCLPY]
)
def test_no_rclpy_outside_node_and_playback(module):
    direct = {entry.target for entry in imports(module) if entry.target.split('.')[0] == 'rclpy'}
    assert not direct, f'{module} imports rclpy'
    reached = loaded_with(module)
    assert not {f'{name} through {asked}' for name, asked in reached.items() if name.split('.')[0] == 'rclpy'}


def circles(late: bool) -> list[list[str]]:
    """Return the groups of modules that import each other (Tarjan's strongly connected components).

    Args:
        late: Whether imports inside functions count.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for entry in imports(module):
            if entry.target not in modules() or (entry.late and not late):
                continue
            if entry.target not in index:
                visit(entry.target)
                low[module] = min(low[module], low[entry.target])
            elif entry.target in stack:
                low[module] = min(low[module], index[entry.target])
        if low[module] == index[module]:
            at = stack.index(module)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1 or any(entry.target == module for entry in imports(module)):
                found.append(sorted(group))

    for module in modules():
        if module not in index:
            visit(module)
    return found


@pytest.mark.parametrize(
    'late',
    [False, True],
    ids=['module level', 'inside functions too'],
)
def test_no_import_circle(late):
    assert not circles(late)


def room_docstrings() -> dict[str, str]:
    """Return the docstring of each room that is a folder, in one line."""
    found = {}
    for module, path in modules().items():
        if module.count('.') == 1 and path.name == '__init__.py':
            found[module] = ' '.join((ast.get_docstring(ast.parse(path.read_text())) or '').split())
    return found


@pytest.mark.parametrize('name', room_docstrings())
def test_room_says_what_it_may_import(name):
    """The sentence "May import ..." names at least the rooms that are imported, and only rooms of lower tiers."""
    package = name.split('.')[0]
    docstring = room_docstrings()[name]
    used = {below for above, below, _ in arrows() if above == name}
    if 'Imports nothing else of the package' in docstring:
        assert used <= {below for above, below in WITHIN_TIER if above == name}
        return
    if f'May import every other room of ``{package}``' in docstring:
        assert all(tier(name) < tier(other) for other in used)
        return
    sentence = re.search(r'May import (?:(?!\. |; ).)*', docstring)
    assert sentence, f'{name}: its docstring has no sentence "May import ..."'
    # `io` is stdc_core.io within stdc_core; a room of the other package is written out.
    said = {
        word if word.split('.')[0] in TIERS else f'{package}.{word}'
        for word in re.findall(r'``([\w.]+)``', sentence[0])
    }
    assert used <= said, f'{name}: its docstring leaves out {sorted(used - said)}'
    lower = {f'{other}.{inner}' for other, heights in TIERS.items() for names in heights for inner in names}
    assert said <= lower, f'{name}: its docstring names {sorted(said - lower)}, which are not rooms'
    for other in said:
        assert other.split('.')[0] != package or tier(name) < tier(other), f'{name}: {other} is not below it'
