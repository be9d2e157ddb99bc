"""front.html in a real browser: it draws, answers to the mouse, and believes no markup of a study's."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from rssearch.report import files
from rssearch.storage.artifacts import Store
from tests.support.browser import browser
from tests.support.pages import LIMIT, TWO, trial

__all__ = ["browser"]  # a fixture

HOSTILE = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'
LOADED = "body[data-ready]"
LOCAL = ("file:", "blob:", "data:")
PATIENCE = 60_000  # milliseconds; the page takes two seconds on a quiet machine

Open = Callable[..., Page]


def study() -> list[dict[str, Any]]:
    """On the front a, b (the knee) and c; the order of the parameters is not that of the MACs."""
    return [
        trial("c", 0.94, 50_000_000, HOSTILE, params=1_000_000),
        trial("a", 0.60, 20_000_000),
        trial("b", 0.92, 30_000_000, "compound", params=9_000_000),
        trial("d", 0.88, 40_000_000, "lfp", model="vgg16_bn"),
        trial("i", 0.93, 70_000_000, "lfp"),
        trial("f", None, 30_000_000, status="failed", reason=f"the loss is nan {HOSTILE}", train_seconds=None),
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's page, with the channels of two members."""
    folder = tmp_path_factory.mktemp("storage") / "study"
    store = Store(folder.parent)
    for key, left in (("a", 2), ("b", 6)):
        layers = {
            "conv1": {"width": {"out": 8}, "out": [*range(left)]},
            "fc<b>": {"width": {"out": 16}, "out": [*range(left)]},
        }
        store.put("models", key, {"spec.json": json.dumps({"format": 1, "layers": layers}).encode()})
    (path,) = files.write_front(
        folder,
        study(),
        TWO,
        study=f"scenes {HOSTILE}",
        constraints=LIMIT,
        dimensions=["method", "rate"],
        folder=folder,
        formats=["html"],
    )
    return Path(str(path))


@pytest.fixture
def view(browser: Browser) -> Iterator[Open]:
    """Opens a page and waits until it is drawn; afterwards: nothing was wrong, and nothing was loaded."""
    wrong: list[str] = []
    pages: list[Page] = []

    def open_page(path: Path, width: int = 1280) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.extend([] if request.url.startswith(LOCAL) else [request.url]))
        page.goto(path.as_uri())
        page.wait_for_selector(LOADED)
        return page

    yield open_page
    hacked = [page.evaluate("window.hacked") for page in pages]
    for page in pages:
        page.close()
    assert wrong == []
    assert hacked == [None] * len(hacked)


def drawn(page: Page, plot: str = "front-0") -> list[dict[str, Any]]:
    """The traces with points."""
    pick = "data.map(({ name, x, y, mode }) => ({ name, x, y, mode }))"
    found: list[dict[str, Any]] = page.evaluate(f"document.getElementById('{plot}').{pick}")
    return [trace for trace in found if trace["x"] != [None]]


def points(page: Page) -> set[tuple[float, float]]:
    """Where the trials are drawn, but for lines, baselines and knee."""
    named = [trace for trace in drawn(page) if trace["mode"] == "markers" and trace.get("name") not in (None, "knee")]
    return {(round(x, 6), round(y, 6)) for trace in named for x, y in zip(trace["x"], trace["y"], strict=True)}


def axis_titles(page: Page) -> tuple[str, str]:
    return page.text_content("#front-0 .xtitle") or "", page.text_content("#front-0 .ytitle") or ""


def rows(page: Page) -> list[str]:
    """The keys of the rows that can be seen, from top to bottom."""
    keys = "all => all.filter(row => !row.hidden).map(row => row.lastChild.textContent)"
    return list(page.eval_on_selector_all("#trials tbody tr", keys))


def move_to(page: Page, x: float, y: float) -> None:
    """The mouse to a place in the plot, in the units of its axes."""
    left, top = page.evaluate(
        """([x, y]) => {
            const plot = document.getElementById("front-0"), { xaxis, yaxis } = plot._fullLayout;
            plot.scrollIntoView();
            const area = plot.querySelector(".nsewdrag").getBoundingClientRect();
            return [area.left + xaxis.d2p(x), area.top + yaxis.d2p(y)];
        }""",
        [x, y],
    )
    page.mouse.move(left - 40, top - 40)
    page.mouse.move(left, top)


def test_it_draws_the_front_and_hover_tells_a_trial(view: Open, written: Path) -> None:
    page = view(written)
    assert axis_titles(page) == ("MACs (M)", "Validation accuracy (%)")
    assert points(page) == {(50, 94), (20, 60), (30, 92), (40, 88), (70, 93)}
    (line,) = (trace for trace in drawn(page) if trace["name"] == "front")
    assert (line["x"], line["y"]) == ([20, 30, 50], pytest.approx([60, 92, 94]))
    assert page.evaluate("document.getElementById('front-0').layout.shapes.map(s => [s.type, s.x0])") == [
        ["rect", 60],
        ["line", 60],
        *[["line", 0]] * 2,  # what the baselines of two networks reach
    ]
    move_to(page, 30, 92)
    page.wait_for_selector("#front-0 .hoverlayer .hovertext")
    told = page.text_content("#front-0 .hoverlayer") or ""
    assert "knee, on the front" in told
    assert "Method: compound" in told
    assert "Validation accuracy: 92.0 %" in told
    move_to(page, 50, 94)
    page.wait_for_function("document.querySelector('#front-0 .hoverlayer').textContent.includes('<img src=x')")


