"""What the page's script is told of a study."""

from __future__ import annotations

from typing import Any

import pytest

from rssearch.front import gains, seeds, trials
from rssearch.report.look import COLOURS
from rssearch.report.page.payload import payload
from tests.support.pages import LIMIT, TWO, trial


def study() -> list[dict[str, Any]]:
    """On the front a and b, of which b is the knee; c is dominated, i too large, f failed, s was stopped."""
    return [
        trial("a", 0.60, 20_000_000),
        trial("b", 0.94, 40_000_000, "compound"),
        trial("c", 0.88, 50_000_000, "lfp", model="vgg16_bn"),
        trial("i", 0.93, 70_000_000, "lfp"),
        trial("f", 0.91, 30_000_000, status="failed", reason="the loss is nan", train_seconds=None),
        trial("s", 0.30, 30_000_000, status="stopped"),
    ]


def told(rows: list[dict[str, Any]], objectives: Any = TWO, dimensions: list[str] | None = None) -> dict[str, Any]:
    found = trials.fronts(rows, objectives, LIMIT)
    asked = dimensions or ["method"]
    means = trials.fronts(seeds.shown(rows, asked), objectives, LIMIT) if seeds.vary(rows, asked) else None
    return payload(found, means, "s", LIMIT, asked, None)


