# SPDX-License-Identifier: Apache-2.0
"""Read YAML files that users wrote: plain values, lists and dictionaries, without features that could be misused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from stdc_core.io.text import one_line

#: Largest size of a file, bytes.
LARGEST = 1_000_000

#: Deepest nesting of lists and dictionaries.
DEEPEST = 20


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file: None, text, numbers, booleans, and lists and dictionaries of these.

    Not accepted are tags that name Python objects, aliases (a few lines of them can stand for billions of values),
    repeated keys and deep nesting.

    Args:
        path: File.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not such a YAML file. The message is one line that names it.
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
    """Return the content of a YAML text, like ``read_yaml``.

    Args:
        text: YAML.
        source: File or option, for errors.

    Raises:
        ValueError: The text is not such YAML.
    """
    try:
        return yaml.load(text, _Loader)
    # PyYAML raises ValueError and OverflowError on impossible dates and numbers.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f'{source}: not YAML ({one_line(error)})') from error


class _Loader(yaml.SafeLoader):
    """Loader that refuses aliases, repeated keys and deep nesting."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node. Raises ComposerError at an alias and at deep nesting."""
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            raise yaml.composer.ComposerError(
                None, None, 'aliases are not supported; write the value', event.start_mark
            )
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f'nested deeper than {DEEPEST}', self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Construct a dictionary. Raises ConstructorError at a repeated key."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f'{key.value!r} occurs twice', key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)
