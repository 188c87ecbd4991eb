# SPDX-License-Identifier: Apache-2.0
"""Write a software bill of materials: .venv-tools/bin/python .ci/sbom.py ENVIRONMENT FILE.json (`make sbom`).

It lists this package, its models, and the packages of requirements-demo.txt and -ros.txt, with versions and licences,
as CycloneDX 1.6.
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
WEIGHTS = HERE.parent / 'stdc_core' / 'weights'

#: Type of a component that is a model, in CycloneDX.
MODEL_TYPE = 'machine-learning-model'

#: SPDX id by the licence name in a ROS package.
SPDX = {'Apache License 2.0': 'Apache-2.0', 'Apache 2.0': 'Apache-2.0', 'zlib License': 'Zlib'}

#: Licence by package, for packages without licence metadata, from their licence files.
UNSAID = {'protobuf': 'BSD-3-Clause', 'ros-fastcdr': 'Apache-2.0', 'ros-fastrtps': 'Apache-2.0', 'setuptools': 'MIT'}


def main(environment: Path, target: Path) -> None:
    """Write the file. Exit with a one-line error if a licence is unknown or the environment has other versions."""
    bill = scan(environment)
    wanted = pinned()
    # Left out: pip, and the second description of themselves that ROS wheels contain.
    parts = [part for part in bill['components'] if key(f'{part["name"]}=={part["version"]}') in wanted]
    missing = wanted - {key(f'{part["name"]}=={part["version"]}') for part in parts}
    if missing:
        sys.exit(f'error: {environment} lacks {sorted(missing)}, expected an environment of Python 3.11 or newer')
    for part in parts:
        part.pop('externalReferences', None)
        part['licenses'] = part.get('licenses') or licences(part['name'], environment)
    kept = {part['bom-ref'] for part in parts}
    links = [
        {**link, 'dependsOn': [ref for ref in link.get('dependsOn', []) if ref in kept]}
        for link in bill['dependencies']
        if link['ref'] in kept
    ]
    package, models = package_and_models()
    needed = {ref for link in links for ref in link['dependsOn']}
    links.append(
        {'ref': package['bom-ref'], 'dependsOn': [*(model['bom-ref'] for model in models), *sorted(kept - needed)]}
    )
    for tool in bill['metadata']['tools']['components']:
        tool.pop('externalReferences', None)
    bill['metadata']['component'] = package
    write({**bill, 'components': [*models, *parts], 'dependencies': links}, target)


def write(bill: dict, target: Path) -> None:
    """Write a bill so that the same content gives the same bytes: keys and lists are sorted, models come first."""
    components = sorted(bill['components'], key=lambda part: (part['type'] != MODEL_TYPE, part['bom-ref']))
    for component in components:
        component['licenses'] = sorted(component['licenses'], key=json.dumps)
    links = [
        {**link, 'dependsOn': sorted(link['dependsOn'])}
        for link in sorted(bill['dependencies'], key=lambda link: link['ref'])
    ]
    content = {**bill, 'components': components, 'dependencies': links}
    target.write_text(json.dumps(content, indent=1, sort_keys=True) + '\n')


def scan(environment: Path) -> dict:
    """Return the bill of an environment by cyclonedx-py, without times and serial numbers."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, 'bom.json')
        command = ['-m', 'cyclonedx_py', 'environment', str(environment / 'bin' / 'python'), '--spec-version', '1.6']
        subprocess.run([sys.executable, *command, '--output-reproducible', '-o', str(found)], check=True)
        return json.loads(found.read_text())


def pinned() -> set[str]:
    """Return the versions in the requirement files in the form of :func:`pin.key`."""
    text = ''.join((HERE / f'requirements-{name}.txt').read_text() for name in ('demo', 'ros'))
    return {key(line) for line in text.splitlines() if re.match(r'\w', line)}


def licences(name: str, environment: Path) -> list[dict]:
    """Return the licences of a package without licence metadata, from UNSAID or its ROS package.xml."""
    folder = name.removeprefix('ros-').replace('-', '_')
    manifest = environment / 'share' / folder / 'package.xml'
    if name in UNSAID or not manifest.is_file():
        said = UNSAID.get(name) or sys.exit(f'error: the licence of {name} is unknown: add it to UNSAID in .ci/sbom.py')
        return [{'license': {'id': said}}]
    texts = [' '.join(element.text.split()) for element in ElementTree.parse(manifest).getroot().iter('license')]
    texts = [SPDX.get(text, text) for text in texts]
    # `BSD` may mean several licences, so it has no SPDX id.
    return [{'license': {'name' if text == 'BSD' else 'id': text}} for text in texts]


def package_and_models() -> tuple[dict, list[dict]]:
    """Return the components of this package and of its models."""
    manifest = ElementTree.parse(HERE.parent / 'package.xml').getroot()
    licence = [{'license': {'id': manifest.findtext('license')}}]
    name, version = manifest.findtext('name'), manifest.findtext('version')
    package = {'bom-ref': name, 'type': 'application', 'name': name, 'version': version, 'licenses': licence}
    models = [
        {
            'bom-ref': path.name,
            'type': MODEL_TYPE,
            'name': path.name,
            'version': version,
            'hashes': [{'alg': 'SHA-256', 'content': hashlib.sha256(path.read_bytes()).hexdigest()}],
            'licenses': licence,
        }
        for path in sorted(WEIGHTS.glob('*.onnx'))
    ]
    return package, models


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit('usage: sbom.py ENVIRONMENT FILE.json')
    main(Path(sys.argv[1]), Path(sys.argv[2]))