def test_axes_and_colours_can_be_chosen(view: Open, written: Path) -> None:
    page = view(written)
    offered = page.eval_on_selector_all("#x option", "all => all.map(o => o.textContent)")
    assert offered == [
        *("Trial", "Validation accuracy", "MACs", "Rate", "Validation accuracy difference (points)", "Parameters"),
        *("MACs left", "Parameters left"),
    ]
    page.select_option("#x", "params")
    page.wait_for_function("document.querySelector('#front-0 .xtitle').textContent === 'Parameters (M)'")
    assert points(page) == {(1, 94), (2, 60), (9, 92), (4, 88), (7, 93)}
    (line,) = (trace for trace in drawn(page) if trace["name"] == "best in these axes")
    assert (line["x"], line["y"]) == ([1], pytest.approx([94]))
    page.select_option("#y", "macs")
    page.wait_for_function("document.querySelector('#front-0 .ytitle').textContent === 'MACs (M)'")
    assert (3, 30) in points(page)  # the failed trial, whose costs are known
    page.select_option("#x", "")
    page.wait_for_function("document.querySelector('#front-0 .xtitle').textContent === 'Trial'")
    assert (1, 50) in points(page)
    page.select_option("#colour", "val_accuracy")
    page.wait_for_function("document.querySelector('#front-0 .colorbar, #front-0 .cbcoloraxis') !== null")
    assert {trace["name"] for trace in drawn(page) if trace["mode"] == "markers"} >= {"Validation accuracy", "unknown"}


def test_the_table_is_sorted_and_filtered(view: Open, written: Path) -> None:
    page = view(written)
    assert rows(page) == ["c", "a", "b", "d", "i", "f"]
    head = page.locator("#trials th", has_text="Validation accuracy").locator("button")
    head.click()
    assert rows(page) == ["a", "d", "b", "i", "c", "f"]  # what is not known comes last
    head.click()
    assert rows(page) == ["c", "i", "b", "d", "a", "f"]
    assert page.get_attribute("#trials th[aria-sort]", "aria-sort") == "descending"
    page.fill("#filter", "LFP dominated")
    assert rows(page) == ["d"]
    assert page.text_content("#count") == "1 of 6 trials"
    page.fill("#filter", "")
    assert len(rows(page)) == 6
    marked = page.eval_on_selector_all("#trials tr.member", "all => all.map(r => r.lastChild.textContent)")
    assert sorted(marked) == ["a", "b", "c"]
    assert HOSTILE in (page.text_content("#trials") or "")


def test_a_member_shows_its_channels(view: Open, written: Path) -> None:
    page = view(written)
    assert page.input_value("#member") == "b"  # the knee
    assert [trace["y"] for trace in drawn(page, "channels")] == [[8, 16], [6, 6]]
    page.select_option("#member", "a")
    page.wait_for_function("document.getElementById('channels').data[1].y[0] === 2")
    assert drawn(page, "channels")[1]["x"] == ["conv1", "fc&lt;b&gt;"]
    move_to(page, 30, 92)
    page.wait_for_selector("#front-0 .hoverlayer .hovertext")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function("document.getElementById('member').value === 'b'")
    assert drawn(page, "channels")[1]["y"] == [6, 6]


def test_hypervolume_over_trials_and_over_time(view: Open, written: Path) -> None:
    page = view(written)
    (over_trials,) = drawn(page, "progress")
    assert over_trials["x"] == [1, 2, 3, 4, 5, 6]
    assert over_trials["y"] == sorted(over_trials["y"])
    page.select_option("#over", "seconds")
    page.wait_for_function("document.querySelector('#progress .xtitle').textContent.includes('(s)')")
    (over_time,) = drawn(page, "progress")
    assert over_time["x"] == [2, 4, 6, 8, 10, 10]
    assert over_time["y"] == over_trials["y"]


def test_dark_mode_follows_the_system_and_the_button(view: Open, written: Path) -> None:
    page = view(written)
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "document.getElementById('front-0').layout.font.color"
    assert (page.evaluate(ground), page.evaluate(ink)) == ("rgb(255, 255, 255)", "rgb(34, 34, 34)")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ink} === 'rgb(228, 231, 234)'")
    assert page.evaluate(ground) == "rgb(22, 25, 29)"
    page.click("#theme")
    page.wait_for_function(f"{ink} === 'rgb(34, 34, 34)'")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="light")
    page.click("#theme")  # what was chosen stays, whatever the system says
    page.emulate_media(color_scheme="dark")
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == "rgb(22, 25, 29)"
    assert page.evaluate("document.getElementById('progress').layout.font.color") == "rgb(228, 231, 234)"


