"""Every key of a study's YAML, as the schema has it: a page of the documentation, and a JSON schema for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema

from rssearch.config.schema import StudyConfig

__all__ = ["SCHEMA_FILE", "Node", "json_schema", "page", "schema_text", "sections"]

Node = Mapping[str, Any]

SCHEMA_FILE = Path(__file__).parents[1] / "search_spaces" / "study.schema.json"  # beside the shipped spaces

_DRAFT = "http://json-schema.org/draft-07/schema#"  # what editors know; nothing of a later one is used
# Pydantic leaves the limits of values that a function has looked at as it found them.
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_TYPES = {"boolean": "true or false", "string": "text", "object": "mapping", "null": "`null`"}
_ANY = "NAME"  # stands for a key that a study chooses, such as that of a constraint

_HEAD = """# The YAML, key by key

<!-- Written by `python docs/keys.py` from the schema; change rssearch/config/{schema,settings}.py instead. -->

Every key that the YAML of a [study](studies.md) may have. `study`, `trial` and `space` are required; of all others the
default is used where they are left out; `rssearch plan SPACE --verbose` prints them with those of a study. A setting
can also be a dimension of the space by its dotted name, such as `finetune.lr: [0.01, 0.02]`. Which other dimensions
there are depends on the trial: [studies](studies.md#the-space) lists those of the shipped ones.

**Editors** that know the YAML language server (Visual Studio Code with Red Hat's YAML extension, Neovim, Emacs)
complete and check these keys by a [JSON schema](../search_spaces/study.schema.json), which is installed beside the
shipped studies. A line of the YAML names it, as in those studies and in what `rssearch init` writes:

```yaml
# yaml-language-server: $schema=/PATH/TO/rssearch/search_spaces/study.schema.json
```

What the schema refuses, rssearch refuses. rssearch checks more: whether names exist, and values that depend on one
another.
"""


class _Plain(GenerateJsonSchema):
    """Without titles, which would repeat the names of the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def json_schema() -> dict[str, Any]:
    """The schema of a study's YAML as JSON Schema."""
    found = StudyConfig.model_json_schema(schema_generator=_Plain)
    plain: dict[str, Any] = json.loads(json.dumps(found), object_hook=_tidy)
    return {"$schema": _DRAFT, "title": "rssearch study", **plain}


def schema_text() -> str:
    """The same as the text of the file that is shipped."""
    return json.dumps(json_schema(), indent=1) + "\n"


def _tidy(node: dict[str, Any]) -> dict[str, Any]:
    # A property may be called so as well, then it is no text: its own schema.
    node = {name: value for name, value in node.items() if name != "title" or not isinstance(value, str)}
    return {
        _LIMITS[name] if name in _LIMITS and not isinstance(value, dict) else name: value
        for name, value in node.items()
    }


def sections() -> Iterator[tuple[str, Node, Node]]:
    """The mappings of the YAML, from the outside to the inside.

    Yields:
        The dotted key ("" for the study itself), the JSON schema of its properties, and the mapping's default.
    """
    schema = json_schema()
    yield from _inside("", schema, {}, schema["$defs"])


def _inside(key: str, node: Node, default: Node, known: Node) -> Iterator[tuple[str, Node, Node]]:
    yield key, node, default
    for name, child in node["properties"].items():
        place, inner = f"{key}.{name}".lstrip("."), _mapping(child, known)
        if inner is None and isinstance(free := child.get("additionalProperties"), dict):
            place, inner = f"{place}.{_ANY}", _mapping(free, known)
            inner = inner and {**inner, "description": free.get("description", inner["description"])}
        if inner is not None:
            yield from _inside(place, inner, child.get("default") or {}, known)


def _mapping(node: Node, known: Node) -> Node | None:
    """The mapping with known keys that a value is or may be."""
    if "$ref" in node:
        return _mapping(known[node["$ref"].rpartition("/")[2]], known)
    if "properties" in node:
        return node
    return next((found for choice in node.get("anyOf", ()) if (found := _mapping(choice, known))), None)


def page() -> str:
    """The reference as a page in Markdown."""
    parts, written = [_HEAD], dict[str, str]()
    for key, node, default in sections():
        about = str(node.get("description", "")).replace("``", "`") if key else ""
        parts.append(f"\n## `{key}`\n\n{about}\n" if key else "\n## The study\n")
        keys = json.dumps(node["properties"])
        if keys in written:
            others = {name: value for name, value in default.items() if value != node["properties"][name]["default"]}
            parts.append(f"\nThe keys are those of `{written[keys]}`, with other defaults: {_cell(others)}.\n")
            continue
        written[keys] = key
        parts.append("\n| key | type | default | allowed | meaning |\n| --- | --- | --- | --- | --- |\n")
        for name, child in node["properties"].items():
            parts.append(_row(name, child, f"{key}.{name}".lstrip("."), name in node.get("required", ())))
    return "".join(parts)


def _row(name: str, node: Node, place: str, required: bool) -> str:
    nested = "$ref" in node
    default = "required" if required else f"[below](#{place.replace('.', '')})" if nested else _cell(_own_default(node))
    cells = (f"`{name}`", "mapping" if nested else _type(node), default, _allowed(node), str(node["description"]))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _own_default(node: Node) -> Any:
    # Pydantic tells no default that a function makes: those of the schema are empty mappings.
    return node.get("default", {} if node.get("type") == "object" else None)


def _cell(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _type(node: Node) -> str:
    if choices := node.get("anyOf"):
        return " or ".join(dict.fromkeys(map(_type, choices)))
    if "$ref" in node:
        return "mapping"
    if "enum" in node:
        return "name"
    if "const" in node:
        return _cell(node["const"])
    kind = str(node["type"])
    if kind == "array":
        return f"list of {_type(node['items'])}s"
    return _TYPES.get(kind, kind)


def _allowed(node: Node) -> str:
    """What values a key takes, beside their type."""
    if choices := node.get("anyOf"):
        return ", ".join(filter(None, map(_allowed, choices)))
    if "enum" in node:
        return ", ".join(map(_cell, node["enum"]))
    some = ["at least one entry"] if node.get("minItems") or node.get("minProperties") else []
    if node.get("type") == "array":
        return "; ".join([f"each {_allowed(node['items'])}", *some])
    if isinstance(each := node.get("additionalProperties"), dict) and "enum" in each:
        return "; ".join([f"each {_allowed(each)}", *some])
    return _range(node)


def _range(node: Node) -> str:
    low, above = node.get("minimum"), node.get("exclusiveMinimum")
    high, below = node.get("maximum"), node.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    ends = {"at least": low, "above": above, "at most": high, "below": below}
    return ", ".join(f"{word} {value}" for word, value in ends.items() if value is not None)
