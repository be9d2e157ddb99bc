"""rssearch.tracking.server: MLflow's pages with telemetry settled. A browser looks at them in test_mlflow_ui.py."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rssearch.tracking.client import APP
from rssearch.tracking.server import create_app
from tests.support.late import Late

server = Late("mlflow.server")

ROOT = Path(__file__).parents[2]
KEYS = ("mlflow.telemetry.info.alert.dismissed", "mlflow.settings.telemetry.enabled")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's pages, without what is left of another test's application."""
    monkeypatch.setattr(server.app, "after_request_funcs", {})
    monkeypatch.setattr(server.app, "_got_first_request", False)
    return server.app.test_client()


def test_the_page_settles_telemetry_before_it_starts(asked: Any) -> None:
    create_app()
    page = asked.get("/").get_data(as_text=True)
    assert page.index("localStorage.setItem") < page.index("<script defer")
    for key in KEYS:
        assert f'"{key}_v1"' in page
    assert asked.get("/ajax-api/3.0/mlflow/ui-telemetry").json["disable_ui_telemetry"] is True


def test_the_page_is_mlflows_own_where_telemetry_is_turned_on(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.telemetry.utils.is_telemetry_disabled", lambda: False)
    create_app()
    assert "localStorage" not in asked.get("/").get_data(as_text=True)


def test_the_names_are_those_of_the_pages() -> None:
    """In the scripts of the release that is installed."""
    scripts = Path(server.app.static_folder or "", "static", "js").glob("main.*.js")
    text = "".join(path.read_text(encoding="utf-8") for path in scripts)
    for key in KEYS:
        assert re.search(rf'"{re.escape(key)}"', text), key


def test_mlflow_finds_the_application_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["mlflow.app"][APP].partition(":")
    assert getattr(import_module(module), name) is create_app
