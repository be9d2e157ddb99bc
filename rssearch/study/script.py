"""What the command line reads a study by, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rssearch.config import loading, shipped
from rssearch.config.schema import StudyConfig

__all__ = ["load_study"]


def load_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Read and check a study.

    Args:
        path: a YAML file, or the name of a shipped space, such as ``quickstart`` or ``papers/lfp``.
        overrides: dotted keys and the values that replace those of the file: ``{"settings.train.epochs": 2}``.

    Raises:
        InputError: there is no such file, or it has a bad key or value.
    """
    return loading.load_study(shipped.find(str(path)), overrides)
