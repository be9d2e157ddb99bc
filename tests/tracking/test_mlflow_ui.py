"""The MLflow UI in a real browser, on the record of a real study: what a person sees who runs `rssearch ui`.

RSSEARCH_SCREENSHOTS=docs/mlflow pytest --basetemp=/tmp/studies THIS_FILE makes the pictures of docs/mlflow.md anew.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from rssearch.config.loading import load_study
from rssearch.front.trials import front_rows
from rssearch.report import files as report
from rssearch.storage.journal import flat
from rssearch.storage.records import TrialRecord
from rssearch.tracking.client import Tracker, default_uri
from rssearch.tracking.views import FRONT, address, experiment_tags
from tests.support.browser import browser
from tests.support.servers import MlflowServer

__all__ = ["browser"]  # a fixture

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
STUDY = "eurosat-methods"
SCREENSHOTS = os.environ.get("RSSEARCH_SCREENSHOTS")
PATIENCE = 60_000  # milliseconds for the UI to show something, on a loaded machine
REQUEST = ("dataset", "model", "method", "rate")
MEASURED = ("test_accuracy", "latency_ms", "latency_iqr_ms", "latency_threads", "latency_device")


def records() -> list[TrialRecord]:
    """The journal of the study in docs/results, from its tables."""
    with (RESULTS / "eurosat_methods_epochs.csv").open() as file:
        epochs = [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    with (RESULTS / "eurosat_methods.csv").open() as file:
        rows = [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    made, now = [], 1_780_000_000.0
    for row in rows:
        about = {name: row.pop(name) for name in ("key", "status", "reason")}
        point = {name: row.pop(name) for name in REQUEST}
        measured = {name: row.pop(name) for name in MEASURED}
        history = [{n: v for n, v in e.items() if n != "key"} for e in epochs if e["key"] == about["key"]]
        best = {"best/val_accuracy": max(epoch["val_accuracy"] for epoch in history)}
        title = f"{point['model']} {point['method']} rate={point['rate']}"
        more = {"kind": "trial", "title": title, "point": point, "params": point | {"input_size": 32}, "metrics": row}
        looked_at = measured if measured["test_accuracy"] is not None else None
        times = {"started": now, "ended": now + row["trial_seconds"]}
        now = times["ended"]
        line = {**about, **more, **times, "measured": looked_at, "history": history, "best": best}
        made.append(TrialRecord.from_json(line))
    return made


def _value(text: str) -> Any:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text or None


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's record in MLflow, as its session would have left it."""
    place = tmp_path_factory.mktemp("results")
    config = load_study(ROOT / "search_spaces" / "eurosat_methods.yaml")
    objectives, trials = config.search.objectives, records()
    rows = [flat(trial) for trial in trials]
    files = report.write_front(place / STUDY, rows, objectives, study=STUDY, dimensions=list(config.space))
    members = front_rows(rows, objectives)
    tracker = Tracker(default_uri(place), STUDY, place / "mlartifacts" / STUDY)
    tracker.open()
    tracker.describe(experiment_tags(STUDY, objectives, config.space))
    for count in range(1, len(trials) + 1):
        front = report.fronts(rows[:count], objectives)[0]
        best = {
            "best/val_accuracy": max(r["val_accuracy"] for r in front.members),
            "best/macs": front.members[0]["macs"],
        }
        tracker.summary({"hypervolume": front.relative_hypervolume, "trials_finished": count, **best}, count)
    pareto = [row["key"] for row in members]
    assert (
        tracker.close(trials, status="FINISHED", pareto=pareto, files=files, metrics={"front_size": len(pareto)}) == 0
    )
    return place


class Ui(MlflowServer):
    """`rssearch ui` on a storage folder."""

    name = "ui"

    def command(self) -> list[str]:
        program = str(Path(sys.executable).parent / "rssearch")
        return [program, "ui", "--storage", self.store, "--port", str(self.port)]


@pytest.fixture(scope="module")
def ui(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    server = Ui(tmp_path_factory.mktemp("ui"), str(storage))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1500, "height": 850})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield opened
    context.close()


def runs(storage: Path, filter_string: str = "") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=default_uri(storage))
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], filter_string))


def keep(page: Page, name: str) -> None:
    """A picture for the documentation, without the assistant that MLflow shows at the first visit."""
    if SCREENSHOTS is None:
        return
    page.wait_for_timeout(3000)  # animations
    if page.get_by_text("MLflow Assistant").count():
        page.mouse.click(1464, 34)
        page.wait_for_timeout(2000)
    path = Path(SCREENSHOTS) / f"{name}.png"
    page.screenshot(path=path)
    _shrink(path)


