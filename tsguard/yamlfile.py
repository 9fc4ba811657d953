"""The only reader of YAML: plain data with the line of every key, environment references kept as references.

No tag builds an object, a key given twice is a mistake, and `${NAME}` is looked up when it is used, so that the
resolved configuration can be saved and shown without the value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tsguard.errors import ConfigError, explain

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


@dataclass
class Document:
    """The tree of a file, and the line on which each dotted key stands."""

    tree: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    place: str = "run.yaml"

    def at(self, key: str) -> str:
        """'run.yaml:12' for a key, or the file alone where the key came from elsewhere."""
        return f"{self.place}:{self.lines[key]}" if key in self.lines else self.place


def read_yaml(path: str | Path) -> Document:
    """Read a file; every way in which it can be unreadable is one clear ConfigError."""
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            explain(
                str(place),
                received="a path that does not exist",
                expected="a YAML file",
                todo="Check the path; `tsguard init` writes a run.yaml to start from.",
            )
        ) from None
    except (OSError, UnicodeDecodeError) as refused:
        reason = getattr(refused, "strerror", None) or str(refused)
        raise ConfigError(
            explain(
                str(place),
                received=reason,
                expected="a readable YAML file in UTF-8",
                todo="Check path and permissions.",
            )
        ) from None
    return parse_yaml(text, place=str(place))


def parse_yaml(text: str, *, place: str = "run.yaml") -> Document:
    """Parse text as one mapping of plain data."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as broken:
        mark = getattr(broken, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(broken, "problem", None) or str(broken)
        raise ConfigError(
            explain(
                f"{place}{line}", received=f"text that is not YAML: {problem}", expected="YAML", todo="Mend that line."
            )
        ) from None
    if node is None:
        raise ConfigError(
            explain(
                place, received="an empty file", expected="a mapping of settings", todo="`tsguard init` writes one."
            )
        )
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        raise ConfigError(
            explain(
                place,
                received=kind,
                expected="a mapping of settings (name: …, model: …)",
                todo="Remove the leading dashes.",
            )
        )
    document = Document({}, place=place)
    document.tree = _build(node, "", document)
    return document


def _build(node: yaml.Node, path: str, document: Document) -> Any:
    if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
        raise ConfigError(
            explain(
                f"{document.place}:{node.start_mark.line + 1}",
                received=f"the tag {node.tag!r} at {path}",
                expected="plain values; nothing in a configuration is executed",
                todo="Remove the tag; import paths are written as `use: package.module:function`.",
            )
        )
    if isinstance(node, yaml.MappingNode):
        tree: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            dotted = f"{path}.{key}" if path else key
            line = key_node.start_mark.line + 1
            if key in tree:
                raise ConfigError(
                    explain(
                        f"{document.place}:{line}",
                        received=f"the key {dotted!r} a second time (first on line {document.lines[dotted]})",
                        expected="every key once",
                        todo="Remove one of the two.",
                    )
                )
            document.lines[dotted] = line
            tree[key] = _build(value_node, dotted, document)
        return tree
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, f"{path}[{index}]", document) for index, item in enumerate(node.value)]
    loader = yaml.SafeLoader("")
    return loader.construct_object(node)


def looked_up(value: Any, *, place: str, environment: Mapping[str, str] | None = None) -> Any:
    """The value with every `${NAME}` or `${NAME:-default}` replaced from the environment."""
    environment = os.environ if environment is None else environment
    if isinstance(value, Mapping):
        return {key: looked_up(item, place=f"{place}.{key}", environment=environment) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [looked_up(item, place=place, environment=environment) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if name in environment:
            return environment[name]
        if default is not None:
            return default
        raise ConfigError(
            explain(
                place,
                received=f"a reference to ${{{name}}}, which is not set",
                expected="an environment variable of that name",
                todo=f"export {name}=… before the command, or write ${{{name}:-default}}.",
            )
        )

    text = _REFERENCE.sub(replace, value)
    # A reference that is the whole value takes the type that YAML would give its text: ${EPOCHS} is a number.
    return yaml.safe_load(text) if _REFERENCE.fullmatch(value) and text else text


def has_reference(value: Any) -> bool:
    """Whether a value holds a `${…}` anywhere."""
    if isinstance(value, Mapping):
        return any(has_reference(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(has_reference(item) for item in value)
    return isinstance(value, str) and _REFERENCE.search(value) is not None


def write_yaml(tree: Mapping[str, Any]) -> str:
    """Plain data as YAML text, in the order given."""
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)
