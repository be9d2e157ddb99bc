"""Means over seeds, their spread, and what is beyond noise."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rssearch.errors import InputError
from rssearch.front import seeds
from rssearch.front import trials as fronts
from rssearch.report import files
from rssearch.report.recorded import Recorded, choose
from rssearch.study.recorder import Recorder

TWO: Any = {"val_accuracy": "max", "macs": "min"}
ASKED = ["dataset", "model", "rate", "seed"]
POWER, RISK = (0.794, 0.226), (0.048, 0.002)  # with pairs, and without


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
    assert row["by_seed"] == {0: {"val_accuracy": 0.7}, 1: {"val_accuracy": 0.8}, 2: {"val_accuracy": 0.9}}
    assert row["missing_seeds"] == []
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
        ([0.5, 0.6, 0.7], [0.52, 0.621, 0.719], False),  # the seeds differ by more, and alike in both
        ([0.5, 0.6, 0.7], [0.719, 0.621, 0.52], True),  # the same means, but by other seeds
        ([0.8, 0.8], [0.9, 0.9], False),  # no spread at all: any gain counts
        ([0.5, 0.7], [0.6, 0.8], False),
        ([0.8], [0.9, 0.91], False),  # nothing is known of the noise
    ],
)
def test_ties(cheap: list[float], dear: list[float], tie: bool) -> None:
    rows = seeds.means([*trials(0.5, 50, cheap), *trials(0.3, 70, dear)], ASKED)
    assert seeds.ties(rows, TWO) == ({"0.3-0"} if tie else set())


def test_the_test_is_students_on_the_differences() -> None:
    """A hand-made case at both sides of the threshold: t = 2.92 is the 95 % point of 2 degrees of freedom."""

    def pair(gain: float) -> list[dict[str, Any]]:
        cheap = [0.3, 0.5, 0.6]
        dear = [x + d for x, d in zip(cheap, (gain - 0.1, gain, gain + 0.1), strict=True)]
        return seeds.means([*trials(0.5, 50, cheap), *trials(0.3, 70, dear)], ASKED)

    threshold = 2.919986 * 0.1 / math.sqrt(3)
    assert seeds.ties(pair(threshold * 0.999), TWO) == {"0.3-0"}
    assert seeds.ties(pair(threshold * 1.001), TWO) == set()
    (step,) = seeds.steps(pair(0.2), TWO)
    assert (step.key, step.than, step.seeds, step.by_chance) == ("0.3-0", "0.5-0", 3, False)
    assert step.difference == pytest.approx(0.2)
    assert step.interval == pytest.approx(4.302652730 * 0.1 / math.sqrt(3))


def test_pairs_are_of_the_seeds_that_both_have() -> None:
    rows = [*trials(0.5, 50, [0.5, 0.6, 0.7, 0.1]), *trials(0.3, 70, [0.9, 0.62, 0.721, 0.119])]
    rows[0]["status"] = rows[4]["status"] = "failed"
    (step,) = seeds.steps(seeds.means(rows, ASKED), TWO)
    assert (step.seeds, step.by_chance) == (3, False)
    assert step.difference == pytest.approx(0.02)
    for row in (rows[2], rows[3], rows[5]):
        row["status"] = "failed"
    assert seeds.steps(seeds.means(rows, ASKED), TWO) == [seeds.Step("0.3-2", "0.5-1", 0, None, None, False)]


def test_datasets_are_not_compared() -> None:
    rows = [*trials(0.5, 50, [0.8, 0.81]), *trials(0.3, 10, [0.5, 0.6], dataset="e")]
    assert seeds.steps(seeds.means(rows, ASKED), TWO) == []


def test_the_power_of_pairing() -> None:
    """The figures of docs/studies.md: a gain of 1 point, n = 3 seeds, 500 studies drawn from a fixed state.

    Model, in points: the accuracy of a trial is that of its configuration, plus that of its seed (normal, standard
    deviation 1, the same for both configurations), plus noise (normal, standard deviation 0.3, of its own).
    """
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    block, noise = rng.normal(0, 0.01, (500, 1, 3)), rng.normal(0, 0.003, (500, 2, 3))
    drawn = 0.8 + block + noise

    def found(studies: Any) -> tuple[float, float]:
        """The shares of studies where the dearer one counts as better: with pairs, and without (Welch)."""
        rows = (seeds.means([*trials(0.5, 50, list(a)), *trials(0.3, 70, list(b))], ASKED) for a, b in studies)
        welch = ttest_ind(studies[:, 1], studies[:, 0], axis=1, equal_var=False, alternative="greater")
        return sum(not seeds.ties(pair, TWO) for pair in rows) / len(studies), float((welch.pvalue < 0.05).mean())

    assert found(drawn + np.array([[0.0], [0.01]])) == POWER
    assert found(drawn) == RISK


def test_nothing_is_said_without_a_quality_and_a_cost() -> None:
    rows = seeds.means(study(), ASKED)
    assert seeds.ties(rows, {"val_accuracy": "max"}) == set()
    assert seeds.ties(rows, {"macs": "min"}) == set()


def test_the_front_of_means_leaves_the_lucky_seed_out(tmp_path: Path) -> None:
    assert "0.6-0" in [row["key"] for row in fronts.front_rows(study(), TWO)]
    paths = files.write_front(tmp_path, study(), TWO, study="s", dimensions=ASKED)
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
    console.print(files.format_front(study(), TWO, "table", study="s", dimensions=ASKED))
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
        definition=SimpleNamespace(config=SimpleNamespace(search=search)),
        rows=study,
        dimensions=lambda: ASKED,
        front=lambda: fronts.front_rows(study(), TWO),
    )
    keys = Recorder.front_candidates(about)
    assert len(keys) == len(set(keys))
    means = {f"{rate}-{seed}" for rate in (0.9, 0.5) for seed in range(3)} | {"0.3-0", "0.3-1"}
    assert set(keys) == means | {"0.6-0"}  # the lucky seed is on the front of trials


def test_a_configuration_without_all_seeds_is_marked_everywhere(tmp_path: Path) -> None:
    rows = [*trials(0.5, 50, [0.7, 0.8, 0.9]), *trials(0.3, 70, [0.5, 0.9, 0.95]), *trials(0.9, 80, [0.1, 0.2, 0.3])]
    rows[3] |= {"status": "failed", "reason": "the loss is nan"}
    rows[8] |= {"status": "stopped"}
    averaged = seeds.means(rows, ASKED)
    assert [(row["seeds"], row["missing_seeds"]) for row in averaged] == [(3, []), (2, [0]), (2, [2])]
    assert seeds.incomplete(averaged) == {"0.3-1", "0.9-0"}
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(files.format_front(rows, TWO, "table", study="s", dimensions=ASKED))
    text = console.export_text()
    assert "≈†" in text
    assert "† lacks seeds that others have" in text
    files.write_front(tmp_path, rows, TWO, study="s", dimensions=ASKED, formats=["csv", "json", "html", "tex"])
    table = list(csv.DictReader((tmp_path / "means.csv").open()))
    assert [row["missing_seeds"] for row in table] == ["[]", "[0]", "[2]"]
    by_seed = json.loads(table[1]["by_seed"])
    assert {seed: values["val_accuracy"] for seed, values in by_seed.items()} == {"1": 0.9, "2": 0.95}
    (means,) = json.loads((tmp_path / "front.json").read_text())["means"]
    assert means["incomplete"] == ["0.3-1", "0.9-0"]
    (step,) = means["steps"]
    assert step.pop("difference") == pytest.approx(0.075)  # seeds 1 and 2: 0.1 and 0.05
    assert step.pop("interval") == pytest.approx(12.7062047 * 0.025)
    assert step == {"key": "0.3-1", "than": "0.5-0", "seeds": 2, "by_chance": True}
    page = (tmp_path / "front.html").read_text()
    assert "† lacks seeds that others have" in page
    assert "means of 2 to 3 seeds (bars: std), 2 without all seeds" in page
    assert json.loads(page.partition('id="data">')[2].partition("</script>")[0])["fronts"][0]["incomplete"] == [
        "0.3-1",
        "0.9-0",
    ]
    assert r"$\approx$$\dagger$" in (tmp_path / "front.tex").read_text()


def test_a_seed_that_all_lack_marks_nobody() -> None:
    rows = [*trials(0.5, 50, [0.7, 0.8, 0.9]), *trials(0.3, 70, [0.8, 0.9, 0.95])]
    rows[0]["status"] = rows[3]["status"] = "failed"
    assert seeds.incomplete(seeds.means(rows, ASKED)) == set()
    others = trials(0.3, 70, [0.8], dataset="e")  # seeds of another dataset are no matter
    assert seeds.incomplete(seeds.means([*rows, *others], ASKED)) == set()


def test_means_are_measured_from_the_references_of_the_trials() -> None:
    given = {"d": {"val_accuracy": 0.1, "macs": 80.0}}
    for references in (given, {}):
        (whole,) = fronts.fronts(study(), TWO, None, references)
        (front,) = seeds.shown_fronts(study(), TWO, None, ASKED, references)
        assert front.reference == whole.reference == (references.get("d") or {"val_accuracy": 0.0, "macs": 100.0})
