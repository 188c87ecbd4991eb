# SPDX-License-Identifier: Apache-2.0
"""Write the hashes of all files of each version into requirement files: .venv-tools/bin/python .ci/pin.py FILES...

`make pins` runs it on all files of .ci/. After you change a version by hand, it asks the package index for the hashes.
It downloads no packages and changes only the hashes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

#: Hashes of files that are not on PyPI: torch 2.13.0+cpu for Python 3.11 on Linux x86-64, a tenth of the size with
#: CUDA.
EXTRA = {'torch==2.13.0': ['sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b']}


def main(files: list[Path]) -> None:
    """Rewrite the files. Exit before changing a file if a version in it is not in the index."""
    for file in files:
        lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith('--hash=')]
        lines = [line.removesuffix('\\').rstrip() for line in lines]
        pins = [line for line in lines if line and not line.startswith('#')]
        found = ask(pins)
        text = ''
        for line in lines:
            hashes = sorted({*found[key(line)], *EXTRA.get(line, [])}) if line in pins else []
            text += ''.join(f'{part} \\\n' for part in [line, *(f'    --hash={value}' for value in hashes)])
            text = text[:-3] + '\n'
        file.write_text(text)


def ask(pins: list[str]) -> dict[str, list[str]]:
    """Return the hashes by :func:`key`. Uses uv: pip only finds the files for this machine."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, 'requirements.in')
        wanted.write_text('\n'.join(pins))
        command = ['-m', 'uv', 'pip', 'compile', '--quiet', '--no-deps', '--universal', '--python-version', '3.11']
        command += ['--generate-hashes', '--no-annotate', '--no-header', str(wanted)]
        run = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f'error: uv found no hashes for {wanted.name}, see above')
    entries = re.split(r'\n(?=\S)', run.stdout.strip())
    return {key(entry): re.findall(r'--hash=(\S+)', entry) for entry in entries}


def key(line: str) -> str:
    """Return the normalised name and version, such as ``ros-rclpy==7.1.6``, of a line with extras and markers."""
    name, version = re.match(r'([\w.-]+)(?:\[.*?\])?==([^\s;\\]+)', line).groups()
    return f'{re.sub("[-_.]+", "-", name).lower()}=={version}'


if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit('usage: pin.py FILES...')
    main([Path(name) for name in sys.argv[1:]])
