"""The images of a point: their fingerprint, what is known of them without decoding them, and the decoded set."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from rssearch import data
from rssearch.config.settings import Patches, Split
from rssearch.data import AnySet
from rssearch.data.describe import Description
from rssearch.data.describe import describe as describe_dataset
from rssearch.trials.point import PruningPoint


@lru_cache(maxsize=64)
def fingerprint(name: str, root: str, download: bool) -> str:
    """The content listing of a dataset, read once; fetched first where the study says so."""
    if download:
        data.fetch(name, root)
    return data.fingerprint(name, root)


def describe(point: PruningPoint, root: Path) -> Description:
    """Shape, classes and number of a point's images, without decoding them."""
    settings = point.settings
    if settings.download:
        data.fetch(point.dataset, root)
    return _described(point.dataset, str(root), settings.input_size, settings.patches, settings.split.model_dump_json())


@lru_cache(maxsize=32)
def _described(dataset: str, root: str, input_size: int | None, patches: Patches, split: str) -> Description:
    return describe_dataset(
        dataset, root, input_size=input_size, patches=patches, split=Split.model_validate_json(split)
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
        on_error=settings.on_error,
        download=settings.download,
        memory_share=settings.memory_share,
        workers=workers,
        progress=progress,
    )
