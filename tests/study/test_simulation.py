"""Whole studies in virtual time: samplers, early stopping and resume, on trials by the hundred."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from rssearch.backend.stop import Stop
from rssearch.backend.tune import Listener
from rssearch.config.loading import parse_study
from rssearch.config.schema import Resources, StudyConfig
from rssearch.errors import TrialFailed
from rssearch.front.pareto import hypervolume
from rssearch.storage.journal import Journal
from rssearch.storage.location import write_atomic
from rssearch.study import stages
from rssearch.study.definition import StudyDefinition
from rssearch.study.recorder import MODELS, Recorder
from rssearch.study.simulation import Simulator, simulate
from rssearch.trial.interface import Preparation
from rssearch.trial.jobs import Job
from rssearch.trial.session import Session
from rssearch.trials import curves

EPOCHS = 27
SPACE: dict[str, Any] = {"rate": {"low": 0.0, "high": 0.9}, "lr": {"low": 1e-3, "high": 1.0, "log": True}}
RULES = ("none", "asha", "moasha")


def make(folder: Path, rule: Any = "none", sampler: str = "random", trials: int = 60, **more: Any) -> StudyConfig:
    objectives = {"val_accuracy": "max"} if sampler == "cmaes" else {"val_accuracy": "max", "macs": "min"}
    space = SPACE | ({} if sampler == "cmaes" else {"method": ["a", "b", "c", "d"]})
    if sampler == "grid":
        space = {"rate": [n / 10 for n in range(10)], "method": ["a", "b", "c"], "lr": [0.01, 0.1]}
    search = {"sampler": sampler, "trials": trials, "objectives": objectives, "early_stopping": rule}
    return parse_study(
        {
            "study": "s",
            "trial": "trials.curves:synthetic",
            "space": space,
            "settings": {"train": {"epochs": EPOCHS}},
            "search": search | more.pop("search", {}),
            "storage": str(folder),
            **more,
        }
    )


def spent(recorder: Recorder) -> int:
    """Epochs of all trials."""
    return sum(len(record.history) for record in recorder.records.values())


def volume(recorder: Recorder) -> float:
    """The relative hypervolume of the front."""
    points = [[row["val_accuracy"], row["macs"]] for row in recorder.front()]
    return hypervolume(points, [curves.CHANCE, curves.MACS], ["max", "min"]) / curves.MACS


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sampler", ["grid", "random", "qmc", "tpe", "nsga2", "nsga3", "gp", "cmaes"])
def test_every_sampler_spends_its_budget_under_every_rule(tmp_path: Path, sampler: str, rule: str) -> None:
    trials = 12 if sampler == "gp" else 60
    recorder = simulate(make(tmp_path, rule, sampler, trials), Simulator(5))
    statuses = Counter(record.status for record in recorder.records.values())
    assert statuses.total() == trials
    assert statuses.keys() == ({"finished"} if rule == "none" else {"finished", "stopped"})
    lines = (tmp_path / "s" / "trials.jsonl").read_text().splitlines()
    ended = [record["key"] for record in map(json.loads, lines) if "status" in record]
    assert len(ended) == len(set(ended)) == trials  # none twice
    for record in recorder.records.values():
        epochs = [epoch["epoch"] for epoch in record.history]
        assert epochs == list(range(1, len(epochs) + 1))
        if record.status == "stopped":
            assert epochs[-1] in (1, 3, 9)  # rungs; that of 27 is the end
            assert record.metrics.items() >= record.history[-1].items()
            assert record.reason == f"{rule}: not among the best after epoch {epochs[-1]}"
        else:
            assert epochs[-1] == EPOCHS
    assert {row["status"] for row in recorder.front()} == {"finished"}


@pytest.mark.parametrize("rule", ["asha", "moasha"])
@pytest.mark.parametrize("events", [1, 17, 100, 333])
def test_a_killed_study_goes_on_as_its_record_says(tmp_path: Path, rule: str, events: int) -> None:
    """What the disk holds after so many epochs, as a kill would leave it, is copied, and the study goes on there."""
    left = tmp_path / "left"

    class Killed(Simulator):
        def run_jobs(self, *arguments: Any, **more: Any) -> None:
            *before, listener = arguments
            seen = iter(range(1, events + 1))

            def epoch(*about: Any) -> None:
                listener.epoch(*about)
                if next(seen, None) == events:
                    shutil.copytree(tmp_path / "whole" / "s", left / "s")

            super().run_jobs(*before, replace(listener, epoch=epoch), **more)

    simulate(make(tmp_path / "whole", rule), Killed(5))
    before = Journal(left / "s" / "trials.jsonl").records
    ended = {key: record for key, record in before.items() if not record.is_running}
    interrupted = before.keys() - ended.keys()
    recorder = simulate(make(left, rule), Simulator(5))
    after = recorder.records
    assert len(after) == 60
    assert {key: after[key] for key in ended} == ended  # nothing lost, nothing run again
    assert interrupted <= after.keys()
    lines = [json.loads(line) for line in (left / "s" / "trials.jsonl").read_text().splitlines()]
    times = Counter(record["key"] for record in lines if "status" in record)
    assert set(times.values()) == {1}
    assert Counter(r.status for r in after.values()).keys() == {"finished", "stopped"}


def test_a_log_has_a_line_for_each_finished_trial_and_says_which_are_on_the_front(tmp_path: Path) -> None:
    recorder = simulate(make(tmp_path), Simulator(5))
    file = recorder.display.console.file
    assert isinstance(file, StringIO)
    said = [line for line in file.getvalue().replace("\n", " ").split("trial ") if " finished: " in line]
    finished = sorted((r for r in recorder.records.values() if r.status == "finished"), key=lambda r: r.ended)
    assert len(said) == len(finished) == 60
    before: list[tuple[float, float]] = []
    for number, (line, record) in enumerate(zip(said, finished, strict=True), 1):
        accuracy, macs = record.metrics["val_accuracy"], record.metrics["macs"]
        assert line.startswith(
            f"{number}/60 finished: {record.title}: validation accuracy {100 * accuracy:.1f} %, MACs "
        )
        dominated = any(a >= accuracy and m <= macs and (a, m) != (accuracy, macs) for a, m in before)
        assert (", on the front" in line) is not dominated
        before.append((accuracy, macs))


def test_a_study_that_is_widened_calls_its_trials_what_it_called_them() -> None:
    def defined(**space: Any) -> StudyDefinition:
        return StudyDefinition(parse_study({"study": "s", "trial": "trials.curves:synthetic", "space": space}))

    narrow = defined(rate=[0.5], method=["a"], lr=[0.1])
    wide = defined(rate=[0.5, 0.7], method=["a", "b"], lr=[0.1])
    (point,) = narrow.points
    assert point in wide.points
    assert narrow.title(point) == wide.title(point) == "rate=0.5 a lr=0.1"


def test_decisions_after_a_resume_know_every_trial_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rungs of a study that is made again from its journal are those that it had, also of trials under way."""
    from rssearch.study.early_stopping import AmongTheBest, early_stopping

    rules: list[Any] = []
    rungs: list[Any] = []

    def kept(*arguments: Any) -> Any:
        rules.append(early_stopping(*arguments))
        return rules[-1]

    monkeypatch.setattr(stages, "early_stopping", kept)
    config = make(tmp_path, "moasha")

    class Watched(Simulator):
        def run_jobs(self, *arguments: Any, **more: Any) -> None:
            *before, listener = arguments
            seen = iter(range(1, 41))
            (rule,) = rules

            def started(*about: Any) -> None:
                listener.started(*about)
                if next(seen, None) == 40:
                    definition = StudyDefinition(config)
                    journal = Journal(definition.folder / "trials.jsonl")
                    again = Recorder(definition, journal, rule.recorder.tracker, rule.recorder.display)
                    made = AmongTheBest(definition, again, definition.cost).halving
                    rungs.extend(copy.deepcopy([rule.halving._reached, made._reached]))

            super().run_jobs(*before, replace(listener, started=started), **more)

    simulate(config, Watched(5))
    had, made = (
        {place: (rung.keys, rung._layers._layers) for place, rung in reached.items() if rung.keys} for reached in rungs
    )
    assert had == made
    assert {rung for _, rung in had} == {1, 3, 9}


