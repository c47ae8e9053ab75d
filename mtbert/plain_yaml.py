"""YAML as this project's files are read: plain data, in which a name is given once."""

from __future__ import annotations

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice; expected it once", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(text: str) -> Any:
    """As `yaml.safe_load`, which would keep the last of two values for one name.

    Raises:
        yaml.YAMLError: the text is no YAML, or gives a name twice in one mapping.
    """
    return yaml.load(text, _Loader)
