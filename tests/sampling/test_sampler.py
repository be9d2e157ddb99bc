"""rssearch.sampling.sampler: the contract of every sampler, and what Ray's own bridge gets wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from rssearch.backend.searcher import Bridge
from rssearch.config.schema import Bound, Search
from rssearch.config.space import Choice, Dimension, Point, Range, content_key, grid, tidy
from rssearch.errors import InputError
from rssearch.front.constraints import violations
from rssearch.sampling.sampler import CAPABILITIES, Proposer, check_sampler
from rssearch.storage.records import Status, TrialRecord
from rssearch.trial.jobs import LATER, Job

COUNTABLE: dict[str, Dimension] = {
    "method": Choice(("l1", "lfp")),
    "rate": Choice((0.1, 0.2, 0.3)),
    "depth": Range(1, 3),
}
NUMERIC: dict[str, Dimension] = {"rate": Range(0.1, 0.9), "width": Range(0.0, 1.0)}
TWO = {"val_accuracy": "max", "macs": "min"}
ONE = {"val_accuracy": "max"}


def spaces_of(sampler: str) -> list[dict[str, Dimension]]:
    can = CAPABILITIES[sampler]
    return ([COUNTABLE] if can.choices else []) + ([NUMERIC] if can.continuous else [])


def cases() -> Iterable[Any]:
    for sampler, can in CAPABILITIES.items():
        for index, space in enumerate(spaces_of(sampler)):
            for objectives in [ONE, TWO] if can.many_objectives else [ONE]:
                marks = [pytest.mark.slow] if sampler == "gp" and len(objectives) == 2 else []
                yield pytest.param(sampler, space, objectives, id=f"{sampler}-{len(objectives)}-{index}", marks=marks)


def measure(point: Point) -> dict[str, float]:
    rate = float(point["rate"])  # type: ignore[arg-type]
    return {"val_accuracy": 1 - rate**2, "macs": 1 - rate}


def drive(proposer: Proposer, *, slots: int = 2, results: Any = None, stop_after: int | None = None) -> list[str]:
    """Run a search with a few trials at once, ending in the order of their start. Returns the keys in that order."""
    running: list[tuple[str, Point]] = []
    keys: list[str] = []
    while True:
        job = proposer.ask() if stop_after is None or len(keys) < stop_after else None
        if job is not None:
            keys.append(job[0])
            running.append(job)
        if len(running) >= slots or (job is None and running):
            key, point = running.pop(0)
            status, metrics = results(point) if results else ("finished", measure(point))
            proposer.tell(key, Status(status), metrics)
        elif job is None:
            return keys


def search(sampler: str, objectives: Any = None, trials: int = 14, **more: Any) -> Search:
    return Search(sampler=sampler, objectives=objectives or TWO, trials=trials, **more)  # type: ignore[arg-type]


def states(proposer: Proposer) -> list[str]:
    assert proposer._study is not None
    return [t.state.name for t in proposer._study.trials]


@pytest.mark.parametrize(("sampler", "space", "objectives"), list(cases()))
def test_contract(sampler: str, space: dict[str, Dimension], objectives: dict[str, str]) -> None:
    """Spends its budget on distinct points of the space, and tells every trial's end."""
    proposer = Proposer(space, search(sampler, objectives), key_of=content_key)
    keys = drive(proposer)
    expected = proposer.size if sampler == "grid" else 14
    assert len(keys) == len(set(keys)) == expected
    assert {o.status for o in proposer.outcomes.values()} == {"finished"}
    assert all(set(o.point) == set(space) for o in proposer.outcomes.values())
    if sampler != "grid":
        assert "RUNNING" not in states(proposer)


@pytest.mark.parametrize("sampler", [name for name in CAPABILITIES if name != "cmaes"])
def test_a_countable_space_is_exhausted_and_the_search_ends(sampler: str) -> None:
    space = {"rate": Choice((0.1, 0.2)), "depth": Range(1, 2)}
    proposer = Proposer(space, search(sampler, ONE, trials=50), key_of=content_key)
    assert sorted(drive(proposer)) == sorted(map(content_key, grid(space)))


