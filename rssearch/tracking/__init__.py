"""The record in MLflow: its client, the process that writes, the saved views, the model registry.

MLflow reads its settings when it is imported, so they are made here, before any module of this package imports it.
"""

import os
from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.tracking.client import Tracker as Tracker

__all__ = ["Tracker"]

_MODULES = {"Tracker": "client"}
__getattr__ = exports(__name__, _MODULES)

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing calls home unless the user turns it on
os.environ.setdefault("DO_NOT_TRACK", "true")
# The writer tries again by itself: it first looks whether the last request was carried out, and so makes no run twice.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
# A server that is away is noticed in seconds; results wait in the journal meanwhile.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("PGCONNECT_TIMEOUT", "20")  # so is PostgreSQL