def test_stopped_trials_stay_stopped_until_the_rule_is_lifted(tmp_path: Path) -> None:
    first = simulate(make(tmp_path, "asha"), Simulator(5))
    journal = (tmp_path / "s" / "trials.jsonl").read_bytes()
    simulate(make(tmp_path, "asha"), Simulator(5))
    assert (tmp_path / "s" / "trials.jsonl").read_bytes() == journal
    lifted = simulate(make(tmp_path, "none"), Simulator(5))
    assert {record.status for record in lifted.records.values()} == {"finished"}
    assert lifted.records.keys() == first.records.keys()


def test_two_thousand_trials_and_a_failing_one(tmp_path: Path) -> None:
    recorder = simulate(make(tmp_path, "moasha", trials=2000), Simulator(50))
    assert len(recorder.records) == 2000
    stopped = sum(record.status == "stopped" for record in recorder.records.values())
    assert 0.9 < stopped / 2000 < 0.99  # one in 27 of those that three rungs judge, and those of the beginning
    recorded = make(tmp_path, settings={"options": {"journal": str(tmp_path / "none.jsonl")}}, study="other")
    missing = parse_study(recorded.resolved() | {"trial": "trials.curves:recorded"})
    assert {record.status for record in simulate(missing, Simulator(2)).records.values()} == {"failed"}


