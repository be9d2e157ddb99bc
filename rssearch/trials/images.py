"""The images of a point: their fingerprint, what is known of them without decoding them, and the decoded set."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from rssearch import data
from rssearch.config.settings import Patches, Scale, Split
from rssearch.data import AnySet
from rssearch.data.describe import Description
from rssearch.data.describe import describe as describe_dataset
from rssearch.data.reading import Options, asked
from rssearch.data.registry import listing
from rssearch.errors import InputError
from rssearch.trials.point import PruningPoint


@lru_cache(maxsize=64)
def fingerprint(name: str, root: str, download: bool) -> str:
    """The content listing of a dataset, read once; fetched first where the study says so."""
    if download:
        data.fetch(name, root)
    return data.fingerprint(name, root)


@lru_cache(maxsize=64)
def classes(name: str, root: str, download: bool) -> tuple[str, ...]:
    """The names of a dataset's classes; fetched first where the study says so."""
    if download:
        data.fetch(name, root)
    return listing(name, root).classes


def describe(point: PruningPoint, root: Path) -> Description:
    """Shape, classes and number of a point's images, without decoding them."""
    settings = point.settings
    if settings.download:
        data.fetch(point.dataset, root)
    found = _described(
        point.dataset,
        str(root),
        settings.input_size,
        settings.patches,
        settings.split.model_dump_json(),
        asked(settings),
        settings.scale,
    )
    if found.task != point.task:
        raise InputError(
            f"{point.dataset!r} is a dataset for {found.task}, but {point.model!r} is a network for {point.task}"
        )
    return found


@lru_cache(maxsize=32)
def _described(
    dataset: str, root: str, input_size: int | None, patches: Patches, split: str, bands: Options, scale: Scale | None
) -> Description:
    return describe_dataset(
        dataset,
        root,
        input_size=input_size,
        patches=patches,
        split=Split.model_validate_json(split),
        bands=bands,
        scale=scale,
    )


def load(
    point: PruningPoint, root: Path, progress: Callable[[int, int], None] | None = None, workers: int | None = None
) -> AnySet:
    """Decode an image set as the settings say, in so many threads; None takes all CPUs of the process."""
    settings = point.settings
    return data.load(
        point.dataset,
        root,
        input_size=settings.input_size,
        split=settings.split,
        patches=settings.patches,
        bands=asked(settings),
        scale=settings.scale,
        on_error=settings.on_error,
        download=settings.download,
        memory_share=settings.memory_share,
        workers=workers,
        progress=progress,
    )
