"""Which trials are on the front, and what it is measured from."""

import json

import numpy as np
import pytest

from rssearch.config.schema import Bound
from rssearch.front import trials as fronts
from rssearch.report import files
from tests.support.fronts import TWO, keys, study, trial, two_datasets


def test_front_rows_are_finished_feasible_and_not_dominated_by_rising_cost():
    assert keys(fronts.front_rows(study(), TWO)) == ["a", "c", "d"]
    assert fronts.front_rows(study(), TWO)[0] == study()[1]  # with every column


def test_constraints_take_finished_trials_off_the_front():
    bounds = {"macs": Bound(max=30e6), "val_accuracy": Bound(min=0.7)}
    assert keys(fronts.front_rows(study(), TWO, bounds)) == ["c"]
    front = fronts.fronts(study(), TWO, bounds)[0]
    assert keys(front.infeasible) == ["d", "a", "b", "i"]
    # a limit on what a trial does not have breaks nothing
    assert keys(fronts.front_rows(study(), TWO, {"latency_ms": Bound(max=1)})) == ["a", "c", "d"]


def test_every_trial_is_in_one_class():
    front = fronts.fronts(study(), TWO)[0]
    assert [keys(rows) for rows in (front.members, front.dominated, front.infeasible, front.failed)] == [
        ["a", "c", "d"],
        ["b"],
        ["i"],
        ["n", "f"],
    ]
    assert front.note is None
    assert front.knee["key"] == "c"


def test_ties_are_all_members_in_the_order_of_their_keys():
    rows = [trial("z", 0.9, 10), trial("y", 0.9, 10), trial("x", 0.9, 11)]
    assert keys(fronts.front_rows(rows, TWO)) == ["y", "z"]


def test_hypervolume_is_measured_from_the_baseline():
    front = fronts.fronts(study(), TWO)[0]
    assert front.reference == {"val_accuracy": 0.0, "macs": 100e6}
    expected = 0.60 * 90e6 + 0.30 * 75e6 + 0.04 * 20e6
    assert front.hypervolume == pytest.approx(expected)
    assert front.relative_hypervolume == pytest.approx(expected / 100e6)
    # another trial that is worse moves nothing, even if it costs more than all others
    again = fronts.fronts([*study(), trial("w", 0.1, 99_000_000)], TWO)[0]
    assert again.hypervolume == pytest.approx(expected)


def test_the_reference_begins_at_chance_and_stays_where_it_is_fixed():
    rows = [row | {"classes": 10} for row in study()]
    assert fronts.fronts(rows, TWO)[0].reference == {"val_accuracy": 0.1, "macs": 100e6}
    larger = [*rows, trial("w", 0.95, 150_000_000, model="vgg16_bn", baseline_macs=400_000_000)]
    assert fronts.fronts(larger, TWO)[0].reference["macs"] == 400e6
    kept = {"eurosat": {"val_accuracy": 0.1, "macs": 100e6}}
    (front,) = fronts.fronts(larger, TWO, None, kept)
    assert front.reference == kept["eurosat"]
    expected = 0.50 * 90e6 + 0.30 * 75e6 + 0.04 * 20e6  # the new one costs more than the reference
    assert front.hypervolume == pytest.approx(expected)
    assert front.knee["key"] == "c"
    assert fronts.progress(front)[-1] == front.relative_hypervolume


def test_a_dominated_trial_moves_neither_reference_nor_knee_without_a_baseline():
    rows = [{"key": k, "status": "finished", "score": s, "size": c} for k, s, c in [("p", 3, 2), ("q", 5, 4)]]
    (before,) = fronts.fronts(rows, {"score": "max", "size": "min"})
    (after,) = fronts.fronts(
        [*rows, {"key": "r", "status": "finished", "score": 1, "size": 1000}], {"score": "max", "size": "min"}
    )
    assert (after.reference, after.knee, after.hypervolume) == (before.reference, before.knee, before.hypervolume)


