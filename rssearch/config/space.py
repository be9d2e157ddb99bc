"""The space of a study: choices and ranges, the cells of its grid, and the content key of a point."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from rssearch.errors import cut, shown

_EXACT = 2**53  # whole numbers up to here are exact as floats, which samplers compute with
_DIGITS = 1e-12  # relative, of the values of a range: see `tidy`
_FEW = 100  # values of a range that stand for it one by one; of a longer one its ends do

Scalar = str | int | float | bool | None
Point = dict[str, Scalar]

_SCALAR = {"type": ["string", "number", "boolean", "null"]}
# What `parse_dimension` reads, for editors. What this refuses, it refuses; it refuses more.
JSON_SCHEMA: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "description": "a dimension: a list is a choice, a mapping with low and high a range, any other value is fixed",
        "anyOf": [
            {
                "description": "a choice: one of these values",
                "type": "array",
                "minItems": 1,
                "uniqueItems": True,
                "items": _SCALAR,
            },
            {
                "description": "a range of numbers; whole bounds (and step) give whole numbers",
                "type": "object",
                "additionalProperties": False,
                "required": ["low", "high"],
                "properties": {
                    "low": {"type": "number", "description": "smallest value, included; above 0 where log is true"},
                    "high": {"type": "number", "description": "largest value, included where steps reach it"},
                    "step": {
                        "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}],
                        "default": None,
                        "description": "distance of neighbouring values, at most high - low; null: all values, or all "
                        "whole numbers where both bounds are whole",
                    },
                    "log": {
                        "type": "boolean",
                        "default": False,
                        "description": "values are sampled evenly on a logarithmic scale; not with a step",
                    },
                },
                "if": {"required": ["log"], "properties": {"log": {"const": True}}},
                "then": {"properties": {"low": {"exclusiveMinimum": 0}, "step": {"type": "null"}}},
            },
            {"description": "one fixed value"} | _SCALAR,
        ],
    },
}


@dataclass(frozen=True)
class Choice:
    """A finite list of values, in the order of the YAML."""

    values: tuple[Scalar, ...]

    def cells(self) -> tuple[Scalar, ...]:
        """Every value."""
        return self.values

    def to_yaml(self) -> list[Scalar]:
        """The value of the YAML that gives this dimension."""
        return list(self.values)


@dataclass(frozen=True)
class _Steps(Sequence[Scalar]):
    """The values of a stepped range, each computed when it is asked for."""

    low: float
    step: float
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Scalar: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Scalar]: ...

    def __getitem__(self, index: int | slice) -> Scalar | Sequence[Scalar]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        value: float = tidy(self.low + range(self.length)[index] * self.step)
        return value

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        index = round((value - self.low) / self.step)
        return 0 <= index < self.length and self[index] == value


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included.

    Whole bounds (and step) give whole numbers, as in a YAML ``{low: 1, high: 4}``; write ``1.0`` for real ones.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the values are integers."""
        return all(isinstance(x, int) for x in (self.low, self.high, 1 if self.step is None else self.step))

    def cells(self) -> Sequence[Scalar] | None:
        """Every value, none of them kept in memory; None where they are not countable."""
        if self.whole:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is None:
            return None
        return _Steps(self.low, self.step, math.floor((self.high - self.low) / self.step + 1e-9) + 1)

    def to_yaml(self) -> dict[str, Scalar]:
        """The value of the YAML that gives this dimension."""
        plain: dict[str, Scalar] = {"low": self.low, "high": self.high}
        if self.step is not None:
            plain["step"] = self.step
        if self.log:
            plain["log"] = True
        return plain


Dimension = Choice | Range


