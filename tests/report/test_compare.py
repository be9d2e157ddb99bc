"""rssearch.report.compare: several studies by one reference, their coverage, and their fronts in one plot."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from rssearch.errors import InputError
from rssearch.report.compare import by_method, compare, tables
from rssearch.report.comparison import coverage
from rssearch.report.recorded import read
from rssearch.storage.journal import Journal
from tests.support.commands import refused, run
from tests.support.records import record

MAX_MIN: Any = ["max", "min"]
A = {"a1": (0.6, 20), "a2": (0.8, 60), "a3": (0.5, 70)}  # a3 is dominated
B = {"b1": (0.7, 20), "b2": (0.75, 70)}


def write(
    storage: Path, study: str, points: Mapping[str, tuple[float, float]], *, dataset: str = "lakes", **search: Any
) -> None:
    """A study's folder as a search leaves it; each trial lasted ten seconds, and the baseline has 100 MACs."""
    folder = storage / study
    folder.mkdir(parents=True, exist_ok=True)
    document = {"study": study, "trial": "tests.support.toy:plain", "space": {"rate": [0.5]}, "search": search}
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    journal = Journal(folder / "trials.jsonl")
    for index, (key, (quality, cost)) in enumerate(points.items()):
        metrics = {"val_accuracy": quality, "macs": cost, "baseline_val_accuracy": 0.9, "baseline_macs": 100}
        times = {"started": 100.0 * index + 1, "ended": 100.0 * index + 11}
        journal.add(record(key, point={"dataset": dataset, "rate": 0.5}, metrics=metrics, **times))
    with (folder / "trials.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["key"], *([key] for key in journal.records)])


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    write(tmp_path, "a", A)
    write(tmp_path, "b", B)
    return tmp_path


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ([(0.6, 20), (0.8, 60)], [(0.7, 20), (0.75, 70)], 0.5),  # (0.8, 60) dominates (0.75, 70)
        ([(0.7, 20), (0.75, 70)], [(0.6, 20), (0.8, 60)], 0.5),
        ([(0.7, 20)], [(0.7, 20)], 1.0),  # equal points cover each other
        ([(0.9, 30)], [(0.8, 20)], 0.0),
        ([], [(0.8, 20)], 0.0),
        ([(0.8, 20)], [], None),
    ],
)
def test_coverage(one: Any, other: Any, share: float | None) -> None:
    assert coverage(one, other, MAX_MIN) == share


def test_a_table_by_hand(storage: Path) -> None:
    (found,) = compare([read("a", storage), read("b", storage)])
    assert (found.dataset, found.quality, found.reference) == (
        "lakes",
        "val_accuracy",
        {"val_accuracy": 0, "macs": 100},
    )
    a, b = found.entries
    assert (a.study, a.trials, a.finished, a.front, a.best, a.seconds) == ("a", 3, 3, 2, 0.8, 30)
    assert (b.study, b.trials, b.finished, b.front, b.best, b.seconds) == ("b", 2, 2, 2, 0.75, 20)
    assert a.hypervolume == pytest.approx(0.6 * 40 + 0.8 * 40)
    assert b.hypervolume == pytest.approx(0.7 * 50 + 0.75 * 30)
    assert a.relative_hypervolume == pytest.approx(0.56)
    assert (a.difference, b.difference) == (0, pytest.approx(0.575 / 0.56 - 1))
    assert found.coverage == [[1, 0.5], [0.5, 1]]


def test_the_reference_is_common(storage: Path) -> None:
    """Without a baseline each study alone would take its own worst cost."""
    for name in ("a", "b"):
        journal = Journal(storage / name / "trials.jsonl")
        for known in list(journal.records.values()):
            journal.add(replace(known, metrics={n: known.metrics[n] for n in ("val_accuracy", "macs")}))
    (found,) = compare([read("a", storage), read("b", storage)])
    assert found.reference == {"val_accuracy": 0, "macs": 70}
    assert [entry.hypervolume for entry in found.entries] == [pytest.approx(0.6 * 40 + 0.8 * 10), pytest.approx(35)]


def test_each_study_keeps_its_own_constraints(storage: Path) -> None:
    write(storage, "b", B, constraints={"macs": {"max": 50}})
    (found,) = compare([read("a", storage), read("b", storage)])
    assert [(entry.trials, entry.finished, entry.front) for entry in found.entries] == [(3, 3, 2), (2, 1, 1)]


