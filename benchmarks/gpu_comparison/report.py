# SPDX-License-Identifier: Apache-2.0
"""Print what the GPU benchmark measured as the tables of docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

from gpu_comparison.plan import ENGINES, NETWORKS
from gpu_comparison.targets import faster_than_pytorch, targets


def report(numbers: dict[str, Any]) -> None:
    """Print origin, tables, targets, and what is missing and why."""
    print_origin(numbers)
    for title in dict.fromkeys(row['group'] for row in numbers['rows']):
        print_group(numbers, title)
    print_first_masks(numbers)
    print_targets(numbers)
    for kind, text in (('missing', 'does not run here'), ('impossible', ''), ('failed', 'failed')):
        for label, reason in numbers[kind].items():
            print(': '.join(filter(None, [label, text, reason])))


def print_origin(numbers: dict[str, Any]) -> None:
    """Print date, command, driver, libraries and images."""
    if numbers['dry']:
        print('\nDRY RUN on the CPU with small images: these numbers say nothing about a GPU')
    print(f'\n{numbers["date"]}: {numbers["command"]}')
    known = [f'{name} {numbers[key]}' for name, key in (('driver', 'driver'), ('CUDA', 'cuda')) if key in numbers]
    print('; '.join([*known, *(f'{found["on"]} on {found["device"]}' for found in numbers['libraries'].values())]))
    height, width = numbers['frame_size']
    checked_height, checked_width = numbers['size']
    kind = f'val images of {numbers["data"]}' if numbers['data'] else 'rendered images'
    print(f'image {height} x {width}; medians of {numbers["runs"]} runs in turns; masks of {numbers["images"]} {kind}')
    print(f'of {checked_height} x {checked_width} compared with {numbers["expected_by"]}')


def print_group(numbers: dict[str, Any], title: str) -> None:
    """Print the table of a group. Columns without a number are left out."""
    rows = [row for row in numbers['rows'] if row['group'] == title]
    network = NETWORKS.get(title)
    paper = f' (the paper on a GTX 1080 Ti: {1e3 / network.paper_fps:.2f} ms)' if network else ''
    columns = {
        'device ms': lambda row: _number(row.get('device_ms')),
        'host to host ms': lambda row: _number(row.get('host_ms')),
        'x eager float32': lambda row: _number(_faster(numbers, row)[0], 1),
        'x best of PyTorch': lambda row: _number(_faster(numbers, row)[1], 1),
        'equal labels %': lambda row: _number(row.get('equal')),
        'mIoU %': lambda row: _number(row.get('miou'), 2),
        'mIoU of float32 %': lambda row: _number(row.get('miou_expected'), 2),
        'without graph ms': lambda row: _number(row.get('no_graph_ms')),
        'with confidence ms': lambda row: _number(row.get('confidence_ms')),
        'overlay ms': lambda row: _number(row.get('overlay_ms')),
        'images/s': lambda row: _number(1e3 * row['batch'] / row['host_ms'], 0) if row['batch'] > 1 else '',
        'build or read s': lambda row: _number(row.get('engine_s'), 1),
        'memory MB': lambda row: _number(row.get('memory_mb'), 0),
    }
    used = {name: show for name, show in columns.items() if any(map(show, rows))}
    print(f'\n{title}{paper}\n\n| what computes | {" | ".join(used)} |')
    print(f'|---{"|---" * len(used)}|')
    for row in rows:
        print(f'| {_name(row)} | {" | ".join(show(row) for show in used.values())} |')


def print_first_masks(numbers: dict[str, Any]) -> None:
    """Print the seconds from the start of a process to its first mask."""
    found = numbers.get('first_mask', {})
    if found:
        print('\n| first mask of a process | empty cache, s | full cache, s |\n|---|---|---|')
        for library, seconds in found.items():
            print(f'| {library} | {_number(seconds.get("empty"), 1)} | {_number(seconds.get("full"), 1)} |')


def print_targets(numbers: dict[str, Any]) -> None:
    """Print what was to be reached, and whether it was, for each library of engines."""
    by_library = [targets(numbers, library) for library in ENGINES]
    print(f'\n| target, for an H200 | goal (accepted first) | {" | ".join(ENGINES)} |\n|---|---|---|---|')
    for both in zip(*by_library, strict=True):
        first = both[0]
        goal = f'{"at least" if first.at_least else "at most"} {first.goal:g}'
        goal += f' ({first.accepted:g})' if first.accepted != first.goal else ''
        found = [f'{_number(each.value)} {each.verdict}'.strip() for each in both]
        print(f'| {first.what} | {goal} | {" | ".join(found)} |')
    print()


def _faster(numbers: dict[str, Any], row: dict[str, Any]) -> tuple[float | None, float | None]:
    if row['group'] not in NETWORKS:
        return None, None
    return faster_than_pytorch(numbers['rows'], row['group'], row['model'], row.get('device_ms'))


def _name(row: dict[str, Any]) -> str:
    one = '' if row['kernels'] else ', all in the engine'
    batch = f', batch {row["batch"]}' if row['batch'] > 1 else ''
    model = '' if row['model'] in row['group'] else f'{row["model"]}, '
    return f'{model}{row["library"]} {row["precision"]}{one}{batch}'


def _number(value: float | None, digits: int = 3) -> str:
    return '' if value is None else f'{value:.{digits}f}'
