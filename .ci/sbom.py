# SPDX-License-Identifier: Apache-2.0
"""Write a software bill of materials: .venv-tools/bin/python .ci/sbom.py ENVIRONMENT FILE.json; `make sbom` does it.

CycloneDX 1.6: this package, its model, and what requirements-demo.txt and -ros.txt bring, with versions and licences.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from pin import key

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / 'stdc_core' / 'weights' / 'stdc1_camvid.onnx'

#: SPDX ids of what ROS packages say; of packages whose metadata say nothing, what their licence files are.
SPDX = {'Apache License 2.0': 'Apache-2.0', 'Apache 2.0': 'Apache-2.0', 'zlib License': 'Zlib'}
UNSAID = {'protobuf': 'BSD-3-Clause', 'ros-fastcdr': 'Apache-2.0', 'ros-fastrtps': 'Apache-2.0', 'setuptools': 'MIT'}


def main(environment: Path, target: Path) -> None:
    """Write the file. Exit with a one-line error if a licence is unknown or the environment has other versions."""
    bill = scan(environment)
    wanted = pinned()
    # ROS wheels hold a second description of themselves, and the interpreter brought pip.
    parts = [part for part in bill['components'] if key(f'{part["name"]}=={part["version"]}') in wanted]
    missing = wanted - {key(f'{part["name"]}=={part["version"]}') for part in parts}
    if missing:
        sys.exit(f'error: {environment} is not of these versions (it is with Python 3.11 or newer): {sorted(missing)}')
    for part in parts:
        part.pop('externalReferences', None)
        part['licenses'] = part.get('licenses') or licences(part['name'], environment)
    kept = {part['bom-ref'] for part in parts}
    links = [
        {**link, 'dependsOn': [ref for ref in link.get('dependsOn', []) if ref in kept]}
        for link in bill['dependencies']
        if link['ref'] in kept
    ]
    package, model = package_and_model()
    needed = {ref for link in links for ref in link['dependsOn']}
    links.append({'ref': package['bom-ref'], 'dependsOn': [model['bom-ref'], *sorted(kept - needed)]})
    for tool in bill['metadata']['tools']['components']:
        tool.pop('externalReferences', None)
    bill['metadata']['component'] = package
    target.write_text(json.dumps({**bill, 'components': [model, *parts], 'dependencies': links}, indent=1) + '\n')


def scan(environment: Path) -> dict:
    """Return what cyclonedx-py finds in an environment; without times and serial numbers, so that runs agree."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, 'bom.json')
        command = ['-m', 'cyclonedx_py', 'environment', str(environment / 'bin' / 'python'), '--spec-version', '1.6']
        subprocess.run([sys.executable, *command, '--output-reproducible', '-o', str(found)], check=True)
        return json.loads(found.read_text())


def pinned() -> set[str]:
    """Return the versions in the requirement files, by :func:`pin.key`."""
    text = ''.join((HERE / f'requirements-{name}.txt').read_text() for name in ('demo', 'ros'))
    return {key(line) for line in text.splitlines() if re.match(r'\w', line)}


def licences(name: str, environment: Path) -> list[dict]:
    """Return the licences of a package without licence metadata, from the package.xml that ROS packages install."""
    folder = name.removeprefix('ros-').replace('-', '_')
    manifest = environment / 'share' / folder / 'package.xml'
    if name in UNSAID or not manifest.is_file():
        said = UNSAID.get(name) or sys.exit(f'error: the licence of {name} is unknown: add it to UNSAID in .ci/sbom.py')
        return [{'license': {'id': said}}]
    texts = [' '.join(element.text.split()) for element in ElementTree.parse(manifest).getroot().iter('license')]
    texts = [SPDX.get(text, text) for text in texts]
    # `BSD` says not which of them.
    return [{'license': {'name' if text == 'BSD' else 'id': text}} for text in texts]


def package_and_model() -> tuple[dict, dict]:
    """Return the components of this package and of its model."""
    manifest = ElementTree.parse(HERE.parent / 'package.xml').getroot()
    licence = [{'license': {'id': manifest.findtext('license')}}]
    name, version = manifest.findtext('name'), manifest.findtext('version')
    package = {'bom-ref': name, 'type': 'application', 'name': name, 'version': version, 'licenses': licence}
    model = {
        'bom-ref': MODEL.name,
        'type': 'machine-learning-model',
        'name': MODEL.name,
        'version': version,
        'hashes': [{'alg': 'SHA-256', 'content': hashlib.sha256(MODEL.read_bytes()).hexdigest()}],
        'licenses': licence,
    }
    return package, model


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit('usage: sbom.py ENVIRONMENT FILE.json')
    main(Path(sys.argv[1]), Path(sys.argv[2]))
