"""Checks of the options of networks, whose values come from a YAML or from Python."""

from __future__ import annotations

from typing import Any

from rssearch.errors import InputError, shown

_LARGEST = 1 << 20  # no layer has more channels, no cascade a higher rate


def whole(option: str, value: Any, most: int = _LARGEST) -> int:
    """A whole number of at least 1. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{option} is {shown(value)}, but must be a whole number of at least 1")
    if value > most:
        raise InputError(f"{option} is {shown(value)}, but must be at most {most}")
    return value


def levels(option: str, value: Any) -> int:
    """A number of resolutions, each with half the height and width of the one before. Raises InputError."""
    return whole(option, value, 16)


def share(option: str, value: Any) -> float:
    """A number above 0 and at most 1. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"{option} is {shown(value)}, but must be a number above 0 and at most 1")
    return float(value)


def flag(option: str, value: Any) -> bool:
    """True or false. Raises InputError."""
    if not isinstance(value, bool):
        raise InputError(f"{option} is {shown(value)}, but must be true or false")
    return value
