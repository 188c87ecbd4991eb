# SPDX-License-Identifier: Apache-2.0
"""Make a virtual environment, once: python3 .ci/environment.py FOLDER REQUIREMENTS...

The environment is made again when the requirement files, the interpreter or the ROS 2 environment have changed.
This file uses the standard library only, because it runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: Name of a sourced ROS 2, or None. It has its own rclpy, messages and cv_bridge, compiled against its own numpy.
ROS = os.environ.get('ROS_DISTRO')

#: Whether to install the pinned versions with hashes. They do not exist for Python 3.10, and ROS 2 has its own
#: versions.
EXACT = not ROS and sys.version_info >= (3, 11)

#: Limits if versions are not pinned: setuptools and pytest for colcon, OpenCV for cv_bridge.
LIMITS = ['opencv-python-headless<5', 'setuptools<80', 'pytest<9']

#: Install without compiling: pip uses one core for it. All files are compiled on all cores at the end.
INSTALL = ['-m', 'pip', 'install', '--no-compile']


def main(folder: Path, files: list[Path]) -> None:
    """Make the environment unless it exists. Exit with a one-line error if that fails."""
    if ROS:
        files = [file for file in files if file.name != 'requirements-ros.txt']
    wanted = hashlib.sha256(
        '\n'.join([sys.version, str(ROS), *(file.read_text() for file in (Path(__file__), *files))]).encode()
    ).hexdigest()
    stamp = folder / 'made-for'
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f'Setting up {folder.name} (once)', flush=True)
    need_venv()
    shutil.rmtree(folder, ignore_errors=True)
    site = ['--system-site-packages'] if ROS else []
    if subprocess.run([sys.executable, '-m', 'venv', *site, str(folder)]).returncode:
        sys.exit(f'error: {sys.executable} -m venv {folder} failed, see above')
    install(folder / 'bin' / 'python', requirements(files))
    stamp.write_text(wanted)


def need_venv() -> None:
    """Install the Debian package that `venv` needs. Without root, exit with the command to run."""
    try:
        from ensurepip import version  # noqa: F401

        return
    except ImportError:
        pass
    package = f'python3.{sys.version_info.minor}-venv'
    command = f'apt-get update && apt-get install -y {package}'
    if os.geteuid() or not shutil.which('apt-get'):
        sys.exit(f'error: `python3 -m venv` needs the package {package}:\n  sudo sh -c "{command}"')
    print(f'  {command}', flush=True)
    run = subprocess.run(['sh', '-c', f'({command}) 2>&1'], stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f'{run.stdout[-3000:]}\nerror: {package} could not be installed')


def requirements(files: list[Path]) -> list[str]:
    """Return the entries of the files: versions with hashes or, if versions are not pinned, names only."""
    text = ''.join(file.read_text() for file in files).replace('\\\n', ' ')
    lines = [line for line in text.splitlines() if line and not line.startswith('#')]
    if EXACT:
        return lines
    lines = [line.split('--hash=')[0].strip() for line in lines]
    # torch stays pinned: a newer one would install gigabytes of CUDA.
    return [line if line.startswith(('torch==', 'ros-')) else re.sub('==[^;]*', '', line) for line in lines]


def limits() -> list[str]:
    """Return the constraints if versions are not pinned, including the numpy that ROS 2 was compiled for."""
    command = [sys.executable, '-c', 'import numpy; print(numpy.__version__)']
    found = subprocess.run(command, capture_output=True, text=True).stdout.strip() if ROS else ''
    return [*LIMITS, f'numpy>={found},<{int(found.split(".")[0]) + 1}'] if found else LIMITS


def install(python: Path, lines: list[str]) -> None:
    """Install the requirements with pip and show the progress."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, held = Path(folder, 'requirements.txt'), Path(folder, 'constraints.txt')
        wanted.write_text('\n'.join(lines))
        held.write_text('\n'.join([] if EXACT else limits()))
        if EXACT:
            install_exactly(python, wanted, lines)
        else:
            pip(python, ['-r', str(wanted), '-c', str(held)], len(lines))
    # Files that are not valid Python, such as templates, are skipped, as pip does.
    compiling = [str(python), '-m', 'compileall', '-q', '-j', '0', str(python.parent.parent / 'lib')]
    subprocess.run(compiling, stdout=subprocess.DEVNULL)
    show(len(lines), len(lines), 'done', end=True)


def install_exactly(python: Path, wanted: Path, lines: list[str]) -> None:
    """Install only files with the listed hashes, and check that none is missing."""
    hashed = ['--require-hashes', '--no-deps', '-r']
    torch = [line for line in lines if line.startswith('torch==')]
    if torch:
        # A local build (PIP_FIND_LINKS) first. With hashes, pip would otherwise prefer the index's build with CUDA.
        alone = wanted.with_name('torch.txt')
        alone.write_text(torch[0])
        subprocess.run([str(python), *INSTALL, '--no-index', *hashed, str(alone)], capture_output=True)
    pip(python, [*hashed, str(wanted)], len(lines))
    if torch:
        # The CUDA packages that torch from PyPI needs on Linux are not listed, so only they are installed without
        # hashes.
        pip(python, [torch[0].split()[0]], len(lines))
    check = subprocess.run([str(python), '-m', 'pip', 'check'], stdout=subprocess.PIPE, text=True)
    if check.returncode:
        sys.exit(f'{check.stdout}error: the versions in .ci/requirements-*.txt are incompatible')


def pip(python: Path, arguments: list[str], total: int) -> None:
    """Run ``pip install``. Exit with the end of its output if it fails."""
    command = [str(python), *INSTALL, '--progress-bar', 'off', *arguments]
    environment = {**os.environ, 'PIP_DISABLE_PIP_VERSION_CHECK': '1', 'PYTHONUNBUFFERED': '1'}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    output, count = [], 0
    for line in process.stdout:
        output.append(line)
        if line.startswith('Collecting '):
            count += 1
            show(min(count, total), total, line.split()[1])
        elif line.startswith('Installing collected packages'):
            show(total, total, 'unpacking ...')
    if process.wait():
        sys.exit(f'\n{"".join(output[-30:])}\nerror: pip could not install the packages of {python.parent.parent.name}')


def show(done: int, total: int, what: str, end: bool = False) -> None:
    """Show progress: a bar on a terminal, else a line for every tenth."""
    if sys.stdout.isatty():
        bar = '#' * (30 * done // total)
        print(f'\r  installing [{bar:<30}] {done}/{total} {what[:40]:<40}', end='\n' if end else '', flush=True)
    elif end or what.endswith('...') or done * 10 // total > (done - 1) * 10 // total:
        print(f'  installing {done}/{total} {what}', flush=True)


if __name__ == '__main__':
    if len(sys.argv) < 3:
        sys.exit('usage: python3 .ci/environment.py FOLDER REQUIREMENTS...')
    main(Path(sys.argv[1]), [HERE / name for name in sys.argv[2:]])
