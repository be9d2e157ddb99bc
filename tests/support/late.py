"""Libraries that a few tests compare with, imported when such a test runs: each process collects all tests."""

from __future__ import annotations

import importlib
from typing import Any


class Late:
    """A module that is imported when it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_", "pytest")) and name != "__version__":  # pytest looks at each object
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)