def test_hover_over_a_baseline_tells_what_it_reaches(view: Open, written: Path) -> None:
    page = view(written)
    move_to(page, 100, 95)
    page.wait_for_selector("#front-0 .hoverlayer .hovertext")
    told = page.text_content("#front-0 .hoverlayer") or ""
    assert "before pruning" in told
    assert "Validation accuracy: 95.0 %" in told
    assert "Parameters: 10 M" in told


def test_dimensions_are_drawn_or_it_is_said_why_not(view: Open, written: Path, tmp_path: Path) -> None:
    few = view(written)
    assert few.text_content("#dimensions-note") == "Left out: 5 finished trials, and at least 8 are needed."
    assert not few.is_visible("#importances")
    trials = [
        trial(f"{method}{macs}", worth + macs / 1e9, macs, method)
        for method, worth in (("l1", 0.8), (HOSTILE, 0.5))
        for macs in range(10_000_000, 50_000_000, 10_000_000)
    ]
    (path,) = files.write_front(tmp_path, trials, TWO, study="s", dimensions=["method", "rate"], formats=["html"])
    page = view(Path(str(path)))
    accuracy, macs = drawn_bars(page)
    assert accuracy["x"][0] > 90  # of the accuracy's variance by the method
    assert macs["x"][1] > 90  # of the MACs' by the rate
    assert page.locator("#slices .plot").count() == 2
    page.select_option("#objective", "1")
    page.wait_for_function("document.querySelector('#slices .ytitle').textContent === 'MACs (M)'")
    assert page.evaluate("document.querySelector('#slices .plot').data[0].x.length") == 8


def drawn_bars(page: Page) -> list[dict[str, Any]]:
    """The bars of the importances, one series for each objective."""
    found: list[dict[str, Any]] = page.evaluate(
        "document.getElementById('importances').data.map(({ x, y }) => ({ x, y }))"
    )
    return found


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(view: Open, written: Path, width: int) -> None:
    page = view(written, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    plot = page.locator("#front-0 svg.main-svg").first.bounding_box()
    assert plot is not None
    assert width * 0.7 < plot["width"] <= width


def test_collapsed_trials_are_out_of_sight_until_asked_for(view: Open, tmp_path: Path) -> None:
    trials = [trial(str(i), a, 10_000_000 * (i + 1)) for i, a in enumerate((0.10, 0.92, 0.93, 0.94))]
    (path,) = files.write_front(tmp_path, trials, TWO, study="s", formats=["html"])
    page = view(Path(str(path)))
    span = "document.getElementById('front-0').layout.yaxis.range"
    low, high = page.evaluate(span)
    assert 90 < low < 92
    assert 95 < high < 96
    page.check("#whole")
    assert page.evaluate(span)[0] < 10


@pytest.mark.parametrize("objectives", [TWO, {"val_accuracy": "max"}, {**TWO, "params": "min"}], ids=[2, 1, 3])
def test_two_datasets_and_empty_ones(view: Open, tmp_path: Path, objectives: Any) -> None:
    trials = [row | {"dataset": name} for name in ("eurosat", "ucmerced") for row in study()]
    trials.append(trial("n", None, 1, dataset="void", status="failed"))
    (path,) = files.write_front(tmp_path, trials, objectives, study="s", formats=["html"])
    page = view(Path(str(path)))
    assert page.locator("#fronts .plot").count() == 2
    assert page.get_by_text("No finished trial yet.").count() == 1
    assert len(drawn(page, "progress")) == 3
    (empty,) = files.write_front(tmp_path / "empty", [], objectives, study="s", formats=["html"])
    assert view(Path(str(empty))).locator("#fronts .plot").count() == 0


def test_five_hundred_trials_are_less_than_five_megabytes(view: Open, tmp_path: Path) -> None:
    draw = random.Random(0)
    trials = [
        trial(f"{i:016x}", draw.random(), draw.randrange(10**6, 10**8), draw.choice(["l1", "lfp", "hrank"]))
        | {f"metric_{k}": draw.random() for k in range(25)}
        | {"split_hash": "e" * 64, "finetune.lr": draw.random()}
        for i in range(500)
    ]
    (path,) = files.write_front(tmp_path, trials, TWO, study="large", formats=["html"])
    assert Path(str(path)).stat().st_size < 5_000_000
    page = view(Path(str(path)))
    assert len(rows(page)) == 500
    assert len(points(page)) == 500


def test_one_trial_has_no_plot_over_time(view: Open, tmp_path: Path) -> None:
    (path,) = files.write_front(tmp_path, [trial("a", 0.6, 20_000_000)], TWO, study="s", formats=["html"])
    page = view(Path(str(path)))
    assert page.query_selector("#progress") is None
    assert page.query_selector("#over") is None
    assert "With one trial there is nothing to show over time" in page.inner_text("body")
    page.click("#theme")
    page.wait_for_function("document.body.dataset.ready === 'true'")
