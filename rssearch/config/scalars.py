"""Numbers, truth values and weights of the schema: taken as they are, never converted from something else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from rssearch.config import plain_yaml
from rssearch.errors import shown


def meant(value: Any) -> str:
    """What to write instead of a value that is no number."""
    if isinstance(value, bool):
        return " (YAML reads yes and on as true, no and off as false)"
    number = plain_yaml.number_in(value) if isinstance(value, str) else None
    return "" if number is None else f"; write {number} without quotes if that is what is meant"


def _integer(value: Any) -> Any:
    """Refuse what would have to be guessed at; 1e3 is an integer."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{shown(value)} is not allowed: must be an integer{meant(value)}")
    return value


def _real(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} is not allowed: must be a number{meant(value)}")
    return value


def _truth(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not allowed: must be true or false")
    return value


def _weight_or_auto(value: Any) -> Any:
    """One message for what is neither."""
    if value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{shown(value)} is not allowed: must be auto, or a number of at least 0{meant(value)}")
    return value


def _class_weights(value: Any) -> Any:
    """One message for what is none of the kinds, where pydantic has one for each."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, list | tuple | dict) or not value:
        raise ValueError(
            f"{shown(value)} is not allowed: must be balanced, or numbers above 0 as a list or by the classes' names"
        )
    weights: Iterable[Any] = value
    if isinstance(value, dict):
        weights = value.values()
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise ValueError(f"{shown(wrong[0])} is no text; write it in quotes if it is the name of a class")
    for weight in weights:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight <= 0:
            raise ValueError(
                f"{shown(weight)} is not allowed: the weight of a class must be a number above 0{meant(weight)}"
            )
    return value


Integer = Annotated[int, BeforeValidator(_integer)]
Real = Annotated[float, BeforeValidator(_real)]
Truth = Annotated[bool, BeforeValidator(_truth)]
WeightOrAuto = Annotated[Literal["auto"] | Annotated[Real, Field(ge=0)], BeforeValidator(_weight_or_auto)]
_Weight = Annotated[Real, Field(gt=0)]
ClassWeights = Annotated[
    Literal["balanced"] | tuple[_Weight, ...] | dict[str, _Weight] | None, BeforeValidator(_class_weights)
]
