"""rssearch.sampling.early_stopping: what successive halving decides, by hand and against the definition."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rssearch.backend.scheduler import TuneScheduler
from rssearch.config.loading import parse_study
from rssearch.errors import InputError
from rssearch.front.pareto import non_dominated
from rssearch.sampling.early_stopping import Halving, among_best, stopping_objectives
from rssearch.study.definition import StudyDefinition
from rssearch.trial.jobs import Job
from tests.support.commands import study_with

ONE: Any = {"val_accuracy": "max"}
TWO: Any = {"val_accuracy": "max", "macs": "min"}


def test_rungs_lie_at_powers_of_the_factor() -> None:
    halving = Halving(ONE, first=2, factor=3)
    assert [halving.rung(epoch) for epoch in (0, 1, 2, 5, 6, 17, 18, 53, 54)] == [
        None, None, 2, 2, 6, 6, 18, 18, 54,
    ]  # fmt: skip


def test_a_trial_goes_on_among_the_best_third_of_those_before_it() -> None:
    halving = Halving(ONE)
    values = [0.5, 0.4, 0.6, 0.55, 0.1, 0.2, 0.58, 0.65]
    # ceil(n / 3) of the first n go on: the best 1 of 1, 2 and 3, the best 2 of 4 to 6, the best 3 of 7 and 8.
    assert [halving.should_continue(str(n), None, 1, {"val_accuracy": v}) for n, v in enumerate(values)] == [
        True, False, True, True, False, False, True, True,
    ]  # fmt: skip


def test_a_trial_is_judged_once_at_each_rung_by_its_first_report_there() -> None:
    halving = Halving(ONE)
    assert halving.should_continue("a", None, 1, {"val_accuracy": 0.5})
    assert not halving.should_continue("b", None, 2, {"val_accuracy": 0.4})  # it reports every second epoch
    assert halving.should_continue("a", None, 2, {"val_accuracy": 0.1})  # between two rungs
    assert halving.should_continue("b", None, 2, {"val_accuracy": 0.0})  # told again after its worker died
    assert halving.should_continue("a", None, 3, {"val_accuracy": 0.1})  # the first at the second rung
    assert not halving.should_continue("c", None, 5, {"val_accuracy": 0.05})


def test_smaller_is_better_where_the_objective_says_so() -> None:
    halving = Halving({"val_loss": "min"}, factor=2)
    assert [halving.should_continue(k, None, 1, {"val_loss": v}) for k, v in [("a", 2.0), ("b", 3.0), ("c", 1.0)]] == [
        True, False, True,
    ]  # fmt: skip


def test_datasets_are_not_compared() -> None:
    halving = Halving(ONE)
    assert halving.should_continue("a", "easy", 1, {"val_accuracy": 0.9})
    assert halving.should_continue("b", "hard", 1, {"val_accuracy": 0.1})


@pytest.mark.parametrize("value", [None, math.nan, math.inf], ids=str)
def test_a_trial_without_a_finite_objective_is_not_judged_and_judges_nobody(value: float | None) -> None:
    halving = Halving(TWO)
    assert halving.should_continue("a", None, 1, {"val_accuracy": 0.5, "macs": 1.0})
    assert halving.should_continue("b", None, 1, {"val_accuracy": value, "macs": 1.0})
    assert halving.should_continue("c", None, 1, {"val_accuracy": 0.9})
    assert not halving.has("b", None, 1)
    assert not halving.should_continue("d", None, 1, {"val_accuracy": 0.4, "macs": 1.0})  # 2 of 2


def test_equal_trials_share_their_fate() -> None:
    halving = Halving(ONE)
    assert all(halving.should_continue(str(n), None, 1, {"val_accuracy": 0.1}) for n in range(20))


def test_as_many_go_on_as_theory_says() -> None:
    """In random order the n-th trial is among the best k of n with probability k / n, whatever the values are."""
    rng, count = np.random.default_rng(0), 3000
    halving = Halving(ONE, factor=3)
    kept = sum(halving.should_continue(str(n), None, 1, {"val_accuracy": v}) for n, v in enumerate(rng.random(count)))
    chances = np.array([math.ceil(n / 3) / n for n in range(1, count + 1)])
    assert abs(kept - chances.sum()) < 4 * math.sqrt((chances * (1 - chances)).sum())


def test_the_front_goes_on_first_and_then_layer_by_layer() -> None:
    front = [(0.9, 9.0), (0.7, 3.0), (0.5, 1.0)]
    second = [(0.85, 9.5), (0.6, 4.0)]
    points = np.array([*front, *second])

    def kept(count: int) -> list[bool]:
        return [among_best(np.vstack([np.delete(points, n, 0), points[n]]), ["max", "min"], count) for n in range(5)]

    # Within the front: the most accurate, the one that is furthest from it, the one between them.
    assert kept(1) == [True, False, False, False, False]
    assert kept(2) == [True, False, True, False, False]
    assert kept(3) == [True, True, True, False, False]
    assert kept(4) == [True, True, True, True, False]
    assert kept(5) == [True] * 5


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_decisions_are_those_of_the_definition(objectives: int) -> None:
    """Against peeling off one front after the other, and a farthest-first walk through the layer that is cut."""
    rng = np.random.default_rng(objectives)
    directions: Any = ["max", "min", "max"][:objectives]
    for size in range(1, 25):
        points = rng.integers(0, 8, size=(size, objectives)).astype(float)  # with copies
        order = ranked(points, directions)
        for count in range(1, size + 1):
            best = {tuple(points[n]) for n in order[:count]}
            expected = any(tuple(points[-1]) == point for point in best)
            assert among_best(points, directions, count) == expected, (points, count)


@pytest.mark.parametrize(
    "objectives", [ONE, TWO, {"loss": "min", "val_accuracy": "max"}, {**TWO, "params": "min"}], ids=len
)
@pytest.mark.parametrize("values", [4, 10**6])
def test_a_rung_that_grows_decides_as_one_that_is_sorted_each_time(objectives: Any, values: int) -> None:
    rng = np.random.default_rng(values)
    points = rng.integers(0, values, size=(200, len(objectives))).astype(float)
    halving, directions = Halving(objectives), [*objectives.values()]
    for count in range(1, len(points) + 1):
        metrics = dict(zip(objectives, points[count - 1].tolist(), strict=True))
        expected = among_best(points[:count], directions, math.ceil(count / 3))
        assert halving.should_continue(str(count), None, 1, metrics) == expected, count


def ranked(points: np.ndarray, directions: Any) -> list[int]:
    """All trials from the best to the worst; copies follow when all distinct points of their layer are chosen."""
    span = np.ptp(points, axis=0)
    scaled = points / np.where(span > 0, span, 1)
    costs = scaled * np.array([-1 if d == "max" else 1 for d in directions])
    order: list[int] = []
    while len(order) < len(points):
        rest = [n for n in range(len(points)) if n not in order]
        layer = [n for n, on in zip(rest, non_dominated(points[rest], directions), strict=True) if on]
        distinct = sorted({tuple(costs[n]): n for n in reversed(layer)}.values(), key=lambda n: tuple(costs[n]))
        chosen = [distinct.pop(0)]
        while distinct:
            distances = [min(float(np.linalg.norm(costs[n] - costs[c])) for c in chosen) for n in distinct]
            chosen.append(distinct.pop(int(np.argmax(distances))))
        order += [*chosen, *(n for n in layer if n not in chosen)]
    return order


def test_what_rules_judge_by() -> None:
    assert stopping_objectives("asha", TWO, ("val_accuracy",), "m") == ONE
    assert stopping_objectives("moasha", TWO, ("val_accuracy",), "m") == TWO
    with pytest.raises(InputError, match=r"asha judges by one objective.*val_accuracy, val_loss.*take moasha"):
        stopping_objectives("asha", {**TWO, "val_loss": "min"}, ("val_accuracy", "val_loss"), "m")
    with pytest.raises(InputError, match=r"none of macs is one; those of m report val_accuracy"):
        stopping_objectives("moasha", {"macs": "min"}, ("val_accuracy",), "m")
    with pytest.raises(InputError, match=r"none of val_accuracy, macs is one; m has no EPOCH_METRICS"):
        stopping_objectives("asha", TWO, (), "m")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("asha", {"rule": "asha", "first": 1, "factor": 3}),
        ({"rule": "moasha", "first": 2}, {"rule": "moasha", "first": 2, "factor": 3}),
        ("none", {"rule": "none", "first": 1, "factor": 3}),
    ],
    ids=str,
)
def test_the_yaml_names_a_rule_or_spells_it_out(written: Any, expected: dict[str, Any]) -> None:
    config = parse_study(study_with({"search/early_stopping": written}))
    assert config.resolved()["search"]["early_stopping"] == expected
    assert parse_study(config.resolved()).search == config.search


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "ahsa",
            "rule: 'ahsa' is not allowed. Did you mean 'asha'? Allowed: none, asha, moasha, front.",
        ),
        ({"rule": "asha", "factor": 1}, "search.early_stopping.factor: 1 is not allowed"),
        ({"rule": "asha", "last": 9}, "search.early_stopping.last: unknown key"),
    ],
    ids=str,
)
def test_mistakes_are_named(written: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_study(study_with({"search/early_stopping": written}))
    assert message in str(caught.value)


def test_trials_that_report_no_objective_by_epoch_are_refused_before_anything_starts() -> None:
    document = study_with({"search/early_stopping": "asha", "search/objectives": {"macs": "min"}})
    with pytest.raises(InputError, match=r"trials\.prune report val_accuracy, val_macro_f1, .*val_loss, .*val_miou"):
        StudyDefinition(parse_study(document))
    searches = study_with({"search/early_stopping": "moasha", "trial": "trials.channel_nas:run"})
    searches["space"] = {"dataset": ["synthetic_scenes"], "model": ["resnet20"], "macs_ratio": [0.5]}
    with pytest.raises(InputError, match=r"trials\.channel_nas has no EPOCH_METRICS"):
        StudyDefinition(parse_study(searches))


def test_the_last_epoch_of_a_pruning_trial_is_that_of_its_fine_tuning() -> None:
    definition = StudyDefinition(
        parse_study(study_with({"settings/finetune": {"epochs": 9}, "space/finetune.epochs": [3, 7]}))
    )
    assert [definition.epochs(point) for point in definition.points] == [3, 7]


def test_tune_is_told_to_stop_and_hears_of_nothing_but_epochs() -> None:
    heard: list[tuple[Job, dict[str, Any]]] = []

    def should_continue(job: Job, metrics: dict[str, Any]) -> bool:
        heard.append((job, metrics))
        return metrics["val_accuracy"] > 0.5

    scheduler = TuneScheduler(should_continue, lambda result: result.get("metrics"))
    trial = SimpleNamespace(config={"key": "k", "point": {"rate": 0.5}, "function": None})
    assert scheduler.on_trial_result(None, trial, {"metrics": {"val_accuracy": 0.6}}) == "CONTINUE"
    assert scheduler.on_trial_result(None, trial, {"event": "end"}) == "CONTINUE"
    assert not scheduler.stopped
    assert scheduler.on_trial_result(None, trial, {"metrics": {"val_accuracy": 0.4}}) == "STOP"
    assert scheduler.stopped == {"k"}
    assert [metrics["val_accuracy"] for _, metrics in heard] == [0.6, 0.4]


def test_a_trial_that_waits_for_its_worker_is_not_given_another_one() -> None:
    scheduler = TuneScheduler(lambda *_: True, lambda _: None)
    trials = [SimpleNamespace(trial_id=name, status="PENDING") for name in ("t_02", "t_01", "t_03")]
    controller = SimpleNamespace(get_live_trials=lambda: trials)
    assert [scheduler.choose_trial_to_run(controller) for _ in range(4)] == [trials[1], trials[0], trials[2], None]
    trials += [SimpleNamespace(trial_id="t_04", status="RUNNING"), SimpleNamespace(trial_id="t_05", status="PENDING")]
    assert [scheduler.choose_trial_to_run(controller) for _ in range(2)] == [trials[4], None]
