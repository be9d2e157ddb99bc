"""Means over seeds, their spread, and what is beyond noise."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from rssearch import fronts, report, seeds
from rssearch.errors import InputError
from rssearch.record import Recorded, choose
from rssearch.recorder import Recorder

TWO: Any = {"val_accuracy": "max", "macs": "min"}
ASKED = ["dataset", "model", "rate", "seed"]


def trials(rate: float, macs: int, accuracies: list[float], **more: Any) -> list[dict[str, Any]]:
    return [
        {"key": f"{rate}-{seed}", "status": "finished", "dataset": "d", "model": "m", "rate": rate, "seed": seed}
        | {"val_accuracy": accuracy, "macs": macs, "baseline_val_accuracy": 0.9, "baseline_macs": 100, **more}
        for seed, accuracy in enumerate(accuracies)
    ]


def study() -> list[dict[str, Any]]:
    """Means .5, .8 and .82 at rising cost; the last step is within the noise. One seed of .6 was lucky."""
    lucky, last = trials(0.6, 60, [0.9, 0.3, 0.6]), trials(0.3, 70, [0.76, 0.88])
    return [*trials(0.9, 10, [0.5, 0.49, 0.51]), *trials(0.5, 50, [0.8, 0.79, 0.81]), *lucky, *last]


def test_a_row_of_means_is_exact() -> None:
    (row,) = seeds.means(trials(0.5, 50, [0.7, 0.8, 0.9]), ASKED)
    assert row["val_accuracy"] == pytest.approx(0.8)
    assert row["val_accuracy_std"] == pytest.approx(0.1)
    assert row["val_accuracy_interval"] == pytest.approx(4.302652730 * 0.1 / math.sqrt(3))  # t of 2 degrees of freedom
    same = {"dataset": "d", "model": "m", "rate": 0.5, "macs": 50, "status": "finished", "seeds": 3}
    assert row | same == row
    assert row["keys"] == ["0.5-0", "0.5-1", "0.5-2"]
    assert row["key"] == "0.5-0"
    assert not row.keys() & {"seed", "macs_std", "baseline_macs_std"}


def test_a_metric_that_a_seed_lacks_has_no_mean() -> None:
    rows = trials(0.5, 50, [0.7, 0.8])
    rows[0]["test_accuracy"], rows[1]["test_accuracy"] = 0.6, None
    assert "test_accuracy" not in seeds.means(rows, ASKED)[0]
    rows[1]["test_accuracy"] = 0.7
    assert seeds.means(rows, ASKED)[0]["test_accuracy"] == pytest.approx(0.65)


def test_only_finished_trials_count() -> None:
    rows = trials(0.5, 50, [0.7, 0.8, 0.1])
    rows[2]["status"] = "failed"
    assert [row["seeds"] for row in seeds.means(rows, ASKED)] == [2]
    assert [row["key"] for row in seeds.shown(rows, ASKED)] == ["0.5-0", "0.5-2"]


def test_without_several_seeds_trials_stay_trials() -> None:
    rows = [*trials(0.5, 50, [0.7]), *trials(0.3, 70, [0.8])]
    assert seeds.shown(rows, ASKED) == rows
    assert not seeds.vary(trials(0.5, 50, [0.7, 0.8]), ["dataset", "model", "rate"])
    assert seeds.note(rows) is None


@pytest.mark.parametrize(
    ("cheap", "dear", "tie"),
    [
        ([0.5, 0.49, 0.51], [0.8, 0.79, 0.81], False),
        ([0.8, 0.79, 0.81], [0.76, 0.88, 0.82], True),
        ([0.8, 0.8], [0.9, 0.9], False),  # no spread at all: any gain counts
        ([0.8], [0.9, 0.91], False),  # nothing is known of the noise
    ],
)
def test_ties(cheap: list[float], dear: list[float], tie: bool) -> None:
    rows = seeds.means([*trials(0.5, 50, cheap), *trials(0.3, 70, dear)], ASKED)
    assert seeds.ties(rows, TWO) == ({"0.3-0"} if tie else set())


def test_the_test_is_welchs() -> None:
    """A hand-made case at both sides of the threshold: t = 2.92 is the 95 % point of 2 degrees of freedom."""

    def pair(gain: float) -> list[dict[str, Any]]:
        exact = trials(0.5, 50, [0.5, 0.5, 0.5])
        return seeds.means([*exact, *trials(0.3, 70, [0.5 + gain - 0.1, 0.5 + gain, 0.5 + gain + 0.1])], ASKED)

    threshold = 2.919986 * 0.1 / math.sqrt(3)
    assert seeds.ties(pair(threshold * 0.999), TWO) == {"0.3-0"}
    assert seeds.ties(pair(threshold * 1.001), TWO) == set()


def test_nothing_is_said_without_a_quality_and_a_cost() -> None:
    rows = seeds.means(study(), ASKED)
    assert seeds.ties(rows, {"val_accuracy": "max"}) == set()
    assert seeds.ties(rows, {"macs": "min"}) == set()


def test_the_front_of_means_leaves_the_lucky_seed_out(tmp_path: Path) -> None:
    assert "0.6-0" in [row["key"] for row in fronts.front_rows(study(), TWO)]
    paths = report.write_front(tmp_path, study(), TWO, study="s", dimensions=ASKED)
    assert [path.name for path in paths] == ["front.csv", "front.json", "front.png", "front.html", "means.csv"]
    means = json.loads((tmp_path / "front.json").read_text())["means"][0]
    assert [row["rate"] for row in means["members"]] == [0.9, 0.5, 0.3]
    assert means["within_noise"] == ["0.3-0"]
    table = list(csv.DictReader((tmp_path / "means.csv").open()))
    assert [(row["rate"], row["seeds"]) for row in table] == [("0.9", "3"), ("0.5", "3"), ("0.6", "3"), ("0.3", "2")]
    page = (tmp_path / "front.html").read_text()
    assert "80.0 ± 1.0 %" in page
    assert "4 configurations, means of 2 to 3 seeds" in page
    assert "≈ not better than the cheaper one" in page
    drawn = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert drawn["fronts"][0]["state"] == ["on the front", "on the front", "dominated", "on the front"]
    assert drawn["fronts"][0]["bars"]["val_accuracy"] == pytest.approx([0.01, 0.01, 0.3, 0.12 / math.sqrt(2)])


def test_the_console_shows_means() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report.format_front(study(), TWO, "table", study="s", dimensions=ASKED))
    text = " ".join(console.export_text().split())  # no line breaks, no hard spaces
    assert "80.0 ± 1.0 %" in text
    assert "means of 2 to 3 seeds ± standard deviation" in text
    assert "≈" in text


def test_of_a_configuration_the_best_seed_is_taken() -> None:
    found = Recorded("s", Path(), Path(), TWO, {}, study(), ASKED)
    assert choose(found, best="accuracy")["key"] == "0.3-1"
    assert choose(found, best="macs<=60")["key"] == "0.5-2"
    assert choose(found, trial="0.6-0")["key"] == "0.6-0"
    with pytest.raises(InputError, match="no member of the front is that small"):
        choose(found, best="macs<=5")


def test_all_seeds_of_the_front_of_means_are_worth_measuring() -> None:
    search = SimpleNamespace(objectives=TWO, constraints={})
    about: Any = SimpleNamespace(
        question=SimpleNamespace(config=SimpleNamespace(search=search)),
        rows=study,
        dimensions=lambda: ASKED,
        front=lambda: fronts.front_rows(study(), TWO),
    )
    keys = Recorder.worth_measuring(about)
    assert len(keys) == len(set(keys))
    means = {f"{rate}-{seed}" for rate in (0.9, 0.5) for seed in range(3)} | {"0.3-0", "0.3-1"}
    assert set(keys) == means | {"0.6-0"}  # the lucky seed is on the front of trials
