"""Reading a study: the YAML file, what overrides it, and one line for each mistake in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from rssearch.config import plain_yaml
from rssearch.config.schema import StudyConfig
from rssearch.config.settings import Section, Settings
from rssearch.errors import InputError, cut, shown
from rssearch.storage import uris
from rssearch.storage.location import Location

__all__ = ["load_study", "overridden", "override_settings", "parse_assignment", "parse_study", "value_of"]

_NAMES = "literal["  # how pydantic calls the names of a value that may be a section, too
_MOST_LINES = 20  # of mistakes that are shown at once


def load_study(path: Location, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Read and check a study.

    Args:
        path: the YAML file, on a disk or in an object store.
        overrides: dotted keys and values that replace those of the file, as ``--set`` gives them.

    Raises:
        InputError: the file cannot be read, is no YAML mapping, or has a bad key or value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{cut(str(path), 300)}: cannot be read: {_why(error)}") from None
    try:
        document = plain_yaml.load(text)
    except ValueError as error:
        raise InputError(f"{path}: is not valid YAML: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: must be a mapping with the keys study, trial and space")
    return parse_study(overridden(document, overrides or {}), str(path))


def overridden(document: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A study as a mapping, changed in place: values at dotted keys. Raises InputError for a key below no mapping."""
    for key, value in values.items():
        _set(document, key, value)
    return document


def parse_study(document: Mapping[str, Any], source: str = "study") -> StudyConfig:
    """Check a study that is already a mapping. Raises InputError, whose messages begin with `source`."""
    try:
        plain_yaml.check(document)
        return StudyConfig.model_validate(document)
    except ValidationError as error:
        raise InputError("\n".join(f"{source}: {line}" for line in _explain(error))) from None
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None


def override_settings(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """`settings` with some values replaced by their dotted names, checked like the YAML.

    Raises:
        InputError: a name that does not exist or a value that is not allowed.
    """
    document = settings.model_dump(mode="json")
    for key, value in values.items():
        _set(document, key, value)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise InputError("; ".join(_explain(error, prefix=("settings",)))) from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """``key.path=value`` with a YAML value, as ``--set`` takes it. Raises InputError."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise InputError(f"--set {cut(text)}: must be key.path=value, for example settings.train.epochs=2")
    try:
        return key, plain_yaml.load(value)
    except ValueError as error:
        raise InputError(f"--set {cut(text)}: the value is not valid YAML: {error}") from None


def value_of(option: str, text: str) -> Any:
    """The value of an option that takes a name, or a mapping in YAML. Raises InputError for a mapping that is none."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return plain_yaml.load(text)
    except ValueError as error:
        raise InputError(f"{option} {cut(text)}: is not valid YAML: {error}") from None


def _why(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"it is no UTF-8 text: {error.reason} at byte {error.start}"


def _set(document: dict[str, Any], dotted: str, value: Any) -> None:
    """Replace the value at a dotted key; a name that itself has dots (a dimension) is found whole."""
    node, parts = document, dotted.split(".")
    while len(parts) > 1:
        if ".".join(parts) in node:
            break
        child = node.setdefault(parts[0], {})
        if not isinstance(child, dict):
            raise InputError(f"{cut(dotted)}: {shown(parts[0])} is no mapping, so nothing can be set below it")
        node, parts = child, parts[1:]
    node[".".join(parts)] = value


def _explain(error: ValidationError, prefix: tuple[str, ...] = ()) -> list[str]:
    """One line for each mistake: key, value, what is allowed."""
    found = _without_branches(error.errors(include_url=False))
    lines = [uris.hidden(_explain_one(item, prefix)) for item in found[:_MOST_LINES]]
    return lines if len(found) <= _MOST_LINES else [*lines, f"and {len(found) - _MOST_LINES} more mistakes"]


def _without_branches(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The mistakes without those of what was not meant, where a value is a name or a section.

    A mapping is meant as the section, and everything else as a name.
    """
    values = {
        item["loc"][:-1]: item["input"]
        for item in found
        if item["type"] == "literal_error" and str(item["loc"][-1]).startswith(_NAMES)
    }
    kept: list[Mapping[str, Any]] = []
    for item in found:
        place = next((loc for loc in values if item["loc"][: len(loc)] == loc), None)
        if place is None:
            kept.append(item)
            continue
        branch, *below = item["loc"][len(place) :]
        is_name = not isinstance(values[place], Mapping)
        if is_name == str(branch).startswith(_NAMES):
            kept.append({**item, "loc": (*place, *below), "or_a_section": is_name})
    return [item for item in kept if item["type"] != "too_short" or not _has_mistake_below(item["loc"], kept)]


def _has_mistake_below(place: Sequence[Any], found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether entries of a list are refused, so that it only seems to be too short without them."""
    return any(len(item["loc"]) > len(place) and item["loc"][: len(place)] == place for item in found)


def _explain_one(item: Mapping[str, Any], prefix: tuple[str, ...]) -> str:
    location = prefix + tuple(str(part) for part in item["loc"] if part not in {"function-before", "dict"})
    key = cut(".".join(location)) or "study"
    value = shown(uris.hidden_in(item.get("input")))
    match item["type"]:
        case "extra_forbidden":
            allowed = sorted(_section(location[:-1]).model_fields)
            return f"{key}: unknown key.{_near(location[-1], allowed)} Allowed here: {', '.join(allowed)}."
        case "missing":
            return f"{key}: is required"
        case "literal_error":
            names = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
            section = f" or {{{', '.join(_section(location).model_fields)}}}" if item.get("or_a_section") else ""
            near = _near(str(item.get("input")), names)
            return f"{key}: {value} is not allowed.{near} Allowed: {', '.join(names)}{section}."
        case "tuple_type":
            return f"{key}: {value} is not allowed: must be a list"
        case "too_short":
            return f"{key}: {value} is not allowed: at least one entry is needed"
        case "value_error":
            return f"{key}: {item['msg'].removeprefix('Value error, ')}"
        case _:
            return f"{key}: {value} is not allowed: {item['msg'][0].lower()}{item['msg'][1:]}"


def _near(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(cut(name), names, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def _section(location: tuple[str, ...]) -> type[Section]:
    """The section of the schema that a location lies in, for the list of its keys."""
    section: type[Section] = StudyConfig
    for name in location:
        field = section.model_fields.get(name)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, Section)]
        nested += [a for c in candidates for a in get_args(c) if isinstance(a, type) and issubclass(a, Section)]
        section = nested[0] if nested else section
    return section
