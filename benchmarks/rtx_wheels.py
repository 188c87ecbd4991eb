# SPDX-License-Identifier: Apache-2.0
"""Bring TensorRT for RTX to a machine without a package index, in files of at most 60 MiB.

    python benchmarks/rtx_wheels.py pack parts                        where there is a package index
    python benchmarks/rtx_wheels.py install parts                     there, with this file and the folder

``pack`` downloads wheels of TensorRT for RTX, CUDA's bindings and what the benchmark imports besides PyTorch, and cuts
them into parts with their SHA-256. ``install`` joins them and installs them with pip into the Python that runs it.
It needs the standard library and pip. NVIDIA's licence allows use, not redistribution: do not publish the parts.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

#: Largest size of a part, in bytes.
PART = 60 << 20

#: Name of the file with the SHA-256 of every part.
SUMS = 'sha256'

#: Packages that the benchmark imports, besides torch.
REQUIREMENTS = ('numpy', 'onnx', 'safetensors')

#: NVIDIA's compiler for our kernels, by the version of CUDA.
NVRTC = {'12': 'nvidia-cuda-nvrtc-cu12==12.*', '13': 'nvidia-cuda-nvrtc==13.*'}

# Tags of the Linux wheels that run on glibc 2.28 and later.
_PLATFORMS = ('manylinux_2_28', 'manylinux_2_27', 'manylinux_2_17', 'manylinux2014')


class PartsError(ValueError):
    """Parts that are missing or damaged, or a command that failed. The message says which one."""


def main(arguments: list[str] | None = None) -> int:
    """Pack or install. Returns 0, or 1 after an error."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    commands = parser.add_subparsers(dest='command', required=True)
    packing = commands.add_parser('pack', help='download wheels and cut them into parts')
    packing.add_argument('--cuda', default='13', choices=('12', '13'), help='CUDA of the driver there (default: 13)')
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    packing.add_argument('--python-version', default=version, help=f'Python there (default: {version})')
    packing.add_argument('--machine', default='x86_64', choices=('x86_64', 'aarch64'), help='default: x86_64')
    packing.add_argument('--also', nargs='*', default=list(REQUIREMENTS), help='other packages to bring')
    installing = commands.add_parser('install', help='join the parts and install them without a package index')
    installing.add_argument('--target', type=Path, help='folder to install to, for PYTHONPATH (default: this Python)')
    for each in (packing, installing):
        each.add_argument('folder', type=Path, help='folder of the parts')
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            wheels = Path(folder, 'wheels')
            if options.command == 'pack':
                download(wheels, options.cuda, options.python_version, options.machine, options.also)
                for path in cut(wheels, options.folder):
                    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB')
            else:
                join(options.folder, Path(folder))
                print(f'installed {", ".join(install(wheels, options.target))}')
    except (PartsError, OSError) as error:
        print(f'{Path(__file__).name}: {error}', file=sys.stderr)
        return 1
    return 0


def download(wheels: Path, cuda: str, python_version: str, machine: str, also: list[str]) -> None:
    """Download the wheels of TensorRT for RTX and of other packages.

    Args:
        wheels: Folder for the wheels.
        cuda: Major version of CUDA.
        python_version: Version of Python that they are for, such as ``3.12``.
        machine: ``'x86_64'`` or ``'aarch64'``.
        also: Other packages.

    Raises:
        PartsError: pip failed.
    """
    name = f'tensorrt-rtx-cu{cuda}'
    # The package itself is small and only source: its wheel is built here, and fits every Python 3.
    pip('wheel', '--no-deps', '--wheel-dir', str(wheels), name)
    (wheel,) = wheels.glob('tensorrt_rtx*.whl')
    version = wheel.name.split('-')[1]
    tags = [flag for each in _PLATFORMS for flag in ('--platform', f'{each}_{machine}')]
    kind = ['--only-binary=:all:', '--implementation', 'cp', '--python-version', python_version, *tags]
    parts = [f'{name}-{part}=={version}' for part in ('bindings', 'libs')]
    pip('download', *kind, '--dest', str(wheels), *parts, f'cuda-bindings=={cuda}.*', NVRTC[cuda], *also)


def cut(wheels: Path, folder: Path) -> list[Path]:
    """Cut a folder of wheels into parts of at most ``PART`` bytes, and write their SHA-256. Returns the parts.

    Raises:
        PartsError: The folder for the parts is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise PartsError(f'{folder}: expected an empty folder')
    found: list[Path] = []
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode='w') as tar:  # wheels are compressed already
            tar.add(wheels, 'wheels')
        archive.seek(0)
        while data := archive.read(PART):
            found.append(folder / f'part-{len(found):02}')
            found[-1].write_bytes(data)
    sums = [f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n' for path in found]
    (folder / SUMS).write_text(''.join(sums))
    return found


def join(folder: Path, target: Path) -> None:
    """Check the parts in a folder, and unpack their wheels to ``target / 'wheels'``.

    Raises:
        PartsError: A part is missing or damaged.
        OSError: A file cannot be read or written.
    """
    if not (folder / SUMS).is_file():
        raise PartsError(f'{folder / SUMS}: not found; expected the folder that `pack` wrote')
    with tempfile.TemporaryFile() as archive:
        for line in (folder / SUMS).read_text().splitlines():
            wanted, name = line.split()
            if not (folder / name).is_file():
                raise PartsError(f'{folder / name}: not found; copy every part')
            data = (folder / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != wanted:
                raise PartsError(f'{folder / name}: {len(data)} bytes, not those of its SHA-256; copy it again')
            archive.write(data)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            for member in tar.getmembers():
                if not member.isfile():
                    continue
                (target / 'wheels').mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None  # it is a file
                (target / 'wheels' / Path(member.name).name).write_bytes(content.read())


def install(wheels: Path, target: Path | None) -> list[str]:
    """Install wheels without a package index. Returns their names.

    What is installed already is kept if it fits: the PyTorch of the machine needs its own numpy.

    Args:
        wheels: Folder of wheels.
        target: Folder to install to; None takes the Python that runs this.

    Raises:
        PartsError: pip failed.
    """
    names = sorted({path.name.split('-')[0] for path in wheels.glob('*.whl')})
    where = [] if target is None else ['--target', str(target)]
    pip('install', '--no-index', '--find-links', str(wheels), *where, *names)
    return names


def pip(*arguments: str) -> None:
    """Run pip. Raises PartsError with the last line that it said."""
    done = subprocess.run([sys.executable, '-m', 'pip', *arguments], capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith('ERROR')] or done.stderr.splitlines()
        raise PartsError(f'pip {arguments[0]} failed: {" ".join(said[-1:])}')


if __name__ == '__main__':
    sys.exit(main())
