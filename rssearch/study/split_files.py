"""The divisions of a study as files: those that its settings name, and those that it writes.

As with weights, a study means what a file says, not its place: keys hold a digest of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rssearch.config.schema import StudyConfig
from rssearch.config.space import Choice

if TYPE_CHECKING:
    from rssearch.config.settings import Settings

__all__ = ["fixed", "key_part", "written"]

FILE = "split.csv"


def _named(config: StudyConfig) -> list[str]:
    dimension = config.space.get("split.file")
    values: tuple[Any, ...] = dimension.values if isinstance(dimension, Choice) else ()
    return list(dict.fromkeys(v for v in (config.settings.split.file, *values) if isinstance(v, str)))


def fixed(config: StudyConfig) -> StudyConfig:
    """The study with the digest of each of its split files in ``settings.split.sha256``.

    Raises:
        InputError: a file cannot be read, or is not the one that the study says.
    """
    if not (names := _named(config)):
        return config
    from rssearch.data import split_file
    from rssearch.errors import InputError

    said, found = config.settings.split.sha256, {}
    for name in names:
        found[name] = split_file.read(name).sha256
        if said.get(name, found[name]) != found[name]:
            raise InputError(f"settings.split.sha256: the file {name} has {found[name]}, not {said[name]}")
    split = config.settings.split.model_copy(update={"sha256": found})
    return config.model_copy(update={"settings": config.settings.model_copy(update={"split": split})})


def key_part(settings: Settings) -> dict[str, str]:
    """What the key of a trial with these settings holds of its split file: nothing where there is none."""
    file = settings.split.file
    return {} if file is None else {"split_file": settings.split.sha256[file]}


def written(data: Iterable[Any]) -> dict[str, str]:
    """Name of each file of a division -> its text, for the images that the trials of a study share.

    ``split.csv`` where all are divided alike; else ``split-<dataset>-<beginning of its split_hash>.csv`` for each.
    """
    shared = list(data)
    if not shared:  # torch comes along with what follows
        return {}
    from rssearch.data import ImageSet, SceneSet
    from rssearch.data.split_file import text

    sets = {(found.name, found.split_hash): found for found in shared if isinstance(found, ImageSet | SceneSet)}
    texts = {key: table for key, found in sets.items() if (table := text(found)) is not None}
    if len(texts) == 1:
        return {FILE: next(iter(texts.values()))}
    plain = {key: "".join(c if c.isalnum() or c in "_.-" else "_" for c in key[0]) for key in texts}
    return {f"split-{plain[key]}-{key[1][:8]}.csv": table for key, table in texts.items()}