def _shrink(path: Path) -> None:
    """256 colours are enough for a screenshot: half are the most frequent, half cover the rest."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    counted = sorted(image.getcolors(1 << 24) or [], reverse=True)[:128]
    covering = image.quantize(256 - len(counted), method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(channel for _, colour in counted for channel in colour), *covering])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def test_the_command_names_the_view_that_shows_the_trials_best_first(ui: Ui, page: Page) -> None:
    (line,) = [line for line in ui.log.read_text().splitlines() if line.startswith(f"{STUDY}: ")]
    page.goto(line.removeprefix(f"{STUDY}: "))
    expect(page.get_by_text("12 matching runs")).to_be_visible()
    best = max(records(), key=lambda record: record.metrics["val_accuracy"])
    names = page.get_by_role("link", name="resnet20")
    expect(names.first).to_have_text(best.title)
    for column in ("val_accuracy", "test_accuracy", "macs", "method", "rate", "Duration"):
        expect(page.get_by_role("columnheader", name=column).first).to_be_attached()
    for noise in ("images_per_second", "latency_threads", "input_size", "Source", "Dataset"):
        expect(page.get_by_role("columnheader", name=noise)).to_have_count(0)
    expect(page.get_by_text("A study of rssearch")).to_be_visible()
    keep(page, "trials")


def test_the_start_page_claims_no_telemetry(ui: Ui, page: Page) -> None:
    page.goto(f"http://127.0.0.1:{ui.port}/")
    expect(page.get_by_text("Welcome to MLflow")).to_be_visible()
    expect(page.get_by_text("collects usage data")).to_have_count(0)
    assert page.evaluate("localStorage['mlflow.settings.telemetry.enabled_v1']") == "false"


def test_the_front_is_a_view_and_a_filter(ui: Ui, page: Page, storage: Path) -> None:
    front = {run.info.run_name for run in runs(storage, "tags.rssearch.pareto = 'true'")}
    assert 1 < len(front) < 12
    page.goto(address(f"http://127.0.0.1:{ui.port}", "1", FRONT))
    expect(page.get_by_text(f"{len(front)} matching runs")).to_be_visible()
    assert set(page.get_by_role("link", name="resnet20").all_inner_texts()) == front


def test_the_charts_are_those_of_a_search(ui: Ui, page: Page) -> None:
    page.goto(address(f"http://127.0.0.1:{ui.port}", "1", charts=True))
    for chart in ("macs vs. val_accuracy", "Parallel Coordinates", "val_accuracy"):
        expect(page.get_by_role("heading", name=chart, exact=True)).to_be_visible()
    expect(page.get_by_role("heading", level=4)).to_have_count(3)  # MLflow's own are in closed sections
    expect(page.locator(".scatterlayer .point").first).to_be_visible()  # Plotly has drawn
    keep(page, "charts")


def test_the_summary_run_has_the_hypervolume_and_shows_the_front(ui: Ui, page: Page, storage: Path) -> None:
    (summary,) = runs(storage, "tags.rssearch.kind = 'study'")
    assert summary.data.metrics["best/val_accuracy"] == max(r.metrics["val_accuracy"] for r in records())
    run = f"http://127.0.0.1:{ui.port}/#/experiments/1/runs/{summary.info.run_id}"
    page.goto(f"{run}?workflowType=machine_learning")
    expect(page.get_by_role("heading", name=f"study {STUDY}")).to_be_visible()
    expect(page.get_by_text("What concerns the whole study.")).to_be_visible()
    for metric in ("hypervolume", "best/val_accuracy", "best/macs"):
        expect(page.get_by_role("link", name=metric)).to_be_visible()
    page.goto(f"{run}/artifacts/front.html?workflowType=machine_learning")
    shown = page.frame_locator("iframe").first
    expect(shown.get_by_text(STUDY).first).to_be_visible()
    expect(shown.locator(".js-plotly-plot").first).to_be_visible()
    keep(page, "front")
    page.get_by_text("front.png", exact=True).click()
    page.wait_for_function("[...document.images].some(image => image.naturalWidth === 1500)")


def test_runs_are_compared_in_parallel_coordinates(ui: Ui, page: Page, storage: Path) -> None:
    chosen = [run.info.run_id for run in runs(storage, "tags.rssearch.pareto = 'true'")]
    listed = "[" + ",".join(f'"{run}"' for run in chosen) + "]"
    page.goto(
        f'http://127.0.0.1:{ui.port}/#/compare-runs?runs={listed}&experiments=["1"]&workflowType=machine_learning'
    )
    expect(page.get_by_text(f"Comparing {len(chosen)} Runs")).to_be_visible()
    expect(page.get_by_text("Parallel Coordinates Plot").first).to_be_visible()
    expect(page.locator(".parcoords").get_by_text("val_accuracy")).to_be_visible()
    keep(page, "compare")
