"""Trials whose widths follow from sensitivities: what is measured once, what is known before, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rssearch import pruning
from rssearch.config.loading import override_settings
from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.pruning.sensitivity import measured_widths
from rssearch.report.members import SENSITIVITY
from rssearch.trial.interface import MEMBERS
from rssearch.trial.session import Context, Session
from rssearch.trials import baselines, prune
from rssearch.trials.keys import SENSITIVITIES, Keys
from rssearch.trials.point import PruningPoint
from rssearch.trials.pruning_trial import PruningTrial

POINT = {"dataset": "folder:scenes", "model": "vgg16_cifar", "method": "l1", "macs_ratio": 0.5, "seed": 0}
POINT |= {"allocation": "sensitivity"}


@pytest.fixture(scope="module")
def quick(settings: Settings) -> Settings:
    one = {"epochs": 1}
    return settings.model_copy(
        update={
            "train": settings.train.model_copy(update=one),
            "finetune": settings.finetune.model_copy(update=one),
            "pruning": settings.pruning.model_copy(update={"score_batches": 1}),
        }
    )


@pytest.fixture(autouse=True)
def few_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rssearch.pruning.sensitivity.SHARES", (0.5, 0.1))


def session(storage: Path, data_root: Path, settings: Settings, point: dict[str, Any], key: str) -> Session:
    return Session(Context("s", str(storage), str(data_root), settings), key, point)


def test_a_study_measures_once_knows_the_cost_then_and_keeps_a_picture(
    storage: Path, data_root: Path, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in = session(storage, data_root, quick, POINT, "first")
    points = [POINT, POINT | {"macs_ratio": 0.3}, POINT | {"allocation": "uniform"}]
    (needed,) = prune.preparations(points, quick, data_root, run_in.store)
    assert needed.point["sensitivities"] == ["l1"]
    assert needed.parts == {"baselines": 1, "scores": 1, "sensitivities": 1}
    assert prune.cost(POINT, run_in) == {}
    prune.prepare(dict(needed.point), session(storage, data_root, quick, dict(needed.point), needed.key))
    (after,) = prune.preparations(points, quick, data_root, run_in.store)
    assert after.done
    assert "sensitivities" not in after.point

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(pruning, "measure_sensitivities", fail)
    before = prune.cost(POINT, run_in)
    assert before["macs_ratio"] == pytest.approx(0.5, rel=0.01)
    assert prune.cost(points[1], run_in)["macs_ratio"] == pytest.approx(0.3, rel=0.01)
    result = prune.run(POINT, run_in)
    assert before == {name: result[name] for name in before}
    prune.measure(POINT, run_in)
    assert (run_in.store.get(MEMBERS, "first") or {})[SENSITIVITY].startswith(b"\x89PNG")
    uniform = session(storage, data_root, quick, points[2], "uniform")
    prune.run(points[2], uniform)
    prune.measure(points[2], uniform)
    assert SENSITIVITY not in (uniform.store.get(MEMBERS, "uniform") or {})


def test_normalisation_and_loss_see_the_training_split_in_two_parts(
    storage: Path, data_root: Path, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(pruning, "measure_sensitivities", lambda *args, **_: seen.extend(args[3:5]))
    several = quick.model_copy(update={"pruning": quick.pruning.model_copy(update={"score_batches": 5})})
    trial = PruningTrial.open(POINT, session(storage, data_root, several, POINT, "parts"))
    baselines.measure_sensitivities(trial, trial.build_model(), trial.graph, {})
    sums = [{round(float(image.double().sum()), 3) for x, _ in part for image in x} for part in seen]
    assert [len(part) for part in sums] == [18, 18]  # of 36 different images
    assert not sums[0] & sums[1]


def test_keys_tell_what_is_measured_and_leave_other_trials_alone(data_root: Path, quick: Settings) -> None:
    def keys(settings: Settings = quick, **more: Any) -> Keys:
        return Keys(PruningPoint(POINT | more, settings), data_root)

    assert keys().sensitivities == keys(macs_ratio=0.3, allocation="uniform").sensitivities
    assert keys().sensitivities != keys(method="l2").sensitivities
    wider = quick.model_copy(update={"pruning": quick.pruning.model_copy(update={"score_batches": 4})})
    assert keys(wider).sensitivities != keys().sensitivities
    assert keys(wider).scores == keys().scores  # L1 sees no images
    assert "sensitivity" in keys().identity()
    assert "sensitivity" not in keys(allocation="uniform").identity()


def test_several_steps_measure_again(storage: Path, data_root: Path, quick: Settings) -> None:
    two = quick.model_copy(
        update={
            "pruning": quick.pruning.model_copy(update={"steps": 2}),
            "finetune": quick.finetune.model_copy(update={"epochs": 2}),
        }
    )
    run_in = session(storage, data_root, two, POINT, "steps")
    result = prune.run(POINT, run_in)
    assert result["macs_ratio"] == pytest.approx(0.5, rel=0.01)
    assert len(run_in.store.keys(SENSITIVITIES)) >= 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"macs_ratio": None, "rate": 0.5}, "allocation: 'sensitivity' needs macs_ratio"),
        ({"macs_ratio": None, "rates": "lfp-1"}, "leave nothing to an allocation 'sensitivity'"),
        ({"method": "compound"}, "allocation: 'sensitivity' needs one ranking"),
        ({"method": "sfp"}, "'sfp' prunes again in each epoch"),
        ({"method": "channel_nas"}, "space.allocation: method 'channel_nas' has one threshold"),
    ],
)
def test_what_makes_no_sense_is_refused(quick: Settings, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune.check({name: value for name, value in (POINT | more).items() if value is not None}, quick)


def test_no_pruning_needs_no_sensitivities(data_root: Path, quick: Settings, storage: Path) -> None:
    whole = quick.model_copy(update={"pruning": quick.pruning.model_copy(update={"allocation": "sensitivity"})})
    point = {**POINT, "method": "none", "macs_ratio": 1.0}
    prune.check(point, whole)
    (needed,) = prune.preparations([point], whole, data_root, session(storage, data_root, whole, point, "").store)
    assert "sensitivities" not in needed.point


def test_what_later_steps_measure_counts(
    storage: Path, data_root: Path, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first measurement is shared; the second one's images go through networks of the step's own widths."""
    point = POINT | {"model": "resnet20"}
    runs: list[int] = []
    loss, graphs = pruning.measure_sensitivities, []

    def measured(model: Any, graph: Any, scores: Any, recalibration: Any, apart: Any, **more: Any) -> Any:
        images = sum(len(x) for x, _ in [*recalibration, *apart])
        cuts = [graph.macs({name: range(n)}) for name, g in graph.groups.items() for n in measured_widths(g.width)]
        runs.append(images * (sum(cuts) + graph.macs()))
        graphs.append(graph)
        return loss(model, graph, scores, recalibration, apart, **more)

    monkeypatch.setattr(pruning, "measure_sensitivities", measured)
    local = override_settings(quick, {"pruning.steps": 2, "finetune.epochs": 2})
    result = prune.run(point, session(storage, data_root, local, point, "two steps"))
    assert len(runs) == 2
    (shared,) = [macs for key, macs in result["shared_compute"].items() if key.startswith("sensitivities")]
    assert shared == runs[0]
    epochs = (36 * 3 + 12) * (graphs[1].macs() + result["macs"]) + 12 * result["macs"]
    assert result["compute"] == epochs + runs[1]
