"""The method slimmable in a pruning study: one training for all budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rssearch
from rssearch import pruning
from rssearch.config.loading import override_settings
from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.pruning.surgery import kept_by
from rssearch.storage.artifacts import Store
from rssearch.train.loop import recalibrate_on
from rssearch.trial.session import Context, Session
from rssearch.trials import prune, slimmables, spending
from rssearch.trials.keys import Keys
from rssearch.trials.planned import PlannedTrial
from rssearch.trials.point import PruningPoint
from rssearch.trials.pruning_trial import PruningTrial
from tests.trials.test_prune import POINT

HALF = {name: value for name, value in POINT.items() if name not in {"rate", "method"}} | {"macs_ratio": 0.5}
NAMED = HALF | {"method": "slimmable"}
SMALL = {
    "slimmable.epochs": 2,
    "slimmable.population": 4,
    "slimmable.generations": 1,
    "slimmable.images": 16,
    "slimmable.budgets": [0.6, 0.4],
}


@pytest.fixture(scope="module")
def small(settings: Settings) -> Settings:
    return override_settings(settings, {**SMALL, "slimmable.held_out": 0.25})


def open_session(folder: Path, root: Path, local: Settings, point: dict[str, Any], key: str, **more: Any) -> Session:
    return Session(Context("s", str(folder), str(root), local), key, point, **more)


@pytest.fixture(params=["cascade", "sandwich"])
def form(small: Settings, request: pytest.FixtureRequest) -> Settings:
    return override_settings(small, {"slimmable.form": request.param})


def test_one_training_serves_all_budgets(form: Settings, data_root: Path, tmp_path: Path) -> None:
    points = [NAMED | {"macs_ratio": ratio} for ratio in (0.8, 0.6, 0.45)]
    store = Store(str(tmp_path))
    baseline, training = prune.preparations(points, form, data_root, store)
    assert (baseline.done, training.done, training.epochs) == (False, False, 2)
    assert training.title == "slimmable training resnet20 on folder:scenes, seed 0"
    run_in = open_session(tmp_path, data_root, form, dict(training.point), training.key)
    assert prune.prepare(dict(training.point), run_in)["epoch"] == 2
    again: list[dict[str, Any]] = []
    whole = prune.preparations([NAMED | {"macs_ratio": 0.4}], form, data_root, store)[1]
    later = open_session(tmp_path, data_root, form, dict(whole.point), whole.key, on_report=again.append)
    prune.prepare(dict(whole.point), later)
    assert [report["epoch"] for report in again] == ([3, 4] if form.slimmable.form == "cascade" else [])
    assert all(preparation.done for preparation in prune.preparations(points, form, data_root, store))
    with pytest.MonkeyPatch.context() as patch:
        for function in ("_train_stage", "_sandwich"):
            patch.setattr(slimmables, function, lambda *_: pytest.fail("trained again"))
        for point in points:
            reports: list[dict[str, Any]] = []
            session = open_session(tmp_path, data_root, form, point, str(point), on_report=reports.append)
            result = prune.run(point, session)
            assert result["macs_ratio"] == pytest.approx(point["macs_ratio"], rel=0.01)
            assert [report["epoch"] for report in reports] == [1, 2]  # of the fine-tuning alone
            assert 0 <= prune.measure(point, session)["test_accuracy"] <= 1


def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    tmp_path: Path, storage: Path, data_root: Path, form: Settings
) -> None:
    whole = prune.run(NAMED, open_session(storage, data_root, form, NAMED, f"whole-{form.slimmable.form}"))
    (_, needed) = prune.preparations([NAMED], form, data_root, Store(str(tmp_path)))

    def stop(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    broken = open_session(tmp_path, data_root, form, dict(needed.point), needed.key, on_report=stop)
    with pytest.raises(KeyboardInterrupt):
        prune.prepare(dict(needed.point), broken)
    trial = PruningTrial.open(NAMED, broken)
    training = trial.shared_session(trial.keys.slimmable(int(form.slimmable.form == "cascade")))
    assert training.load_checkpoint() is not None
    resumed = prune.run(NAMED, open_session(tmp_path, data_root, form, NAMED, "resumed"))
    assert (resumed["val_loss"], resumed["macs"]) == (whole["val_loss"], whole["macs"])
    assert training.load_checkpoint() is None


def test_stages_build_on_one_another(small: Settings, data_root: Path, tmp_path: Path) -> None:
    point = NAMED | {"macs_ratio": 0.4}
    (_, training) = prune.preparations([point], small, data_root, Store(str(tmp_path)))
    assert training.epochs == 4
    session = open_session(tmp_path, data_root, small, point, "a")
    trial = PruningTrial.open(point, session)
    last = slimmables.source(trial)
    first = slimmables.source(PruningTrial.open(NAMED | {"macs_ratio": 0.6}, session))
    kept, before = (kept_by(trial.graph, stage.spec) for stage in (last, first))
    assert all(set(channels) <= set(before[name]) for name, channels in kept.items())
    assert trial.graph.macs(kept) / trial.graph.macs() == pytest.approx(0.4, rel=0.01)
    longer = override_settings(small, {"slimmable.budgets": [0.6, 0.3]})
    other = PruningTrial.open(point, open_session(tmp_path, data_root, longer, point, "b"))
    assert other.keys.slimmable(1) == trial.keys.slimmable(1)
    assert other.keys.slimmable(2) != trial.keys.slimmable(2)
    whole = slimmables.source(PruningTrial.open(NAMED | {"macs_ratio": 0.9}, session))
    assert whole.history == []


@pytest.mark.parametrize("change", [{"pruning.keep": {"layer[23]*": 1}}, {"slimmable.floor": 0.9}], ids=str)
def test_a_budget_that_no_structure_meets_is_refused_before_a_training(
    change: dict[str, Any], form: Settings, data_root: Path, tmp_path: Path
) -> None:
    local, large = override_settings(form, change), NAMED | {"macs_ratio": 0.95}
    needed = prune.preparations([NAMED, large], local, data_root, Store(str(tmp_path)))
    assert all(preparation.point["macs_ratio"] == 0.95 for preparation in needed[1:])  # what can be met is trained
    assert len(prune.preparations([NAMED], local, data_root, Store(str(tmp_path)))) == 1
    session = open_session(tmp_path, data_root, local, NAMED, "a")
    with pytest.raises(InputError, match=r"space.macs_ratio: 0.5 of the MACs cannot be met within 1%: .* has 0\.[6-9]"):
        prune.cost(NAMED, session)
    with pytest.raises(InputError, match="cannot be met"):
        slimmables.derived(PruningTrial.open(NAMED, session))
    assert not (tmp_path / "baselines").exists()


def test_a_trial_is_never_off_its_budget(small: Settings, data_root: Path, storage: Path) -> None:
    """In steps of 16 channels nothing is near a half."""
    point = NAMED | {"round_to": 16}
    with pytest.raises(InputError, match=r"macs_ratio 0.5 cannot be met within 1%: the nearest structure has 0\.5\d+ "):
        slimmables.derived(PruningTrial.open(point, open_session(storage, data_root, small, point, "a")))


def test_a_stage_that_is_too_small_is_not_begun_with(
    small: Settings, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = NAMED | {"macs_ratio": 0.404}  # the stage at 0.4 is within 1 %, if it has its MACs
    trial = PruningTrial.open(point, open_session(tmp_path, data_root, small, point, "a"))
    assert trial.point.slimmable_stages == 2

    def stage(_: Any, number: int) -> slimmables.Stage:
        kept = {name: range(group.width // number) for name, group in trial.graph.groups.items()}
        return slimmables.Stage(trial.build_model(), pruning.make_spec(trial.graph, kept), {}, [{"number": number}])

    monkeypatch.setattr(slimmables, "_cascade", stage)
    assert slimmables.source(trial).history == [{"number": 1}]


def test_what_is_cut_out_of_a_sandwich_has_statistics(small: Settings, data_root: Path, storage: Path) -> None:
    """Its training keeps none: those of the baseline, with other weights, would say nothing."""
    sandwich = override_settings(small, {"slimmable.form": "sandwich", "finetune.epochs": 0})
    for ratio in (1.0, 0.5):
        point = NAMED | {"macs_ratio": ratio}
        trial = PruningTrial.open(point, open_session(storage, data_root, sandwich, point, f"statistics {ratio}"))
        model, _ = slimmables.derived(trial)
        before = {name: value.clone() for name, value in model.named_buffers()}
        images = slimmables._first(trial, slimmables.held_out(trial)[0])
        recalibrate_on(model, images, device=trial.device)
        assert all((before[name] == value).all() for name, value in model.named_buffers())


@pytest.mark.parametrize(("ratio", "searched"), [(0.6, 0), (0.5, 8 * (16 + 9)), (1.0, 0)])
def test_what_a_trial_searches_for_itself_counts(
    ratio: float, searched: int, small: Settings, data_root: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 structures in each of 2 generations; of 36 training images 27 are seen by batches of 16, and 9 judge."""
    local = override_settings(small, {"finetune.epochs": 0})
    point = NAMED | {"macs_ratio": ratio}
    run_in = open_session(storage, data_root, local, point, f"counts {ratio}")
    slimmables.source(PruningTrial.open(point, run_in))
    result = prune.run(point, run_in)
    own = 12 * result["macs"]  # the validation at the end
    assert result["compute"] == own + searched * round(ratio * result["baseline_macs"])


