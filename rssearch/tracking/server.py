"""The server of `rssearch ui`: MLflow's own, whose pages say of usage data what is true here.

MLflow's start page tells every new browser that "MLflow collects usage data", also where its telemetry is off. Whether
that was read, and whether pages may report clicks, is kept by the browser alone: where telemetry is off, both are
settled before the page starts, unless they are settled already. MLflow finds this application by the entry point
``mlflow.app``.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["create_app"]

# Names and values in the browser's storage as of MLflow 3.17; with another release they do nothing.
_SETTLED = {"mlflow.telemetry.info.alert.dismissed_v1": True, "mlflow.settings.telemetry.enabled_v1": False}
_SCRIPT = (
    "<script>for (const [name, value] of Object.entries(" + json.dumps(_SETTLED) + ")) "
    "try { localStorage.getItem(name) ?? localStorage.setItem(name, value) } catch {}</script>"
)


def create_app() -> Any:
    """MLflow's application, as its option ``--app-name`` takes it."""
    from flask import request
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app
    from mlflow.telemetry.utils import is_telemetry_disabled

    def settle(response: Any) -> Any:
        if request.endpoint == "serve" and response.status_code == 200 and response.mimetype == "text/html":
            response.direct_passthrough = False
            response.set_data(response.get_data(as_text=True).replace("<head>", f"<head>{_SCRIPT}", 1))
            for header in ("ETag", "Last-Modified"):  # of the file as it was
                response.headers.pop(header, None)
        return response

    if is_telemetry_disabled():
        pages.after_request(settle)
    return app