@pytest.mark.parametrize("sampler", [name for name in CAPABILITIES if name != "cmaes"])
def test_cost_constraints_refuse_before_training(sampler: str) -> None:
    refused: list[TrialRecord] = []
    proposer = Proposer(
        COUNTABLE,
        search(sampler, trials=60, constraints={"macs": Bound(max=0.8)}),
        key_of=content_key,
        cost=lambda point: {"macs": measure(point)["macs"]},
        on_infeasible=refused.append,
    )
    drive(proposer)
    ran = [o for o in proposer.outcomes.values() if o.status == "finished"]
    assert len(ran) == 12  # 0.2 and 0.3; 0.1 leaves 0.9 of the MACs
    assert {o.point["rate"] for o in ran} == {0.2, 0.3}
    assert {o.point["rate"] for o in refused} == {0.1}
    assert len(refused) == 6


def test_infeasible_trials_reach_the_sampler_with_their_violation() -> None:
    proposer = Proposer(
        NUMERIC,
        search("tpe", trials=10, constraints={"macs": Bound(max=0.5)}),
        key_of=content_key,
        cost=lambda point: {"macs": measure(point)["macs"]},
    )
    drive(proposer)
    assert proposer._study is not None
    told = [t.constraints["macs<=0.5"] for t in proposer._study.trials]
    assert any(v > 0 for v in told)
    assert sum(v <= 0 for v in told) == 10


def test_a_constraint_on_a_measured_metric_makes_a_finished_trial_infeasible() -> None:
    bounds = {"val_accuracy": Bound(min=0.95)}
    proposer = Proposer(COUNTABLE, search("grid", constraints=bounds), key_of=content_key)
    drive(proposer)
    by_rate = {o.point["rate"]: o.status for o in proposer.outcomes.values()}
    assert by_rate == {0.1: "finished", 0.2: "finished", 0.3: "infeasible"}


@pytest.mark.parametrize(
    "metrics",
    [{"val_accuracy": float("nan"), "macs": 1.0}, {"macs": 1.0}, {"val_accuracy": None, "macs": 1.0}],
    ids=["nan", "missing", "none"],
)
def test_an_objective_that_is_no_number_fails_the_trial_and_is_told(metrics: dict[str, Any]) -> None:
    # Ray's OptunaSearch leaves such a trial RUNNING for ever.
    proposer = Proposer(NUMERIC, search("tpe", trials=3), key_of=content_key)
    drive(proposer, results=lambda _: ("finished", metrics))
    assert {o.status for o in proposer.outcomes.values()} == {"failed"}
    assert states(proposer) == ["FAIL"] * 3


def test_a_failed_trial_is_told_as_failed_and_not_tried_twice_in_a_session() -> None:
    proposer = Proposer(COUNTABLE, search("random", trials=60), key_of=content_key)
    keys = drive(proposer, results=lambda _: ("failed", {}))
    assert len(keys) == len(set(keys)) == 18


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc", "tpe", "nsga2", "nsga3"])
def test_resume_runs_only_what_is_missing(sampler: str) -> None:
    whole = Proposer(COUNTABLE, search(sampler, trials=18), key_of=content_key)
    first = Proposer(COUNTABLE, search(sampler, trials=18), key_of=content_key)
    before = drive(first, stop_after=7)
    assert len(before) == 7
    second = Proposer(COUNTABLE, search(sampler, trials=18), key_of=content_key, known=first.outcomes.values())
    after = drive(second)
    assert not set(before) & set(after)
    assert set(before) | set(after) == set(drive(whole))


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_seeded_draws_go_on_where_they_stopped(sampler: str) -> None:
    whole = drive(Proposer(NUMERIC, search(sampler, trials=20), key_of=content_key))
    first = Proposer(NUMERIC, search(sampler, trials=20), key_of=content_key)
    before = drive(first, stop_after=9)
    second = Proposer(NUMERIC, search(sampler, trials=20), key_of=content_key, known=first.outcomes.values())
    resumed = before + drive(second)
    if sampler == "random":
        assert resumed == whole
    else:
        # Optuna draws the first Sobol point by other means as long as its history is empty.
        assert len(set(resumed) & set(whole)) >= 18


