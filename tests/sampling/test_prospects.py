"""Which trials can still matter to a front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rssearch.config.loading import parse_study
from rssearch.front.pareto import Direction, hypervolume
from rssearch.sampling.prospects import KNOWN, LEAST, Prospects
from rssearch.study.planning import plan
from rssearch.study.simulation import Simulator, simulate
from rssearch.trials import curves

OBJECTIVES: dict[str, Direction] = {"val_accuracy": "max", "macs": "min"}
REFERENCE = {"val_accuracy": 0.1, "macs": 100.0}


def known(gain: float = 0.1, trials: int = KNOWN) -> Prospects:
    """Trials of three epochs and 50 MACs that end at 0.8; the first of them gained most after its first epoch."""
    rule = Prospects(OBJECTIVES, ["val_accuracy"])
    for trial in range(trials):
        epochs = [{"val_accuracy": 0.8 - gain / (1 + trial)}, {"val_accuracy": 0.79}, {"val_accuracy": 0.8}]
        rule.finished("a", epochs, {"val_accuracy": 0.8, "macs": 50}, feasible=True)
    return rule


def goes_on(rule: Prospects, accuracy: Any, macs: Any, *, epoch: int = 1, group: str = "a", last: int = 3) -> bool:
    return rule.should_continue(group, epoch, last, {"val_accuracy": accuracy, "macs": macs}, REFERENCE)


def test_a_trial_ends_where_its_bound_adds_nothing() -> None:
    rule = known()
    assert not goes_on(rule, 0.69, 50)  # at most 0.79
    assert goes_on(rule, 0.71, 50)  # up to 0.81
    assert not goes_on(rule, 0.69, 90)
    assert goes_on(rule, 0.5, 30)  # worse, but cheaper
    assert not goes_on(rule, 0.78, 50, epoch=2)  # 0.01 is left after the second epoch
    assert goes_on(rule, 0.795, 50, epoch=2)


def test_next_to_nothing_is_a_small_share() -> None:
    rule, volume = known(), (0.8 - 0.1) * 50
    assert not goes_on(rule, 0.7 + 0.9 * LEAST * volume / 50, 50)
    assert goes_on(rule, 0.7 + 1.1 * LEAST * volume / 50, 50)


def test_only_trials_of_the_same_kind_are_compared() -> None:
    rule = known()
    assert goes_on(rule, 0.2, 90, group="b")
    assert goes_on(rule, 0.2, 90, last=4)
    assert goes_on(known(trials=KNOWN - 1), 0.2, 90)


def test_the_first_third_of_the_epochs_is_not_judged() -> None:
    rule = Prospects(OBJECTIVES, ["val_accuracy"])
    for _ in range(KNOWN):
        epochs = [{"val_accuracy": 0.8}] * 7
        rule.finished("a", epochs, {"val_accuracy": 0.8, "macs": 50}, feasible=True)
    assert [goes_on(rule, 0.2, 90, epoch=epoch, last=7) for epoch in range(1, 5)] == [True, True, False, False]


@pytest.mark.parametrize(("accuracy", "macs"), [(None, 90), (float("nan"), 90), (0.2, None)])
def test_what_is_not_known_is_not_judged(accuracy: Any, macs: Any) -> None:
    assert goes_on(known(), accuracy, macs)


def test_without_a_reference_nothing_ends() -> None:
    assert known().should_continue("a", 1, 3, {"val_accuracy": 0.2, "macs": 90}, {"val_accuracy": 0.1})


def test_a_trial_that_breaks_a_constraint_shows_its_curve_and_beats_nobody() -> None:
    rule = Prospects(OBJECTIVES, ["val_accuracy"])
    for _ in range(KNOWN):
        epochs = [{"val_accuracy": 0.7}, {"val_accuracy": 0.8}]
        rule.finished("a", epochs, {"val_accuracy": 0.8, "macs": 50}, feasible=False)
    assert goes_on(rule, 0.2, 90, last=2)


def test_an_objective_to_minimise_falls() -> None:
    rule = Prospects({"val_loss": "min", "macs": "min"}, ["val_loss"])
    for _ in range(KNOWN):
        rule.finished("a", [{"val_loss": 1.5}, {"val_loss": 1.0}], {"val_loss": 1.0, "macs": 50}, feasible=True)
    reference = {"val_loss": 2.0, "macs": 100.0}
    assert not rule.should_continue("a", 1, 2, {"val_loss": 1.6, "macs": 60}, reference)
    assert rule.should_continue("a", 1, 2, {"val_loss": 1.4, "macs": 60}, reference)


@pytest.mark.parametrize(
    ("rule", "trials", "told"), [("moasha", 24, True), ("moasha", 150, False), ("front", 24, False)]
)
def test_a_plan_says_which_rule_is_for_small_studies(tmp_path: Path, rule: str, trials: int, told: bool) -> None:
    search = {"sampler": "random", "trials": trials, "early_stopping": rule}
    space = {"rate": {"low": 0.0, "high": 0.9}}
    config = {"study": "s", "trial": "trials.curves:synthetic", "space": space, "search": search}
    lines = plan(parse_study({**config, "storage": str(tmp_path)})).lines()
    advice = (
        "stopping   moasha leaves few of 24 trials for a front: take none, or `front`, which saves less and keeps it"
    )
    assert (advice in lines) == told


def simulated(folder: Path, rule: str, seed: int) -> tuple[float, int]:
    """The hypervolume and the epochs of a study of 24 trials with 9 epochs."""
    space = {
        "rate": {"low": 0.0, "high": 0.9},
        "method": ["a", "b", "c", "d"],
        "lr": {"low": 1e-3, "high": 1.0, "log": True},
    }
    config = parse_study(
        {
            "study": rule,
            "trial": "trials.curves:synthetic",
            "space": space,
            "settings": {"train": {"epochs": 9}},
            "search": {"sampler": "random", "trials": 24, "seed": seed, "early_stopping": rule},
            "storage": str(folder),
        }
    )
    records = list(simulate(config, Simulator(2)).records.values())
    points = [[r.metrics[name] for name in OBJECTIVES] for r in records if r.status == "finished"]
    assert all(r.status == "finished" or "could add nothing to the front" in str(r.reason) for r in records)
    volume = hypervolume(points, [curves.CHANCE, curves.MACS], list(OBJECTIVES.values()))
    return volume, sum(len(record.history) for record in records)


def test_a_small_study_keeps_its_front_for_part_of_its_epochs(tmp_path: Path) -> None:
    shares, epochs = [], []
    for seed in range(4):
        whole, all_epochs = simulated(tmp_path / str(seed), "none", seed)
        volume, spent = simulated(tmp_path / str(seed), "front", seed)
        shares.append(volume / whole)
        epochs.append(spent / all_epochs)
    assert min(shares) > 0.98
    assert sum(epochs) / len(epochs) < 0.8