def test_stopping_early_keeps_the_front_for_a_fraction_of_the_epochs(tmp_path: Path) -> None:
    shares = {}
    for seed in range(5):
        search = {"search": {"seed": seed}}
        whole = simulate(make(tmp_path / f"none{seed}", trials=300, **search), Simulator(20))
        early = simulate(make(tmp_path / f"early{seed}", "moasha", trials=300, **search), Simulator(20))
        assert early.records.keys() == whole.records.keys()  # random draws do not depend on results
        assert spent(early) < 0.25 * spent(whole)
        shares[seed] = volume(early) / volume(whole)
    assert min(shares.values()) > 0.97, shares
    assert sum(shares.values()) / 5 > 0.98, shares


def test_a_recorded_study_is_repeated(tmp_path: Path) -> None:
    config = make(tmp_path, sampler="grid")
    whole = simulate(config, Simulator(3))
    options = {"train": {"epochs": EPOCHS}, "options": {"journal": str(tmp_path / "s" / "trials.jsonl")}}
    again = parse_study(config.resolved() | {"study": "again", "trial": "trials.curves:recorded", "settings": options})
    simulator = Simulator(3)
    repeated = simulate(again, simulator)

    def results(recorder: Recorder) -> list[Any]:
        return sorted((str(r.point), r.metrics, r.history) for r in recorder.records.values())

    assert results(repeated) == results(whole)
    early = simulate(
        parse_study(
            again.resolved() | {"study": "early", "search": config.search.model_dump() | {"early_stopping": "asha"}}
        ),
        Simulator(3),
    )
    assert spent(early) < 0.5 * spent(whole)
    assert simulator.busy == pytest.approx(sum(e["seconds"] for r in whole.records.values() for e in r.history))


def jobs(count: int) -> Iterator[Any]:
    return iter([Job(str(n), {"rate": n / 10, "lr": 0.1}) for n in range(count)])


def test_virtual_time_keeps_every_slot_busy(tmp_path: Path) -> None:
    """Four trials of one second an epoch each on two slots: two, and then two."""
    config = make(tmp_path)
    context, waiting, ended = StudyDefinition(config).context(), jobs(4), []
    simulator = Simulator(2)
    listener = Listener(
        started=lambda *_: None, epoch=lambda *_: None, retried=lambda *_: None,
        ended=lambda job, outcome: ended.append((simulator.now, job.key, outcome.status)),
    )  # fmt: skip
    target = "tests.support.toy:counted"
    simulator.run_jobs(lambda: next(waiting, None), target, context, Resources(), listener, stop=Stop(), verbose=False)
    assert ended == [(3.0, "0", "finished"), (3.0, "1", "finished"), (6.0, "2", "finished"), (6.0, "3", "finished")]
    assert (simulator.now, simulator.busy) == (6.0, 12.0)


