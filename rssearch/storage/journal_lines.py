"""What a line of a journal must be. Anything may be in a file that a machine left behind when it lost its power."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError


def _below(key: str) -> str:
    """Keys name folders of the store: none may lead out of it."""
    path = PurePosixPath(key)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in key or len(key) > 200:
        raise ValueError("names no folder of the store")
    return key


def _counted(epoch: Any) -> Any:
    try:
        int(epoch)
    except (TypeError, OverflowError):
        raise ValueError("is no number") from None
    return epoch


_Key = Annotated[str, AfterValidator(_below)]
_Time = Annotated[float, Field(ge=0, lt=1e11)]  # seconds since 1970
_Metrics = dict[str, JsonValue]


class _Line(BaseModel):
    # What another release adds is no damage.
    model_config = ConfigDict(extra="allow", strict=True)


class _Epoch(_Line):
    epoch: Annotated[Any, AfterValidator(_counted)] = 0


class _Ended(_Line):
    """A trial or a baseline that ended."""

    kind: Literal["trial", "baseline"] = "trial"
    key: _Key
    title: str
    point: _Metrics
    params: _Metrics
    status: Literal["finished", "stopped", "infeasible", "failed"]  # the values of `rssearch.storage.records.Status`
    reason: str | None = None
    metrics: _Metrics
    history: list[_Epoch] = []
    best: dict[str, float] = {}
    started: _Time = 0
    ended: _Time
    measured: _Metrics | None = None


class _Running(_Line):
    """A trial that passed a rung."""

    kind: Literal["running"]
    key: _Key
    point: _Metrics
    history: list[_Epoch]


class _Addition(_Line):
    """What became known of a trial whose record is there: more epochs, or what was measured."""

    model_config = ConfigDict(extra="forbid")
    key: _Key
    history: list[_Epoch] = []
    measured: _Metrics | None = None


def parse(line: bytes, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The record in a line.

    Args:
        line: of a journal.
        known: the records of the lines before, by their keys.

    Raises:
        ValueError: the line is damaged, or speaks of a record that is not there (why, in a few words).
    """
    record = _decoded(line)
    if not isinstance(record, dict):
        raise ValueError(f"is no JSON object but {type(record).__name__}")
    kind: type[_Line] = _Addition
    if "status" in record:
        kind = _Ended
    elif "kind" in record:
        kind = _Running
    try:
        kind.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg']}") from None
    if kind is _Addition and record["key"] not in known:
        raise ValueError(f"the record of {record['key']} is lost")
    if kind is _Running and known.get(record["key"], {}).get("kind", "running") != "running":
        raise ValueError(f"{record['key']} has ended before")
    return record


def is_whole(line: bytes) -> bool:
    """Whether it is JSON, if not a record."""
    try:
        _decoded(line)
    except ValueError:
        return False
    return bool(line.strip())


def _decoded(line: bytes) -> Any:
    try:
        found = json.loads(line.decode("utf-8-sig"), parse_constant=_finite, parse_float=_finite, parse_int=_whole)
        if b"\\u" in line:
            json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair can be written nowhere
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except OverflowError:
        raise ValueError("holds a number that is too large") from None
    except UnicodeError:
        raise ValueError("is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise OverflowError
    return number


def _whole(text: str) -> int:
    if len(text) > 300:  # more than a float can hold
        raise OverflowError
    return int(text)
