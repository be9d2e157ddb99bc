"""Metrics of single classes as objectives and constraints: checked against the classes before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from rssearch.config.schema import Search
from rssearch.errors import InputError
from rssearch.metrics import of_class
from rssearch.scores import FOREGROUND, check_name, derived, slugs

__all__ = ["among", "check", "check_data", "derived_of", "looks_at_classes"]


def among(names: Iterable[str], module: ModuleType) -> tuple[str, ...]:
    """Those that a trial's module gives of each class, see its PER_CLASS."""
    beginnings = tuple(getattr(module, "PER_CLASS", ()))
    known = getattr(module, "METRICS", ())
    return tuple(name for name in names if beginnings and name.startswith(beginnings) and name not in known)


def derived_of(metrics: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """What a record tells of the metrics that are named, of a trial and of its baseline."""
    return derived(metrics, [full for name in names for full in (name, f"baseline_{name}")])


def looks_at_classes(search: Search, module: ModuleType) -> bool:
    """Whether some objective or constraint depends on which classes there are."""
    names = (*search.objectives, *search.constraints)
    return bool(among(names, module)) or any(name.endswith(FOREGROUND) for name in names)


def check(search: Search, classes: Sequence[str], dataset: str) -> None:
    """Refuse a metric of a class that a dataset has not. Raises InputError."""
    for section in ("objectives", "constraints"):
        for name in getattr(search, section):
            try:
                check_name(name, classes, dataset)
            except InputError as error:
                raise InputError(f"search.{section}.{name}: {error}") from None


def check_data(names: Iterable[str], images: Any) -> None:
    """Refuse a metric of a class that no validation sample has: nothing could be said of it.

    Args:
        names: of metrics of single classes.
        images: a dataset that is shared with all trials; what cannot say which classes are absent is believed.

    Raises:
        InputError: which class.
    """
    asked = [(name, one[2]) for name in names if (one := of_class(name)) is not None]
    absent = getattr(images, "absent", None)
    if not asked or absent is None:
        return
    lost = {*absent("val")}
    lacking = {slug: name for slug, name in zip(slugs(images.classes), images.classes, strict=True) if name in lost}
    for name, wanted in asked:
        if wanted in lacking:
            raise InputError(
                f"{name} is not defined: no validation sample of {images.name!r} is of the class {lacking[wanted]!r}; "
                "give the validation split a larger share (settings.split.val)"
            )
