"""What an error of MLflow means: whether it is there, and whether waiting helps."""

from __future__ import annotations

import re
from typing import Any

from rssearch.errors import InputError
from rssearch.storage import uris
from rssearch.tracking import database

_LASTING = re.compile(  # what waiting does not mend
    "out-of-date database schema|Can't locate revision|authentication failed|permission denied|no pg_hba.conf entry"
    '|(role|database|user) ".*" does not exist|No module named|Can\'t load plugin'
)
_HALF_MADE = re.compile("table .* already exists|duplicate column|no such (table|column)")


def answers(error: Exception) -> bool:
    """Whether MLflow is there, and refuses one request: others may pass."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return False
    status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
    return status < 500


def trouble(error: Exception, uri: str) -> dict[str, Any]:
    """What an error says of a tracking store, and whether it lasts until somebody does something about it."""
    try:
        database.check(uri)
    except InputError as refused:
        return {"why": str(refused), "lasts": True}
    path = database.sqlite_path(uri)
    if path is not None and path.exists() and path.stat().st_size and _HALF_MADE.search(str(error)):
        return {"why": database.remedy(path, database.HALF_MADE), "lasts": True}
    lines = (str(error).strip() or type(error).__name__).splitlines()
    refuses = answers(error) and error.get_http_status_code() not in (408, 429)  # type: ignore[attr-defined]
    return {"why": uris.hidden(lines[0], uri)[:300], "lasts": refuses or _LASTING.search(str(error)) is not None}