def test_few_images_judge_what_there_are(small: Settings, data_root: Path, storage: Path) -> None:
    many = override_settings(small, {"slimmable.images": 10**6})
    trial = PruningTrial.open(NAMED, open_session(storage, data_root, many, NAMED, "few"))
    assert spending._seen(trial) == (27, 9)
    lacking = override_settings(small, {"slimmable.held_out": 0.01})
    with pytest.raises(InputError, match=r"settings.slimmable.held_out: 0.01 of each class: 36 training images are"):
        slimmables.held_out(PruningTrial.open(NAMED, open_session(storage, data_root, lacking, NAMED, "lacking")))


def test_each_cascade_is_prepared(small: Settings, data_root: Path, tmp_path: Path) -> None:
    """Two populations make two cascades, though a sandwich would be the same."""
    points = [NAMED | {"slimmable.population": number} for number in (4, 5)]
    needed = prune.preparations(points, small, data_root, Store(str(tmp_path)))
    assert len({preparation.key for preparation in needed}) == 3


def test_the_plan_counts_the_epochs_of_a_cascade(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch takes an hour: 50 of the baseline, and 2 stages of 2; a search counts twice."""
    monkeypatch.setattr(PlannedTrial, "epoch_seconds", lambda *_: 3600.0)
    study = {
        "study": "s",
        "trial": "trials.prune:run",
        "space": {name: [value] for name, value in (NAMED | {"macs_ratio": 0.4}).items()},
        "settings": {
            "train": {"epochs": 50},
            "finetune": {"epochs": 0},
            "slimmable": {"epochs": 2, "budgets": [0.6, 0.4]},
        },
        "data_root": str(data_root),
        "storage": str(tmp_path),
    }
    assert rssearch.plan(rssearch.parse_study(study)).hours == 50 + 2 * 2 * 2


def test_the_search_of_a_sandwich_is_not_in_the_key_of_its_training(small: Settings, data_root: Path) -> None:
    sandwich = override_settings(small, {"slimmable.form": "sandwich"})
    searched = override_settings(sandwich, {"slimmable.generations": 2})
    one, two = (Keys(PruningPoint(NAMED, settings), data_root) for settings in (sandwich, searched))
    assert one.slimmable(0) == two.slimmable(0)
    assert one.structures != two.structures


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macs_ratio": None, "rate": 0.5}, "method 'slimmable' needs macs_ratio"),
        ({"macs_ratio": 0.05}, "space.macs_ratio: 0.05 is below the last of settings.slimmable.budgets, 0.4"),
        ({"allocation": "uniform"}, "space.allocation: method 'slimmable' searches the widths itself"),
        ({"pruning.steps": 2}, "settings.pruning.steps: method 'slimmable' derives its network in one step"),
        ({"slimmable.budgets": [0.5, 0.5]}, "budgets must fall, but are 0.5, 0.5"),
        ({"slimmable.structure": 1}, "Did you mean 'structures'?"),
    ],
)
def test_check_refuses(change: dict[str, Any], message: str, small: Settings) -> None:
    with pytest.raises(InputError) as caught:
        prune.check(NAMED | change, small)
    assert message in str(caught.value)