def column(table: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (one for one in table if one["name"] == name)
    return found


def test_every_trial_has_its_state_and_stopped_ones_are_not_drawn() -> None:
    (front,) = told(study())["fronts"]
    assert front["keys"] == ["a", "b", "c", "i", "f"]
    assert front["state"] == ["on the front", "on the front", "dominated", "infeasible", "failed"]
    assert front["hue"] == ["l1", "compound", "lfp", "lfp", "l1"]
    assert front["model"] == ["resnet18", "resnet18", "vgg16_bn", "resnet18", "resnet18"]
    assert front["trial"] == [1, 2, 3, 4, 5]
    assert front["knee"] in ("a", "b")
    assert column(front["columns"], "val_accuracy") == {
        "name": "val_accuracy",
        "title": "Validation accuracy",
        "text": ["60.0 %", "94.0 %", "88.0 %", "93.0 %", "91.0 %"],
        "number": [0.60, 0.94, 0.88, 0.93, 0.91],
    }
    assert column(front["columns"], "method")["number"] is None


def test_axes_are_the_numbers_that_vary() -> None:
    data = told(study())
    assert data["axes"] == {"x": "macs", "y": "val_accuracy", "colour": ""}
    assert data["metrics"] == [
        {"name": n, "title": title, "label": label, "factor": factor, "better": better}
        for n, title, label, factor, better in (
            ("val_accuracy", "Validation accuracy", "Validation accuracy (%)", 100.0, "max"),
            ("macs", "MACs", "MACs (M)", 1e-6, "min"),
            ("rate", "Rate", "Rate", 1.0, None),
            ("params", "Parameters", "Parameters (M)", 1e-6, "min"),
        )
    ]
    three = told(study(), {**TWO, "train_seconds": "min"})
    assert three["axes"] == {"x": "macs", "y": "val_accuracy", "colour": "train_seconds"}  # an objective always is one
    assert told(study(), {"val_accuracy": "max"})["axes"]["x"] == ""


def test_what_a_device_measures_is_an_axis_and_better_where_it_is_less() -> None:
    costs = ("latency_ms@pi", "latency_p95_ms@pi", "peak_rss_bytes@pi", "energy_mj@pi", "bops", "peak_activation_bytes")
    aside = ("latency_iqr_ms@pi", "latency_passes@pi", "latency_threads@pi")
    rows = [row | dict.fromkeys((*costs, *aside), 2.0 + i) for i, row in enumerate(study())]
    better = {metric["name"]: metric["better"] for metric in told(rows)["metrics"]}
    assert {name: better[name] for name in costs} == dict.fromkeys(costs, "min")
    assert not better.keys() & {*aside}


def test_colours_and_symbols_are_those_of_the_picture() -> None:
    data = told(study())
    assert data["hue"] == {"title": "Method", "colours": {"compound": COLOURS[0], "l1": COLOURS[1], "lfp": COLOURS[2]}}
    assert data["symbols"] == {"resnet18": "circle", "vgg16_bn": "square"}
    assert data["limits"] == {"macs": {"max": 60e6, "min": None}}


def test_baselines_have_every_metric() -> None:
    (front,) = told(study())["fronts"]
    before = {"val_accuracy": 0.95, "macs": 1e8, "params": 1e7}
    lines = [["Validation accuracy", "95.0 %"], ["MACs", "100 M"], ["Parameters", "10 M"]]
    for found, name in zip(front["baselines"], ("resnet18", "vgg16_bn"), strict=True):
        assert found == {"model": name, "lines": [["Model", name], *lines], **before}


def test_hover_tells_what_was_lost_and_gained_before_the_rest() -> None:
    timed = {"latency_ms": 2.0, "latency_iqr_ms": 0.5, "baseline_latency_ms": 3.0, "baseline_latency_iqr_ms": 0.1}
    rows = [gains.compared(row | timed | {"zeta": i}) for i, row in enumerate(study())]
    (front,) = told(rows)["fronts"]
    names = [one["name"] for one in front["columns"]]
    assert names[names.index("val_accuracy") + 1] == "val_accuracy_difference"
    assert names.index("speedup") == names.index("latency_ms") + 1 < names.index("zeta")
    assert "latency_iqr_ms" not in names  # a latency has it in brackets
    assert column(front["columns"], "latency_ms")["text"][0] == "2 (0.5)‡"
    assert column(front["columns"], "val_accuracy_difference")["text"][:2] == ["−35.0", "−1.0"]
    assert ["Latency (ms)", "3 (0.1)"] in front["baselines"][0]["lines"]


def test_progress_over_trials_and_training_time() -> None:
    (front,) = told(study())["fronts"]
    assert front["progress"]["volume"] == pytest.approx([0.48, *[0.6 * 0.8 + 0.34 * 0.6] * 5])
    assert front["progress"]["seconds"] == [2.0, 4.0, 6.0, 8.0, 8.0, 10.0]
    assert front["progress"]["relative"]
    (untimed,) = told([{k: v for k, v in row.items() if k != "train_seconds"} for row in study()])["fronts"]
    assert untimed["progress"]["seconds"] is None


def test_the_table_holds_all_trials_and_marks_the_front() -> None:
    table = told(study())["trials"]
    assert [name for name in table["state"] if "★" not in name] == [
        "● on the front", "dominated", "infeasible", "failed", "stopped",
    ]  # fmt: skip
    assert table["member"] == [True, True, False, False, False, False]
    names = [one["name"] for one in table["columns"]]
    assert names == ["method", "val_accuracy", "macs", "params", "train_seconds", "reason", "key"]
    assert column(table["columns"], "reason")["text"] == ["", "", "", "", "the loss is nan", ""]


def test_means_are_drawn_with_bars_and_the_table_keeps_the_trials() -> None:
    rows = [trial(f"a{seed}", 0.6 + seed / 10, 20_000_000, seed=seed) for seed in (0, 1)]
    rows += [trial(f"b{seed}", 0.9, 40_000_000, "lfp", seed=seed) for seed in (0, 1)]
    rows.append(trial("lucky", 0.95, 30_000_000, "fpgm"))
    rows.append(trial("poor", 0.05, 30_000_000, "fpgm", seed=1))
    data = told(rows, dimensions=["method", "seed"])
    (front,) = data["fronts"]
    assert front["keys"] == ["a0", "b0", "lucky"]
    assert front["state"] == ["on the front", "on the front", "dominated"]
    assert front["ties"] == ["b0"]  # of 65 ± 7 and 90 %, by two seeds each
    assert front["bars"]["val_accuracy"][0] == pytest.approx(0.1 / 2**0.5)
    assert column(front["columns"], "val_accuracy")["text"][0] == "65.0 ± 7.1 %"
    assert data["trials"]["member"] == [True, True, True, True, False, False]
    assert data["trials"]["state"][4:] == ["dominated", "dominated"]  # on the front of trials, by luck
    assert "seed" not in [metric["name"] for metric in data["metrics"]]


def test_more_than_three_objectives_have_a_page() -> None:
    four = {**TWO, "params": "min", "train_seconds": "min"}
    assert [metric["name"] for metric in told(study(), four)["metrics"]][:4] == [*four]


def test_trials_without_networks() -> None:
    rows = [{"key": str(i), "status": "finished", "score": float(i), "size": i} for i in (1, 2)]
    data = payload(trials.fronts(rows, {"score": "max"}), None, "s", {}, ["size"], None)
    assert data["hue"] == {"title": "", "colours": {}}
    assert data["fronts"][0]["hue"] == ["", ""]
    assert [metric["name"] for metric in data["metrics"]] == ["score", "size"]
    empty = payload(trials.fronts([], TWO), None, "s", {}, None, None)
    assert empty["fronts"][0]["note"] == "No finished trial yet."
    assert empty["trials"]["state"] == []
