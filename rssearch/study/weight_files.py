"""The files of weights that a study names: what they hold is fixed when it starts, and workers find them in the store.

A study means a file's content, not its place: keys hold the SHA-256 of its bytes, and a worker needs no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rssearch.config.schema import StudyConfig
from rssearch.config.space import Choice
from rssearch.errors import InputError
from rssearch.storage.artifacts import Store
from rssearch.trial.interface import WEIGHTS


def named(config: StudyConfig) -> list[str]:
    """The files of weights in a study's settings and dimensions, each once."""
    from rssearch.models.weights import is_file

    return [name for name in dict.fromkeys(_named(config)) if is_file(name)]


def _named(config: StudyConfig) -> Iterator[str]:
    model = config.settings.model
    values: list[Any] = [model.weights, *(options.get("weights") for options in model.networks.values())]
    for name, dimension in config.space.items():
        if name.startswith("model.") and isinstance(dimension, Choice):
            values += dimension.values if name.endswith(".weights") else []
    yield from (value for value in values if isinstance(value, str))


def fixed(config: StudyConfig) -> StudyConfig:
    """The study with the SHA-256 of each of its files of weights in ``settings.model.sha256``.

    Raises:
        InputError: a file cannot be read, or is not the one that the study says.
    """
    if not any(_named(config)):
        return config
    from rssearch.models.weights import read

    said, found = config.settings.model.sha256, {}
    for name in named(config):
        found[name] = read(name).sha256
        if said.get(name, found[name]) != found[name]:
            raise InputError(f"settings.model.sha256: the file {name} has {found[name]}, not {said[name]}")
    return _with(config, found)


def _with(config: StudyConfig, digests: Mapping[str, str]) -> StudyConfig:
    model = config.settings.model.model_copy(update={"sha256": dict(digests)})
    return config.model_copy(update={"settings": config.settings.model_copy(update={"model": model})})


def keep(config: StudyConfig, store: Store) -> None:
    """Put a study's files of weights into the store, by their SHA-256, unless they are there.

    Raises:
        InputError: a file is another one by now.
    """
    for name, digest in config.settings.model.sha256.items():
        if store.has(WEIGHTS, digest):
            continue
        from rssearch.models.weights import read

        found = read(name)
        if found.sha256 != digest:
            raise InputError(f"weights {name}: the file was replaced while the study started")
        store.put(WEIGHTS, digest, {WEIGHTS: found.content})
