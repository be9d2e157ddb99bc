"""Ray's object store: what all trials of a study read, once on each node."""

from __future__ import annotations

from typing import Any

import ray

from rssearch.trial.session import Shared


class InObjectStore(Shared):
    """An object in Ray's object store. What travels is its reference."""

    def __init__(self, value: Any) -> None:
        self._reference = ray.put(value)

    def get(self) -> Any:
        """The object, mapped without a copy."""
        return ray.get(self._reference)