def test_progress_is_the_hypervolume_after_each_trial():
    (front,) = fronts.fronts(study(), TWO)  # in the order d a b c n i f
    volumes = fronts.progress(front)
    one, two = 0.94 * 20, 0.60 * 90 + 0.34 * 20
    assert volumes == pytest.approx([one / 100, two / 100, two / 100, *[0.773] * 4])
    assert volumes[-1] == front.relative_hypervolume
    alone = [{"key": "p", "status": "finished", "score": 3.0, "size": 2.0}]
    alone.append({"key": "q", "status": "finished", "score": 5.0, "size": 4.0})
    (front,) = fronts.fronts(alone, {"score": "max", "size": "min"})
    assert fronts.progress(front) == pytest.approx([1.5, 1.5])  # no baseline: by the worst size, 4
    assert fronts.progress(fronts.fronts([trial("f", None, 1, status="failed")], TWO)[0]) == [0.0]


def test_progress_with_three_objectives_ends_at_the_hypervolume():
    rng = np.random.default_rng(0)
    rows = [trial(str(i), a, int(1e8 * b), train_seconds=c) for i, (a, b, c) in enumerate(rng.random((40, 3)))]
    (front,) = fronts.fronts(rows, {**TWO, "train_seconds": "min"})
    volumes = fronts.progress(front)
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(front.relative_hypervolume or front.hypervolume)


def test_without_a_baseline_the_worst_cost_is_the_reference():
    rows = [{"key": "p", "status": "finished", "score": 3.0, "size": 2.0}]
    rows.append({"key": "q", "status": "finished", "score": 5.0, "size": 4.0})
    front = fronts.fronts(rows, {"score": "max", "size": "min"})[0]
    assert front.reference == {"score": 0.0, "size": 4.0}
    assert front.hypervolume == 6.0
    assert front.baselines == []


def test_a_ratio_has_the_baseline_one():
    front = fronts.fronts(study(), {"val_accuracy": "max", "macs_ratio": "min"})[0]
    assert front.reference == {"val_accuracy": 0.0, "macs_ratio": 1.0}
    before = {"val_accuracy": 0.95, "macs": 100e6, "params": 10e6, "macs_ratio": 1.0, "params_ratio": 1.0}
    assert front.baselines == [{"dataset": "eurosat", "model": "resnet18", **before}]


def test_baselines_are_the_mean_over_seeds():
    rows = [trial("a", 0.9, 1, baseline_val_accuracy=0.95), trial("b", 0.9, 2, baseline_val_accuracy=0.95)]
    rows += [trial("c", 0.9, 3, baseline_val_accuracy=0.97, seed=1), trial("e", 0.9, 3, model="vgg16_bn")]
    found = [(row["model"], row["val_accuracy"], row["macs"]) for row in fronts.fronts(rows, TWO)[0].baselines]
    assert found == [("resnet18", pytest.approx(0.96), 100e6), ("vgg16_bn", 0.95, 100e6)]


def test_each_dataset_has_its_own_front():
    rows = two_datasets()
    for row in rows:  # worse everywhere: one common front would lose it
        if row["dataset"] == "ucmerced":
            row["val_accuracy"] -= 0.2
    found = fronts.fronts(rows, TWO)
    assert [front.dataset for front in found] == ["eurosat", "ucmerced"]
    assert keys(fronts.front_rows(rows, TWO)) == ["a", "c", "d", "ua", "uc", "ud"]
    document = json.loads(files.format_front(rows, TWO, "json", study="s"))
    volumes = [front["hypervolume"] for front in document["fronts"]]
    assert volumes[0] > volumes[1] > 0
    assert document["hypervolume"] == pytest.approx(np.mean(volumes))


def test_one_objective_has_the_best_trial_as_front():
    front = fronts.fronts(study(), {"val_accuracy": "max"})[0]
    assert keys(front.members) == ["d"]
    assert front.knee["key"] == "d"
    assert front.hypervolume == pytest.approx(0.94)


def test_three_objectives():
    three = {**TWO, "train_seconds": "min"}
    rows = [*study(), trial("t", 0.5, 50_000_000, train_seconds=0.5)]
    assert keys(fronts.front_rows(rows, three)) == ["a", "c", "t", "d"]
