"""YAML of plain values: what is not understood is an error, and nothing is read as something else than it looks like.

YAML 1.1, which PyYAML reads, takes ``010`` for 8, ``1:30`` for 90, ``1_000`` for 1000 and ``2020-01-01`` for a date,
and leaves ``1e-3`` a text. Here a number is what plain decimal notation calls one, and ``1e-3`` is one; the others stay
the text that was written, so that whoever wants a number refuses them, and dates are errors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from rssearch.errors import cut, shown

_PREFIX = "tag:yaml.org,2002:"
_NUMBERS = list("-+.0123456789")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)$")
_REAL = re.compile(
    r"[-+]?([0-9]+\.[0-9]*|[0-9]+(?=[eE])|\.[0-9]+)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_LIKE_A_NUMBER = re.compile(r"[-+]?[0-9.][-+0-9a-fA-FxX_:.]{0,38}")
_REPLACED = tuple(f"{_PREFIX}{name}" for name in ("int", "float", "value"))  # implicit tags of YAML 1.1
_TEXTS = (f"{_PREFIX}str", f"{_PREFIX}seq", f"{_PREFIX}map")  # tags that may be written
_MOST_CHARACTERS = 4_000_000
_MOST_VALUES = 1_000_000  # with those that aliases repeat
_MOST_LEVELS = 40
_LARGEST = 2**63  # integers below it fit into 64 bits


class _Loader(yaml.SafeLoader):
    """Safe YAML with the numbers of today. A key that stands twice is an error: the first value would be lost."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML copies it before it adds to it
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", *_TEXTS) and not isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem=f"the tag {cut(str(tag))} is not read: write plain values", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"{shown(key.value)} stands twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge keys (``<<``), each key kept once: mappings that merge one another in layers would grow without end."""
        before = len(node.value)
        super().flatten_mapping(node)
        if len(node.value) > before:
            last = {
                key.value if isinstance(key, yaml.ScalarNode) else id(key): (key, value) for key, value in node.value
            }
            node.value = list(last.values())

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # PyYAML's constructors raise what their conversions raise
            raise self._refusal(node, "cannot be read") from error

    def refuse_date(self, node: yaml.ScalarNode) -> Any:
        raise self._refusal(node, "would be a date in YAML: put it in quotes")

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > 20 or abs(value := int(node.value)) >= _LARGEST:
            raise self._refusal(node, "is too large: integers have 64 bits")
        return value

    def construct_real(self, node: yaml.ScalarNode) -> float:
        text = node.value.lower()
        value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        if math.isinf(value) and ".inf" not in text:
            raise self._refusal(node, "is too large for a number")
        return value

    @staticmethod
    def _refusal(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=f"{cut(str(node.value))} {problem}", problem_mark=node.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either kind of YAML would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


for _tool in (_Loader, _Dumper):
    _tool.add_implicit_resolver(f"{_PREFIX}int", _INTEGER, _NUMBERS)
    _tool.add_implicit_resolver(f"{_PREFIX}float", _REAL, _NUMBERS)
_Loader.add_constructor(f"{_PREFIX}int", _Loader.construct_integer)
_Loader.add_constructor(f"{_PREFIX}float", _Loader.construct_real)
_Loader.add_constructor(f"{_PREFIX}timestamp", _Loader.refuse_date)


def load(text: str) -> Any:
    """The plain values that a YAML document describes.

    Raises:
        ValueError: it is none, or has something that is no plain value; one line that says where.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters; at most {_MOST_CHARACTERS} are read")
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(_where(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check(document)
    return document


def dump(value: Any, width: int = 80) -> str:
    """Plain values as YAML, in the order of their keys, that `load` and every other reader takes for the same."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=width, allow_unicode=False)
    return text


def check(document: Any) -> None:
    """Refuse what is no plain value, and what aliases repeat without end. Raises ValueError that names the key."""
    left = [_MOST_VALUES]

    def visit(value: Any, place: tuple[str, ...]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ValueError(f"it has more than {_MOST_VALUES} values, as aliases repeat them")
        if len(place) > _MOST_LEVELS:
            raise ValueError(f"{cut('.'.join(place))}: is nested more than {_MOST_LEVELS} levels deep")
        if isinstance(value, Mapping):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise ValueError(f"{'.'.join((*place, ''))}{shown(key)}: a key must be text; put it in quotes")
                _check_text(key, place)
                visit(item, (*place, key))
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                visit(item, (*place, str(index)))
        elif isinstance(value, str):
            _check_text(value, place)
        elif isinstance(value, int) and abs(value) >= _LARGEST:
            raise ValueError(f"{'.'.join(place)}: {shown(value)} is too large: integers have 64 bits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{'.'.join(place)}: {value} is not allowed: must be a finite number")

    visit(document, ())


def _check_text(text: str, place: tuple[str, ...]) -> None:
    if "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f"{cut('.'.join(place)) or 'a key'}: {shown(text)} has a character that no text may have")


def number_in(text: str) -> int | float | None:
    """The number that YAML 1.1 takes a text for, such as 90 for ``1:30``; None where it takes it for none."""
    try:
        value = yaml.safe_load(text) if _LIKE_A_NUMBER.fullmatch(text) else None
    except (yaml.YAMLError, ValueError):  # such as a date that there is not
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _where(error: yaml.YAMLError) -> str:
    """What the parser complains about, and the line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {cut(' '.join(str(error.problem).split()), 200)}"
    return cut(" ".join(str(error).split()), 200)
