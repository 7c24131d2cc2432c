"""Reads YAML as its standard means it, which PyYAML does not."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


class _GivenTwiceError(ValueError):
    """A name occurs twice among its like; says in which line."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # has no types
    """Reads plain YAML, and refuses what YAML itself forbids: of two equal names, PyYAML drops the first."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Called by PyYAML for each mapping."""
        node = super().compose_mapping_node(anchor)
        names = set[str]()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode):
                if name.value in names:
                    line = name.start_mark.line + 1
                    raise _GivenTwiceError(f"line {line}: {name.value} is given twice; remove one of the two")
                names.add(name.value)
        return node


_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)",
        "-+.0123456789",
    ),
}
"""Patterns of YAML 1.2, and with what they begin; those of 1.1 also take `yes`, 1:30, 1_8 and 010 for something."""

_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0].rpartition(":")[2] not in _SCALARS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))


def parse_yaml(text: str) -> Any:
    """Returns what a text says; raises as PyYAML does, and ValueError for a name that is given twice."""
    return yaml.load(text, _Loader)  # noqa: S506 - it is safe


def read_yaml(file: str) -> Mapping[str, Any]:
    """Reads a file of options.

    Raises:
        ValueError: it cannot be read, is not YAML, gives a name twice, or has no options.
    """
    try:
        values = parse_yaml(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config: cannot read {file}: {error.strerror}") from error
    except _GivenTwiceError as error:
        raise ValueError(f"{file} {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, a date such as 2020-99-99, too many digits
        raise ValueError(f"{file}: is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ValueError(f"{file}: is nested too deeply; write options as `name: value`") from error
    if not values or not isinstance(values, dict):
        raise ValueError(f"{file}: has no options; write one per line, as `name: value`")
    return values