def test_a_stop_interrupts_it(tmp_path: Path) -> None:
    stop, waiting = Stop(), jobs(4)
    listener = Listener(
        started=lambda *_: None, epoch=lambda *_: setattr(stop, "requested", True), retried=lambda *_: None,
        ended=lambda *_: None,
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        Simulator(2).run_jobs(
            lambda: next(waiting, None), "tests.support.toy:counted", StudyDefinition(make(tmp_path)).context(),
            Resources(),
            listener, stop=stop, verbose=False,
        )  # fmt: skip


def test_weights_stay_that_another_study_may_have_on_its_front(tmp_path: Path) -> None:
    """A trial that two studies have is stored once."""
    one, other = (
        simulate(make(tmp_path, trials=n, study=name), Simulator(2)) for name, n in (("one", 20), ("other", 8))
    )
    shared = {*one.records} & {*other.records}
    assert len(shared) == 8, "the same seed draws the same points"
    for recorder in (one, other):
        write_atomic(recorder.definition.folder / "study.yaml", b"study")
    store = one.definition.store
    for key in one.records:
        store.put(MODELS, key, {"model.safetensors": b"weights"})
    one.close("FINISHED")
    assert {*store.keys(MODELS)} == {*one.front_candidates()} | shared != {*one.records}


def test_trials_start_beside_the_baselines_that_they_do_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two slots, two methods, of which one has a baseline that takes as long as its trials together."""

    def preparations(points: Iterable[Any], *_: Any) -> list[Preparation]:
        needed = any(point["method"] == "b" for point in points)
        point = {"method": "b", "rate": 0.0, "lr": 0.1}
        return [Preparation("baseline", "the baseline", point, done=False, epochs=EPOCHS)] if needed else []

    monkeypatch.setattr(curves, "preparations", preparations, raising=False)
    monkeypatch.setattr(curves, "prepare", curves.synthetic, raising=False)
    started: dict[str, float] = {}

    class Watched(Simulator):
        def run_jobs(self, *arguments: Any, **more: Any) -> None:
            *before, listener = arguments

            def start(job: Job) -> None:
                started[job.key if job.function else f"{job.point['method']}{job.point['rate']}"] = self.now
                listener.started(job)

            super().run_jobs(*before, replace(listener, started=start), **more)

    simulator = Watched(2)
    space = {"rate": [0.1, 0.2], "method": ["b", "a"], "lr": [0.1]}
    recorder = simulate(make(tmp_path, sampler="grid", space=space), simulator)
    assert [record.status for record in recorder.records.values()] == ["finished"] * 4
    assert [started["baseline"], started["a0.1"]] == [0, 0]
    assert min(started["b0.1"], started["b0.2"]) >= simulator.now / 3 - 1e-9  # once the baseline is there
    assert simulator.busy == pytest.approx(2 * simulator.now, rel=0.2)
    baseline = recorder.journal.records["baseline"]
    assert (baseline.kind, baseline.title, len(baseline.history)) == ("baseline", "the baseline", EPOCHS)


def test_trials_whose_baseline_failed_fail_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*_: Any) -> Any:
        raise TrialFailed("no network")

    point = {"method": "b", "rate": 0.0, "lr": 0.1}
    needed = [Preparation("baseline", "the baseline", point, done=False)]
    monkeypatch.setattr(curves, "preparations", lambda points, *_: needed * (points[0]["method"] == "b"), raising=False)
    monkeypatch.setattr(curves, "prepare", prepare, raising=False)
    space = {"method": ["b", "a"], "rate": [0.1, 0.2], "lr": [0.1]}
    recorder = simulate(make(tmp_path, sampler="grid", space=space), Simulator(2))
    ended = {(r.point["method"], r.status, r.reason) for r in recorder.records.values()}
    assert ended == {("a", "finished", None), ("b", "failed", "its baseline failed: no network")}


def test_a_measurement_that_fails_is_tried_once_in_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def measure(_: Any, session: Session) -> Any:
        tried.append(session.key)
        raise TrialFailed("the disk is full")

    monkeypatch.setattr(curves, "measure", measure, raising=False)
    config = make(tmp_path, sampler="grid", space={"rate": [0.1, 0.5], "method": ["a"], "lr": [0.1]})
    recorder = simulate(config, Simulator(2))
    members = {row["key"] for row in recorder.front()}
    assert (set(tried), len(tried)) == (members, len(members))
    simulate(config, Simulator(2))  # the next session tries again
    assert len(tried) == 2 * len(members)
