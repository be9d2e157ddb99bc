"""The space of a study: choices and ranges, the cells of its grid, and the content key of a point."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Scalar = str | int | float | bool | None
Point = dict[str, Scalar]


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

    def cells(self) -> tuple[Scalar, ...] | None:
        """Every value, or None where they are not countable."""
        step = self.step if self.step is not None else (1 if self.whole and not self.log else None)
        if step is None:
            return tuple(range(int(self.low), int(self.high) + 1)) if self.whole else None
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(tidy(self.low + i * step) for i in range(count))

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
            raise ValueError(f"{name}: {value!r} is not a plain value (text, number, true, false or null)")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}: {value!r} is not finite")
    cells = tuple(tidy(value) for value in values)
    kinds = [(isinstance(cell, bool), cell) for cell in cells]  # True equals 1 in Python, but not in a YAML
    doubles = sorted({repr(kind[1]) for i, kind in enumerate(kinds) if kind in kinds[:i]})
    if doubles:
        raise ValueError(f"{name}: {', '.join(doubles)} is listed twice")
    return Choice(cells)


def _parse_range(name: str, spec: Mapping[str, Any]) -> Range:
    extra = sorted(set(map(str, spec)) - {"low", "high", "step", "log"})
    if extra:
        raise ValueError(f"{name}: a range has low, high and one of step or log, not {', '.join(extra)}")
    if "low" not in spec or "high" not in spec:
        raise ValueError(f"{name}: a range needs both low and high")
    low, high, step, log = spec["low"], spec["high"], spec.get("step"), spec.get("log", False)
    for key, value in {"low": low, "high": high, "step": 1 if step is None else step}.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name}.{key}: {value!r} is not a number")
    if not isinstance(log, bool):
        raise ValueError(f"{name}.log: {log!r} is not true or false")
    if low >= high:
        raise ValueError(f"{name}: low {low:g} must be below high {high:g}")
    if step is not None and (step <= 0 or step > high - low):
        raise ValueError(f"{name}.step: {step:g} must be above 0 and at most high - low = {high - low:g}")
    if log and (step is not None or low <= 0):
        raise ValueError(f"{name}: a log range needs low above 0 and no step")
    return Range(low, high, step, log)


def grid_size(space: Mapping[str, Dimension]) -> int | None:
    """How many distinct points there are; None where a dimension is continuous."""
    sizes = [dimension.cells() for dimension in space.values()]
    return None if any(cells is None for cells in sizes) else math.prod(len(cells or ()) for cells in sizes)


def grid(space: Mapping[str, Dimension]) -> Iterator[Point]:
    """Every point of a countable space, the last dimension varying fastest.

    Raises:
        ValueError: a dimension is continuous (named).
    """
    axes: list[tuple[Scalar, ...]] = []
    for name, dimension in space.items():
        cells = dimension.cells()
        if cells is None:
            raise ValueError(f"{name}: a continuous range has no grid; give it a step")
        axes.append(cells)
    for values in itertools.product(*axes):
        yield dict(zip(space, values, strict=True))


def corners(space: Mapping[str, Dimension]) -> Iterator[Point]:
    """Every combination of choices with each continuous range at its two ends: what bounds the work of a study."""
    cells = {name: d.cells() or ((d.low, d.high) if isinstance(d, Range) else ()) for name, d in space.items()}
    for values in itertools.product(*cells.values()):
        yield dict(zip(cells, values, strict=True))


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
            inside = any(value == cell and isinstance(value, bool) == isinstance(cell, bool) for cell in cells)
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            inside = number and isinstance(dimension, Range) and dimension.low <= value <= dimension.high
        if not inside:
            return False
    return True


def draw(dimension: Dimension, rng: random.Random) -> Scalar:
    """A random value of a dimension, uniform (log-uniform for a log range)."""
    cells = dimension.cells()
    if cells is not None:
        return rng.choice(cells)
    assert isinstance(dimension, Range)
    if dimension.log:
        return tidy(math.exp(rng.uniform(math.log(dimension.low), math.log(dimension.high))))  # type: ignore[no-any-return]
    return tidy(rng.uniform(dimension.low, dimension.high))  # type: ignore[no-any-return]