def test_failed_trials_of_earlier_sessions_are_tried_again() -> None:
    first = Proposer(COUNTABLE, search("grid"), key_of=content_key)
    drive(first, results=lambda p: ("failed", {}) if p["rate"] == 0.1 else ("finished", measure(p)))
    second = Proposer(COUNTABLE, search("grid"), key_of=content_key, known=first.outcomes.values())
    drive(second)
    assert len(second.outcomes) == 18
    assert {o.status for o in second.outcomes.values()} == {"finished"}


def test_a_larger_budget_goes_on() -> None:
    first = Proposer(NUMERIC, search("tpe", trials=5), key_of=content_key)
    drive(first)
    second = Proposer(NUMERIC, search("tpe", trials=8), key_of=content_key, known=first.outcomes.values())
    assert len(drive(second)) == 3


def test_a_seed_repeats_the_search() -> None:
    runs = [drive(Proposer(NUMERIC, search("tpe", seed=s), key_of=content_key)) for s in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "cmaes"])
def test_knowing_what_all_trials_share_changes_no_proposal(sampler: str) -> None:
    """Optuna finds it out again for each proposal, from all trials since the oldest one under way."""
    several = NUMERIC if sampler == "cmaes" else NUMERIC | {"method": COUNTABLE["method"]}
    space, objectives = several, TWO if sampler.startswith("nsga") else ONE
    told, found = (Proposer(space, search(sampler, objectives), key_of=content_key) for _ in range(2))
    assert found._study is not None
    del found._study.sampler.infer_relative_search_space  # type: ignore[misc]  # that of Optuna is below it
    assert drive(told) == drive(found)


def test_tpe_models_all_dimensions_together_for_one_objective() -> None:
    for objectives, together in ((ONE, True), (TWO, False)):
        proposer = Proposer(NUMERIC, search("tpe", objectives), key_of=content_key)
        drive(proposer)
        assert proposer._study is not None
        sampler, trial = proposer._study.sampler, proposer._study.trials[-1]
        assert bool(sampler.infer_relative_search_space(proposer._study, trial)) == together
        assert (sampler._multivariate, sampler._constant_liar) == (together, True)  # type: ignore[attr-defined]


def test_tpe_finds_better_points_than_random() -> None:
    def best(sampler: str, seed: int) -> float:
        settings = search(sampler, ONE, trials=40, seed=seed)
        proposer = Proposer({"rate": Range(0.0, 1.0), "width": Range(0.0, 1.0)}, settings, key_of=content_key)

        def result(p: Point) -> tuple[str, dict[str, float]]:
            x, y = float(p["rate"]), float(p["width"])  # type: ignore[arg-type]
            return "finished", {"val_accuracy": -((x - 0.7) ** 2) - (y - 0.2) ** 2}

        drive(proposer, results=result)
        return max(o.metrics["val_accuracy"] for o in proposer.outcomes.values())

    seeds = range(5)
    assert sum(best("tpe", s) for s in seeds) > sum(best("random", s) for s in seeds)