def test_shared_objectives_and_datasets_count(storage: Path) -> None:
    write(storage, "c", {"c1": (0.7, 30)}, dataset="roads")
    write(storage, "d", {"d1": (0.7, 30)}, objectives={"val_accuracy": "max"})
    (found,) = compare([read(name, storage) for name in ("a", "b", "c")])
    assert [entry.study for entry in found.entries] == ["a", "b"]
    (found,) = compare([read("a", storage), read("d", storage)])
    assert found.objectives == {"val_accuracy": "max"}
    assert [entry.front for entry in found.entries] == [1, 1]


def test_nothing_in_common_is_told_with_names(storage: Path) -> None:
    write(storage, "c", {"c1": (0.7, 30)}, dataset="roads")
    write(storage, "d", {"d1": (0.7, 30)}, objectives={"macs": "max"})
    with pytest.raises(InputError, match=r"no two of the studies .* same dataset: a has lakes; c has roads"):
        compare([read("a", storage), read("c", storage)])
    with pytest.raises(
        InputError, match=r"share no objective: a has val_accuracy \(max\), macs \(min\); d has macs \(max\)"
    ):
        compare([read("a", storage), read("d", storage)])
    refused(run("compare", "a", "--storage", str(storage)), "at least two different studies")
    refused(run("compare", "a", "a", "--storage", str(storage)), "a, a: must be at least two different studies")
    refused(run("compare", "a", "nosuch", "--storage", str(storage)), "there is no study 'nosuch'", "a, b, c, d")
    refused(run("compare", "a", "b", "--storage", str(storage), "--format", "pdf"), "'pdf'", "all, json, png, table")
    refused(run("compare", "a", "b", "--storage", str(storage), "--format", "png"), "give --out DIR")


def test_a_study_without_a_finished_trial_is_empty_and_not_an_error(storage: Path) -> None:
    write(storage, "b", B, constraints={"macs": {"max": 1}})
    (found,) = compare([read("b", storage), read("a", storage)])
    b, a = found.entries
    assert (b.front, b.hypervolume, b.best, b.difference, a.difference) == (0, 0, None, None, None)
    assert found.coverage == [[None, 0], [None, 1]]
    assert len(tables(found)) == 4


def test_the_command_prints_and_writes(storage: Path, tmp_path: Path) -> None:
    shown = run("compare", "a", "b", "--storage", str(storage))
    assert shown.status == 0
    for text in (
        "lakes: hypervolumes up to Validation accuracy 0.0 %, MACs 100",
        "+2.68 %",
        "a covers",
        "single trials",
    ):
        assert text in " ".join(shown.out.split())
    document = json.loads(run("compare", "a", "b", "--storage", str(storage), "--format", "json").out)
    (lakes,) = document["datasets"]
    assert lakes["coverage"] == {"a": {"a": 1, "b": 0.5}, "b": {"a": 0.5, "b": 1}}
    assert [study["front"] for study in lakes["studies"]] == [2, 2]
    out = tmp_path / "out"
    written = run("compare", "a", "b", "--storage", str(storage), "--format", "all", "--out", str(out))
    assert written.out.split() == [str(out / "compare.json"), str(out / "compare.png")]
    assert json.loads((out / "compare.json").read_text()) == document
    assert Image.open(io.BytesIO((out / "compare.png").read_bytes())).size == (1500, 900)


