"""Numbers and truth values of the schema: taken as they are, never converted from something else."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

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


Integer = Annotated[int, BeforeValidator(_integer)]
Real = Annotated[float, BeforeValidator(_real)]
Truth = Annotated[bool, BeforeValidator(_truth)]