@pytest.mark.parametrize(
    ("sampler", "space", "objectives", "message"),
    [
        (
            "cmaes",
            NUMERIC,
            TWO,
            "cmaes serves one objective, not 2 (val_accuracy, macs). Samplers that can: grid, random",
        ),
        ("cmaes", COUNTABLE, ONE, "cmaes needs numeric ranges; method, rate is a choice"),
        ("cmaes", {"rate": Range(0.0, 1.0)}, ONE, "cmaes needs at least 2 dimensions that vary, not 1"),
        ("grid", NUMERIC, TWO, "grid needs countable dimensions; rate, width is a continuous range"),
    ],
)
def test_impossible_combinations_are_refused_by_name(
    sampler: str, space: dict[str, Dimension], objectives: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_sampler(search(sampler, objectives), space)
    assert message in str(caught.value)


def test_violations_are_relative_to_the_bound() -> None:
    bounds = {"macs": Bound(max=50.0), "val_accuracy": Bound(min=0.8, max=1.0), "unknown": Bound(max=1)}
    found = violations(bounds, {"macs": 75.0, "val_accuracy": 0.9})
    assert found == {
        "macs<=50": pytest.approx(0.5),
        "val_accuracy<=1": pytest.approx(-0.1),
        "val_accuracy>=0.8": pytest.approx(-0.125),
    }


def test_a_search_without_any_feasible_point_ends(caplog: pytest.LogCaptureFixture) -> None:
    proposer = Proposer(
        NUMERIC,
        search("random", trials=5, constraints={"macs": Bound(max=-1.0)}),
        key_of=content_key,
        cost=lambda point: {"macs": measure(point)["macs"]},
    )
    assert proposer.ask() is None
    assert "points in a row break the constraints" in caplog.text


def test_a_search_whose_trials_all_turn_out_infeasible_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rssearch.sampling.sampler._HOPELESS", 3)
    proposer = Proposer(NUMERIC, search("random", trials=5), key_of=content_key)
    for status in ("infeasible", "infeasible", "finished", "infeasible", "infeasible", "infeasible"):
        proposed = proposer.ask()
        assert proposed is not None
        proposer.tell(proposed[0], Status(status), measure(proposed[1]))
    assert proposer.ask() is None
    assert "3 trials in a row broke the constraints" in caplog.text


@pytest.mark.parametrize("objectives", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "nsga2", "nsga3", "gp"])
def test_stopped_trials_are_told_as_each_sampler_can_use_them(sampler: str, objectives: dict[str, str]) -> None:
    def is_stopped(point: Any) -> bool:
        return round(1e6 * tidy(point["width"])) % 2 == 0  # about half of them

    def result(point: Point) -> tuple[str, dict[str, float]]:
        return "stopped" if is_stopped(point) else "finished", {"epoch": 3, **measure(point)}

    proposer = Proposer(NUMERIC, search(sampler, objectives), key_of=content_key)
    assert len(drive(proposer, results=result)) == 14
    resumed = Proposer(NUMERIC, search(sampler, objectives), key_of=content_key, known=proposer.outcomes.values())
    assert resumed.ask() is None  # they have spent the budget
    for known in (proposer, resumed):
        assert known._study is not None
        trials = [t for t in known._study.trials if t.state.name != "FAIL"]  # a known point, proposed again
        stopped = [t for t in trials if is_stopped(t.params)]
        pruned = sampler in ("random", "qmc", "tpe")
        assert len(trials) == 14
        assert 0 < len(stopped) < 14
        assert {t.state.name for t in stopped} == {"PRUNED" if pruned else "COMPLETE"}
        assert {t.state.name for t in trials if t not in stopped} == {"COMPLETE"}
        for trial in stopped:
            expected = measure({"rate": tidy(trial.params["rate"])})
            values = [expected[name] for name in objectives]
            if not pruned:
                assert trial.values == values
            elif objectives == ONE:
                assert trial.intermediate_values == {3: values[0]}
                assert trial.value == values[0]


def test_bridge_hands_over_proposals_and_then_finishes() -> None:
    jobs = iter([Job("k1", {"rate": 0.1}), LATER, Job("k2", {}, "prepare"), None])
    bridge = Bridge(lambda: next(jobs))
    assert bridge.suggest("t1") == {"key": "k1", "point": {"rate": 0.1}, "function": None}
    assert bridge.suggest("t2") is None  # Tune asks again
    assert bridge.suggest("t3") == {"key": "k2", "point": {}, "function": "prepare"}
    assert bridge.suggest("t4") == Bridge.FINISHED