def test_two_datasets_are_two_panels(storage: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(storage, name, {f"{name}r": (0.5, 50)}, dataset="roads")
    assert run("compare", "a", "b", "--storage", str(storage), "--format", "png", "--out", str(tmp_path)).status == 0
    assert Image.open(tmp_path / "compare.png").size == (2400, 900)


def write_seeds(storage: Path, study: str, gains: Mapping[str, float], *, compute: bool = True) -> None:
    """Two trials of each method with each of three seeds; seeds are far apart, `gains` are what methods add."""
    folder = storage / study
    folder.mkdir(parents=True, exist_ok=True)
    space = {"method": [*gains], "rate": [0.3, 0.6], "seed": [0, 1, 2]}
    document = {"study": study, "trial": "tests.support.toy:plain", "space": space}
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    journal = Journal(folder / "trials.jsonl")
    for method, gain in gains.items():
        for seed, block in enumerate((0.0, 0.2, 0.1)):
            for rate, cost in ((0.3, 60), (0.6, 20)):
                metrics = {"val_accuracy": 0.4 + block + gain * (1 + 0.1 * seed) + cost / 1000, "macs": cost}
                metrics |= {"baseline_macs": 100, "classes": 10}
                own: dict[str, Any] = {"compute": 1000 * cost, "shared_compute": {f"baseline-{seed}": 500_000}}
                point = {"dataset": "lakes", "method": method, "rate": rate, "seed": seed}
                journal.add(
                    record(f"{study}{method}{seed}{rate}", point=point, metrics=metrics | (own if compute else {}))
                )
    with (folder / "trials.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["key"], *([key] for key in journal.records)])


def test_methods_of_one_study_are_compared_seed_by_seed(tmp_path: Path) -> None:
    """A point of accuracy is worth as much at each budget above 20 MACs: 0.8 of it in the relative hypervolume."""
    write_seeds(tmp_path, "s", {"l1": 0.05, "l2": 0.0, "random": 0.001})
    (found,) = compare(by_method([read("s", tmp_path)]))
    assert [entry.study for entry in found.entries] == ["l1", "l2", "random"]
    first, *_ = found.pairs
    assert (first.one, first.other, first.seeds) == ("l1", "l2", 3)
    assert first.difference == pytest.approx(0.8 * 0.05 * 1.1)
    assert first.interval == pytest.approx(4.302653 * 0.8 * 0.05 * 0.1 / 3**0.5)
    assert first.is_separable
    assert found.ranks == {"l1": 1, "l2": 3, "random": 2}
    assert found.critical_difference == pytest.approx(2.343 * (12 / 18) ** 0.5, abs=2e-3)
    # Three baselines and six trials for each method.
    assert [entry.compute for entry in found.entries] == [3 * 500_000 + 3 * 80_000] * 3
    assert [spent for spent, _ in found.entries[0].curve or ()] == [
        560_000, 580_000, 1_140_000, 1_160_000, 1_720_000, 1_740_000,
    ]  # fmt: skip
    volumes = [volume for _, volume in found.entries[0].curve or ()]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(found.entries[0].relative_hypervolume)
    shown = run("compare", "s", "--storage", str(tmp_path), "--by", "method")
    said = " ".join(shown.out.split())
    assert "Of 3 pairs 3 are separable at 5 %" in said
    assert "1.74 M" in said
    assert "compute" in run("compare", "s", "--storage", str(tmp_path), "--by", "method", "--format", "json").out
    refused(run("compare", "s", "--storage", str(tmp_path), "--by", "rate"), "'rate'", "method, study")


def test_where_nothing_is_separable_it_says_so(tmp_path: Path) -> None:
    write_seeds(tmp_path, "a", {"l1": 0.0}, compute=False)
    write_seeds(tmp_path, "b", {"l1": 0.0})
    (found,) = compare([read(name, tmp_path) for name in ("a", "b")])
    assert [entry.compute for entry in found.entries] == [None, 3 * 500_000 + 3 * 80_000]
    assert found.entries[0].curve is None
    (pair,) = found.pairs
    assert (pair.difference, pair.p, pair.is_separable) == (0, 1, False)
    text = " ".join(run("compare", "a", "b", "--storage", str(tmp_path)).out.split())
    assert "The pair is not separable at 5 %" in text
    assert "more seeds would say more" in text
    assert "unknown" in text
    write_seeds(tmp_path, "c", {"l1": 0.0, "l2": 0.0, "l3": 0.0})
    text = " ".join(run("compare", "c", "--by", "method", "--storage", str(tmp_path)).out.split())
    assert "Of 3 pairs none is separable" in text
    assert "By ranks the critical difference is 1.91 of at most 2 (Nemenyi)." in text


def test_seeds_that_lack_trials_are_left_out(tmp_path: Path) -> None:
    write_seeds(tmp_path, "s", {"l1": 0.05, "l2": 0.0})
    study = read("s", tmp_path)
    rows = [row for row in study.rows if (row["method"], row["seed"], row["rate"]) != ("l1", 2, 0.6)]
    (found,) = compare(by_method([replace(study, rows=rows)]))
    assert [list(entry.by_seed) for entry in found.entries] == [["0", "1"], ["0", "1", "2"]]
    assert found.pairs[0].seeds == 2


def test_plots_of_compute_and_ranks_are_drawn(tmp_path: Path) -> None:
    write_seeds(tmp_path, "s", {"l1": 0.05, "l2": 0.0, "$random": 0.001})
    out = tmp_path / "out"
    shown = run("compare", "s", "--by", "method", "--storage", str(tmp_path), "--format", "png", "--out", str(out))
    assert shown.status == 0
    assert Image.open(out / "compute.png").size == (1500, 900)
    pytest.importorskip("scikit_posthocs")
    assert Image.open(out / "ranks.png").size[0] == 1500


def test_a_study_without_methods_is_refused_by_its_name(storage: Path) -> None:
    with pytest.raises(InputError, match="compare --by method: the trials of study a have no method"):
        by_method([read(name, storage) for name in ("a", "b")])
