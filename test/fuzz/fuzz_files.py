# SPDX-License-Identifier: Apache-2.0
"""Load damaged and hostile files, and check that each loads or is refused in one line that names it.

    PYTHONPATH=. python test/fuzz/fuzz_files.py --kind bag --count 2000 --seed 1

Case i of a kind and a seed is the same on every machine. Cases run in a child process with limits on memory and time. A
case that is neither loaded nor refused as documented is a finding: another exception, a message of several lines or
without the file's name, a crash or a time-out. Findings are printed, kept with --keep, and make the exit status 1.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

# For helpers of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz_changes import STRUCTURE
from fuzz_seeds import KINDS, Kind

#: Limits on loading a file: additional address space in bytes, and time in seconds.
MEMORY = 3 << 30
SECONDS = 30


class Outcome(NamedTuple):
    """Result of a case. ``finding`` is '' if the file was loaded or refused as documented."""

    loaded: bool
    message: str
    finding: str


def mutate_bytes(data: bytearray, draw: random.Random, dense: tuple[int, int]) -> None:
    """Flip, cut, insert, repeat or overwrite bytes in place, mostly in the first and last bytes given by ``dense``."""
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            return
        head, tail = min(dense[0], len(data)), min(dense[1], len(data))
        at = draw.choice((draw.randrange(len(data)), draw.randrange(head), len(data) - 1 - draw.randrange(tail)))
        size = draw.choice((1, 2, 4, 8, 64, 1024))
        how = draw.randrange(7)
        if how == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            del data[at : at + size]
        elif how == 2:
            data[at:at] = draw.randbytes(size)
        elif how == 3:
            data[at:at] = data[at : at + size]
        elif how == 4:  # as lengths, offsets and counts
            number = draw.choice(
                (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, len(data))
            )
            width = draw.choice('BHIQ')
            packed = struct.pack(f'<{width}', number & (256 ** struct.calcsize(width) - 1))
            data[at : at + len(packed)] = packed
        elif how == 5 and draw.random() < 0.3:
            del data[at:]
        else:
            other = draw.randrange(len(data))
            data[at : at + size] = data[other : other + size]


def make_case(kind: Kind, seeds: list[Path], number: str, folder: Path) -> Path:
    """Write a mutated copy of a valid file to ``folder``, after emptying the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    draw = random.Random(number)
    seed = draw.choice(seeds)
    path = folder / seed.name
    (shutil.copytree if seed.is_dir() else shutil.copy)(seed, path)
    structural = [change for change, suffixes in STRUCTURE[kind.name].items() if path.suffix in suffixes]
    if structural and draw.random() < 0.4:
        draw.choice(structural)(path, draw)
        return path
    file = draw.choice(sorted(path.iterdir())) if path.is_dir() else path
    data = bytearray(file.read_bytes())
    mutate_bytes(data, draw, kind.dense)
    file.write_bytes(data)
    return path


def try_case(kind: Kind, path: Path) -> Outcome:
    """Load a file as a user's program would."""
    try:
        kind.load(path)
    except kind.refusals as error:
        text = str(error)
        if path.name not in text:
            return Outcome(False, text, 'the message does not name the file')
        if len(text.splitlines()) != 1 or not text.isprintable() or len(text) > 3000:
            return Outcome(False, text, 'the message is not one printable line')
        return Outcome(False, text, '')
    except Exception as error:
        return Outcome(False, f'{type(error).__name__}: {error}', f'{type(error).__name__} is not documented')
    return Outcome(True, '', '')


def work(pipe, name: str, seeds: list[Path], numbers: list[str], folder: Path) -> None:
    """Run cases in the child process. Report each case when it begins and when it ends."""
    kind = KINDS[name]
    for seed in seeds:  # loads the imports before memory is limited
        kind.load(seed)
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        path = make_case(kind, seeds, number, folder)
        pipe.send(number)
        pipe.send(try_case(kind, path))
    pipe.send(None)


def run(name: str, seeds: list[Path], numbers: list[str], case: Path, report: Callable[[str, Outcome], None]) -> None:
    """Try every case in the folder ``case``, with a new child process after each crash or time-out."""
    context = get_context('spawn')
    while numbers:
        pipe, theirs = context.Pipe()
        child = context.Process(target=work, args=(theirs, name, seeds, numbers, case), daemon=True)
        child.start()
        theirs.close()
        begun, how = '', ''
        try:
            while True:
                if not pipe.poll(SECONDS if begun else 300):
                    how = f'took longer than {SECONDS} s'
                    break
                event = pipe.recv()
                if event is None:
                    child.join()
                    return
                if isinstance(event, str):
                    begun = event
                else:
                    report(begun, event)
                    numbers = numbers[numbers.index(begun) + 1 :]
                    begun = ''
        except EOFError:
            child.join()
            code = child.exitcode
            how = f'ended by {signal.Signals(-code).name}' if code < 0 else f'ended with {code}'
        child.kill()
        child.join()
        if not begun:
            raise SystemExit(f'{name}: the child process {how} outside a case')
        report(begun, Outcome(False, '', how))
        numbers = numbers[numbers.index(begun) + 1 :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kind', nargs='+', choices=KINDS, default=list(KINDS))
    parser.add_argument('--count', type=int, default=1000, help='cases of each kind')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0, help='number of the first case')
    parser.add_argument('--keep', type=Path, help='folder for the files of findings')
    parser.add_argument('--show', action='store_true', help='print the message of every refusal')
    given = parser.parse_args()
    print('| kind | mutated | loaded | refused | findings | seconds |\n|---|---|---|---|---|---|')
    findings = [fuzz(name, given) for name in given.kind]
    return int(any(findings))


def fuzz(name: str, given: argparse.Namespace) -> int:
    """Try all cases of a kind, print a row of the table, and return the number of findings."""
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        seeds = KINDS[name].make_seeds(folder / 'good')

        def report(number: str, outcome: Outcome) -> None:
            counts['loaded' if outcome.loaded else 'findings' if outcome.finding else 'refused'] += 1
            if outcome.finding or (given.show and outcome.message):
                shown = outcome.message.encode('unicode_escape').decode()[:400]
                print(f'{number}: {outcome.finding or "refused"}: {shown}', file=sys.stderr, flush=True)
            if outcome.finding and given.keep:
                path = make_case(KINDS[name], seeds, number, folder / 'kept')
                shutil.move(path, given.keep / f'{number.replace(":", "_")}_{path.name}')

        numbers = [f'{name}:{given.seed}:{index}' for index in range(given.first, given.first + given.count)]
        run(name, seeds, numbers, folder / 'case', report)
    row = [given.count, counts['loaded'], counts['refused'], counts['findings'], round(time.monotonic() - begin)]
    print(f'| {name} | {" | ".join(map(str, row))} |', flush=True)
    return counts['findings']


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    sys.exit(main())
