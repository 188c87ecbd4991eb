# SPDX-License-Identifier: Apache-2.0
"""YAML of people: plain values, lists and dictionaries. What makes a small file a large or a strange one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from stdc_core.io.text import one_line

#: Largest file, bytes.
LARGEST = 1_000_000

#: Deepest nesting of lists and dictionaries.
DEEPEST = 20


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds: None, text, numbers, booleans, and lists and dictionaries of these.

    Tags that name Python objects, aliases (a few lines of them stand for billions of values), a key twice and deep
    nesting are refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file; one line that names it.
    """
    path = Path(path)
    if path.stat().st_size > LARGEST:
        raise ValueError(f'{path}: has {path.stat().st_size} bytes, expected at most {LARGEST}')
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: not YAML, not even text ({error})') from error
    return parse_yaml(text, path)


def parse_yaml(text: str, source: str | Path) -> Any:
    """The same of text.

    Args:
        source: what an error names.

    Raises:
        ValueError: as ``read_yaml``.
    """
    try:
        return yaml.load(text, _Loader)
    # Besides its own, PyYAML raises ValueError and OverflowError on dates and numbers that are none.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f'{source}: not YAML ({one_line(error)})') from error


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            raise yaml.composer.ComposerError(None, None, 'aliases are not read; write the value', event.start_mark)
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f'nested deeper than {DEEPEST}', self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f'{key.value!r} twice', key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)