def tidy(value: Any) -> Any:
    """A number without the dust of binary arithmetic (0.6000000000000001 -> 0.6): equal points have equal keys."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def parse_dimension(name: str, spec: Any) -> Dimension:
    """A dimension from its YAML value: a list, a mapping with low and high, or one fixed value.

    Raises:
        ValueError: what is wrong with it, beginning with the dimension's name.
    """
    if isinstance(spec, Choice | Range):
        return spec
    if isinstance(spec, Mapping):
        return _parse_range(name, spec)
    values = spec if isinstance(spec, list | tuple) else [spec]
    if not values:
        raise ValueError(f"{name}: the list is empty; give at least one value")
    for value in values:
        if not isinstance(value, Scalar):
            raise ValueError(f"{name}: {shown(value)} is not a plain value (text, number, true, false or null)")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}: {value!r} is not finite")
    cells = tuple(tidy(value) for value in values)
    kinds = Counter((isinstance(cell, bool), cell) for cell in cells)  # True equals 1 in Python, but not in a YAML
    doubles = sorted(repr(cell) for (_, cell), count in kinds.items() if count > 1)
    if doubles:
        raise ValueError(f"{name}: {cut(', '.join(doubles))} is listed twice")
    return Choice(cells)


def _parse_range(name: str, spec: Mapping[str, Any]) -> Range:
    extra = sorted(set(map(str, spec)) - {"low", "high", "step", "log"})
    if extra:
        raise ValueError(f"{name}: a range has low, high and one of step or log, not {cut(', '.join(extra))}")
    if "low" not in spec or "high" not in spec:
        raise ValueError(f"{name}: a range needs both low and high")
    low, high, step, log = spec["low"], spec["high"], spec.get("step"), spec.get("log", False)
    for key, value in {"low": low, "high": high, "step": 1 if step is None else step}.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name}.{key}: {shown(value)} is not a number")
        if isinstance(value, int) and abs(value) > _EXACT:
            raise ValueError(f"{name}.{key}: {value} is too large; whole numbers of a range go up to 2^53")
    if not isinstance(log, bool):
        raise ValueError(f"{name}.log: {shown(log)} is not true or false")
    if low >= high:
        raise ValueError(f"{name}: low {low:g} must be below high {high:g}")
    if not math.isfinite(high - low):
        raise ValueError(f"{name}: from low {low:g} to high {high:g} is too far for floating-point numbers")
    if step is not None and (step <= 0 or step > high - low):
        raise ValueError(f"{name}.step: {step:g} must be above 0 and at most high - low = {high - low:g}")
    if isinstance(step, float) and step < 2 * _DIGITS * max(abs(low), abs(high)):
        raise ValueError(f"{name}.step: {step:g} is too fine: values have 12 digits, so that neighbours would be equal")
    if log and (step is not None or low <= 0):
        raise ValueError(f"{name}: a log range needs low above 0 and no step")
    return Range(low, high, step, log)


def grid_size(space: Mapping[str, Dimension]) -> int | None:
    """How many distinct points there are; None where a dimension is continuous."""
    sizes = [dimension.cells() for dimension in space.values()]
    return None if any(cells is None for cells in sizes) else math.prod(len(cells or ()) for cells in sizes)


def size_text(size: int) -> str:
    """A number of points for people: all of its digits up to a billion."""
    return str(size) if size < 10**9 else f"about 10^{math.log10(size):.0f}"


def grid(space: Mapping[str, Dimension]) -> Iterator[Point]:
    """Every point of a countable space, the last dimension varying fastest.

    Raises:
        ValueError: a dimension is continuous (named).
    """
    axes: list[Sequence[Scalar]] = []
    for name, dimension in space.items():
        cells = dimension.cells()
        if cells is None:
            raise ValueError(f"{name}: a continuous range has no grid; give it a step")
        axes.append(cells)
    for values in itertools.product(*axes):
        yield dict(zip(space, values, strict=True))


def sample(space: Mapping[str, Dimension], most: int) -> list[Point]:
    """Points that stand for a space that is too large to be looked at, the same ones each time.

    They are combinations of all choices and the bounds of ranges (short countable ranges with every value): all of
    them if they are at most `most`, else the first and the last and others drawn at random, each value equally often.
    Every value of a choice occurs, so that there are more than `most` where a choice has more values.
    """
    axes = {name: _ends(dimension) for name, dimension in space.items()}
    if math.prod(map(len, axes.values())) <= most:
        return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    rng, count = random.Random(0), max(most, *map(len, axes.values()))
    columns = []
    for values in axes.values():
        column = [values[index * len(values) // count] for index in range(count)]
        inside = column[1:-1]
        rng.shuffle(inside)
        columns.append([column[0], *inside, column[-1]])
    return [dict(zip(axes, values, strict=True)) for values in zip(*columns, strict=True)]


def ends(space: Mapping[str, Dimension], point: Point) -> tuple[Point, Point]:
    """A point with all ranges of too many values at their lower, and at their upper bounds."""
    wide = {n: _ends(d) for n, d in space.items() if isinstance(d, Range) and not _is_short(d)}
    return (
        {**point, **{name: values[0] for name, values in wide.items()}},
        {**point, **{name: values[-1] for name, values in wide.items()}},
    )


def _ends(dimension: Dimension) -> Sequence[Scalar]:
    """The values of a dimension that stand for it."""
    cells = dimension.cells()
    if cells is None:
        assert isinstance(dimension, Range)
        return dimension.low, dimension.high
    return cells if isinstance(dimension, Choice) or _is_short(dimension) else (cells[0], cells[-1])


def _is_short(dimension: Dimension) -> bool:
    """Whether each value of a dimension stands for itself."""
    cells = dimension.cells()
    return cells is not None and (isinstance(dimension, Choice) or len(cells) <= _FEW)


def content_key(content: Any) -> str:
    """16 hexadecimal digits that name plain content: equal for equal content, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def contains(space: Mapping[str, Dimension], point: Mapping[str, Any]) -> bool:
    """Whether a point lies in the space: the same dimensions, each with an allowed value."""
    if set(space) != set(point):
        return False
    for name, dimension in space.items():
        value, cells = point[name], dimension.cells()
        if cells is not None:
            inside = _is_in(value, cells)
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            inside = number and isinstance(dimension, Range) and dimension.low <= value <= dimension.high
        if not inside:
            return False
    return True


def _is_in(value: Any, cells: Sequence[Scalar]) -> bool:
    """Membership that tells true from 1; at no cost in a range."""
    if not isinstance(cells, tuple):
        return not isinstance(value, bool) and isinstance(value, int | float) and value in cells
    return any(value == cell and isinstance(value, bool) == isinstance(cell, bool) for cell in cells)


def draw(dimension: Dimension, rng: random.Random) -> Scalar:
    """A random value of a dimension, uniform (log-uniform for a log range)."""
    cells = dimension.cells()
    if cells is not None:
        return rng.choice(cells)
    assert isinstance(dimension, Range)
    if dimension.log:
        return tidy(math.exp(rng.uniform(math.log(dimension.low), math.log(dimension.high))))  # type: ignore[no-any-return]
    return tidy(rng.uniform(dimension.low, dimension.high))  # type: ignore[no-any-return]
