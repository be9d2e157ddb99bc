"""A database of MLflow whose tables are made: making them takes seconds, a copy none."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from rssearch.tracking import database


@lru_cache
def _made() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        database.make(f"sqlite:///{folder}/mlflow.db")
        return (Path(folder) / "mlflow.db").read_bytes()


def put_into(storage: Path) -> Path:
    """Put an empty record into a storage that has none."""
    storage.mkdir(parents=True, exist_ok=True)
    path = storage / "mlflow.db"
    if not path.exists():
        path.write_bytes(_made())
    return path
