"""trials.prune and trials.baselines, without Ray: what one trial does, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rssearch.config.settings import Settings
from rssearch.cost.latency import device_name
from rssearch.errors import InputError
from rssearch.pruning import list_methods
from rssearch.trial.interface import PREDICTIONS
from rssearch.trial.session import Context, Session
from rssearch.trials import baselines, network_trial, prune, tasks
from rssearch.trials.keys import Keys
from rssearch.trials.point import NO_METHOD, PruningPoint
from rssearch.trials.pruning_trial import PruningTrial

POINT = {"dataset": "folder:scenes", "model": "resnet20", "method": "l1", "rate": 0.5, "seed": 0}


def session(
    storage: Path, data_root: Path, settings: Settings, point: dict[str, Any], key: str, **more: Any
) -> Session:
    context = Context("s", str(storage), str(data_root), settings, **more)
    return Session(context, key, point)


def test_a_trial_reports_what_the_contract_names(storage: Path, data_root: Path, settings: Settings) -> None:
    reports: list[dict[str, Any]] = []
    run_in = Session(Context("s", str(storage), str(data_root), settings), "k1", POINT, reports.append)
    before = prune.unpruned(POINT, run_in)
    result = prune.run(POINT, run_in)
    assert before["classes"] == 3
    assert {name: result[name] for name in ("baseline_macs", "baseline_params")}.items() <= before.items()
    assert before["baseline_conv_linear_macs"] <= before["baseline_macs"]
    assert set(tasks.metrics("classification")) <= set(result)
    assert {"baseline_val_accuracy", "baseline_macs", "split_hash", "history"} <= set(result)
    assert result["macs_ratio"] == result["macs"] / result["baseline_macs"]
    assert 0 < result["macs_ratio"] < 1
    assert 0 < result["params_ratio"] < 1
    assert [epoch["epoch"] for epoch in result["history"]] == [1, 2]
    assert [report["epoch"] for report in reports] == [1, 2]  # not those of the baseline that it had to train
    assert run_in.load_checkpoint() is not None  # the study drops it once the end is in the journal


def test_a_preparation_reports_the_epochs_of_its_baseline(tmp_path: Path, data_root: Path, settings: Settings) -> None:
    (needed,) = prune.preparations(
        [POINT], settings, data_root, session(tmp_path, data_root, settings, POINT, "").store
    )
    reports: list[dict[str, Any]] = []
    context = Context("s", str(tmp_path), str(data_root), settings)
    prune.prepare(dict(needed.point), Session(context, needed.key, needed.point, reports.append))
    assert [report["epoch"] for report in reports] == [1, 2]


def test_baseline_and_scores_are_made_once(
    storage: Path, data_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in = session(storage, data_root, settings, POINT, "k2")
    baselines.scores(PruningTrial.open(POINT, run_in))

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(network_trial, "fit", fail)
    monkeypatch.setattr("rssearch.pruning.score", fail)
    first, second = (baselines.scores(PruningTrial.open(point, run_in)) for point in (POINT, POINT | {"rate": 0.3}))
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.parametrize("method", [*list_methods(), NO_METHOD])
@pytest.mark.parametrize("amount", [{"rate": 0.5}, {"macs_ratio": 0.5}], ids=["rate", "macs_ratio"])
def test_cost_is_known_before_training_and_is_what_comes_out(
    storage: Path, data_root: Path, settings: Settings, method: str, amount: dict[str, float]
) -> None:
    point = {"dataset": "folder:scenes", "model": "resnet20", "method": method, "seed": 0, **amount}
    quick = settings.model_copy(update={"finetune": settings.finetune.model_copy(update={"epochs": 0})})
    run_in = session(storage, data_root, quick, point, f"cost-{method}-{amount}")
    prune.prepare(point | {"methods": [method] if method != NO_METHOD else []}, run_in)
    before = prune.cost(point, run_in)
    after = prune.run(point, run_in)
    assert before == {name: after[name] for name in before}
    if method == NO_METHOD:
        assert after["macs_ratio"] == 1
    elif "macs_ratio" in amount:
        assert after["macs_ratio"] == pytest.approx(0.5, rel=0.01)
    else:
        assert after["macs_ratio"] < 0.9


def test_uniform_cost_needs_no_scores_and_global_cost_waits_for_them(
    tmp_path: Path, data_root: Path, settings: Settings, storage: Path
) -> None:
    empty = session(tmp_path, data_root, settings, POINT, "k")
    full = session(storage, data_root, settings, POINT, "k")
    assert prune.cost(POINT, empty) == prune.cost(POINT, full)
    assert prune.cost(POINT | {"method": "bn_scale"}, empty) == {}


def test_an_interrupted_trial_ends_as_an_uninterrupted_one(storage: Path, data_root: Path, settings: Settings) -> None:
    whole = prune.run(POINT, session(storage, data_root, settings, POINT, "whole"))
    broken = session(storage, data_root, settings, POINT, "broken")
    saved: list[bytes] = []
    keep = broken.save_checkpoint

    def stop_after_one(content: bytes) -> None:
        keep(content)
        saved.append(content)
        raise KeyboardInterrupt

    broken.save_checkpoint = stop_after_one  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        prune.run(POINT, broken)
    again = session(storage, data_root, settings, POINT, "broken")
    resumed = prune.run(POINT, again)
    assert len(saved) == 1
    assert resumed["val_loss"] == whole["val_loss"]
    assert resumed["val_accuracy"] == whole["val_accuracy"]
    assert [e["train_loss"] for e in resumed["history"]] == [e["train_loss"] for e in whole["history"]]


def test_measure_reads_the_stored_network(storage: Path, data_root: Path, settings: Settings) -> None:
    run_in = session(storage, data_root, settings, POINT, "measured")
    prune.run(POINT, run_in)
    result = prune.measure(POINT, run_in)
    assert 0 <= result["test_accuracy"] <= 1
    assert result["test_accuracy"] * 12 == pytest.approx(round(result["test_accuracy"] * 12))  # 12 test images
    assert result["latency_ms"] > 0
    assert result["latency_device"] == device_name(torch.device("cpu"))
    assert not run_in.store.has(PREDICTIONS, run_in.key)  # a picture is worth nothing for classes of images


def test_a_baseline_is_measured_like_a_member_and_once(
    storage: Path, data_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Context("another", str(storage), str(data_root), settings)
    points = [POINT | {"rate": rate} for rate in (0.3, 0.6)]
    members = [Session(study, f"member{i}", point) for i, point in enumerate(points)]
    rows = [prune.run(point, run_in) for point, run_in in zip(points, members, strict=True)]
    tests: list[int] = []
    tested = tasks.tested
    monkeypatch.setattr(tasks, "tested", lambda *given: tests.append(1) or tested(*given))
    first, second = (prune.measure(point, run_in) for point, run_in in zip(points, members, strict=True))
    assert len(tests) == 3  # two members, one baseline
    names = {name for name in first if name.startswith("baseline_")}
    assert names >= {f"baseline_{name}" for name in ("test_accuracy", "latency_ms", "latency_iqr_ms", "bytes")}
    assert {name: first[name] for name in names} == {name: second[name] for name in names}
    assert set(prune.MEASURED) <= set(first)
    trained = PruningTrial.open(POINT, members[0]).baseline
    files = members[0].store.get("baselines", PruningTrial.open(POINT, members[0]).keys.baseline)
    assert files is not None
    assert first["baseline_bytes"] == len(files["model.safetensors"])
    assert 0 < second["bytes"] < first["bytes"] < first["baseline_bytes"]
    images = PruningTrial.open(POINT, members[0]).images
    by_hand, _ = tested(trained.model.eval(), images, 8, torch.device("cpu"))
    assert first["baseline_test_accuracy"] == by_hand["test_accuracy"]
    assert rows[0]["baseline_id"] == rows[1]["baseline_id"] == first["baseline_id"]

    def baseline_id(**more: Any) -> str:
        point = POINT | more
        return PruningTrial.open(point, Session(study, "k", point)).keys.baseline_id

    assert baseline_id(seed=1) == first["baseline_id"]  # that of all seeds
    assert baseline_id(**{"train.epochs": 1}) != first["baseline_id"]


def test_preparations_name_each_baseline_once_with_its_missing_scores(
    tmp_path: Path, data_root: Path, settings: Settings
) -> None:
    points = [POINT | {"method": m, "rate": r, "seed": s} for m in ("l1", "lfp") for r in (0.3, 0.5) for s in (0, 1)]
    run_in = session(tmp_path, data_root, settings, POINT, "k")
    found = prune.preparations(points, settings, data_root, run_in.store)
    assert [(p.title, p.done, dict(p.parts)) for p in found] == [
        ("baseline resnet20 on folder:scenes, seed 0", False, {"baselines": 1, "scores": 2}),
        ("baseline resnet20 on folder:scenes, seed 1", False, {"baselines": 1, "scores": 2}),
    ]
    prune.prepare(found[0].point, run_in)
    again = prune.preparations(points, settings, data_root, run_in.store)
    assert [p.done for p in again] == [True, False]
    more = prune.preparations([*points, POINT | {"method": "fpgm"}], settings, data_root, run_in.store)
    assert dict(more[0].parts) == {"baselines": 0, "scores": 1}
    assert more[0].point["methods"] == ["fpgm"]


def test_a_dotted_dimension_changes_the_settings_of_its_trial(
    data_root: Path, settings: Settings, tmp_path: Path
) -> None:
    point = POINT | {"finetune.epochs": 1, "train.epochs": 1}
    run_in = session(tmp_path, data_root, settings, point, "k")
    assert [e["epoch"] for e in prune.run(point, run_in)["history"]] == [1]
    plain = Keys(PruningPoint(POINT, settings), data_root).baseline_inputs
    assert Keys(PruningPoint(point, run_in.settings), data_root).baseline_inputs != plain
    only_tuned = POINT | {"finetune.epochs": 1}
    local = session(tmp_path, data_root, settings, only_tuned, "k").settings
    assert Keys(PruningPoint(only_tuned, local), data_root).baseline_inputs == plain


def test_identity_follows_the_data(tmp_path: Path, data_root: Path, settings: Settings) -> None:
    first = prune.identity(POINT, settings, data_root)
    assert first == prune.identity(POINT, settings, data_root)
    folder = tmp_path / "scenes"
    for name in ("forest", "river"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "0.png")
    assert prune.identity(POINT, settings, tmp_path) != first


def test_distillation_takes_the_baseline_as_teacher(tmp_path: Path, data_root: Path, settings: Settings) -> None:
    distilling = settings.model_copy(update={"finetune": settings.finetune.model_copy(update={"distill": 0.5})})
    plain = prune.run(POINT, session(tmp_path, data_root, settings, POINT, "plain"))
    taught = prune.run(POINT, session(tmp_path, data_root, distilling, POINT, "taught"))
    assert taught["baseline_val_accuracy"] == plain["baseline_val_accuracy"]
    assert taught["history"][0]["train_loss"] != plain["history"][0]["train_loss"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "l11"}, "unknown method 'l11'. Did you mean 'l1'?"),
        ({"model": "resnet21"}, "unknown model 'resnet21'. Did you mean 'resnet20'?"),
        ({"dataset": "eurosatt"}, "unknown dataset 'eurosatt'. Did you mean 'eurosat'?"),
        ({"rate": 1.5}, "space.rate: 1.5 is not allowed; it must be a number in [0, 1)"),
        ({"rate": "half"}, "space.rate: 'half' is not allowed"),
        ({"rate": True}, "space.rate: True is not allowed"),
        ({"macs_ratio": 0.5}, "space: give one of rate, rates, macs_ratio, not rate and macs_ratio"),
        ({"rate": None}, "space: give one of rate, rates, macs_ratio"),
        ({"rate": None, "macs_ratio": 0}, "space.macs_ratio: 0 is not allowed; it must be a number in (0, 1]"),
        ({"seed": -1}, "space.seed: -1 is not a whole number"),
        ({"seed": 0.5}, "space.seed: 0.5 is not a whole number"),
        ({"round_to": 0}, "space.round_to: 0 is not a whole number of at least 1"),
        ({"allocation": "globl"}, "unknown allocation 'globl'. Did you mean 'global'?"),
        ({"ratio": 0.3}, "unknown dimension 'ratio'. Did you mean 'rate"),
        ({"rate": None, "rates": "lpf-1"}, "'lpf-1'"),
        ({"allocation": "joint"}, "allocation: 'joint' needs the ranks of several criteria; method 'l1' has one"),
        ({"pruning.steps": 2}, "several steps need macs_ratio"),
        ({"rate": None, "macs_ratio": 0.5, "pruning.steps": 3}, "3 steps cannot share 2 epochs"),
        (
            {"method": "cap", "train.epochs": 0},
            "the method needs attention=True, which the study's recipe does not allow",
        ),
        ({"method": "cap", "model": "mobilenet_v2"}, "but not into MobileNetV2"),
        ({"method": "sfp", "rate": None, "macs_ratio": 0.5, "pruning.steps": 2}, "prunes again in each epoch"),
        ({"pruning.options": {"lfp": {"log": "log2"}}}, "unknown log of lfp 'log2'"),
        ({"pruning.options": {"l1": {"log": "log1p"}}}, "method 'l1' has no option 'log'"),
        ({"finetune.lrr": 0.3}, "Did you mean 'lr'?"),
        ({"dataset": 3}, "space.dataset: is required"),
        ({"train.loss": "dice"}, "settings.train.loss: 'dice' compares masks, for segmentation; for classification"),
        ({"finetune.loss": "lovasz_cross_entropy"}, "settings.finetune.loss: 'lovasz_cross_entropy' compares masks"),
        ({"groups": "outer"}, "space.groups: unknown groups 'outer'"),
        ({"groups": "inner", "rate": None, "rates": "lfp-1", "model": "resnet56"}, "space.groups: groups 'inner' goes"),
        (
            {"groups": "inner", "method": "channel_nas", "rate": None, "macs_ratio": 0.5},
            "space.groups: 'inner': method 'channel_nas' searches all groups",
        ),
        ({"pruning.groups": "inner", "rate": None, "rates": "lfp-1", "model": "resnet56"}, "settings.pruning.groups: "),
        ({"pruning.keep": {"conv1": 0}}, "pruning.keep.conv1"),
    ],
)
def test_check_refuses(change: dict[str, Any], message: str, settings: Settings) -> None:
    with pytest.raises(InputError) as caught:
        prune.check(POINT | change, settings)
    assert message in str(caught.value)


def test_weights_of_classes_that_are_not_there_are_refused(data_root: Path, settings: Settings) -> None:
    """Before anything is trained: a study asks for the identity of every point."""
    for change, message in (
        ({"train.class_weights": {"lake": 2}}, r"^settings\.train\.class_weights: unknown class 'lake'\. Known: "),
        (
            {"finetune.class_weights": [1, 2]},
            r"^settings\.finetune\.class_weights: 2 numbers, but there are 3 classes: ",
        ),
    ):
        prune.check(POINT | change, settings)
        with pytest.raises(InputError, match=message):
            prune.identity(POINT | change, settings, data_root)
    prune.identity(POINT | {"train.class_weights": "balanced"}, settings, data_root)


def test_groups_that_are_not_there_are_refused(data_root: Path, settings: Settings) -> None:
    for change, message in (
        ({"pruning.keep": {"layer9.*": 0.5}}, r"^settings\.pruning\.keep: 'layer9\.\*' fits no group of channels; "),
        (
            {"groups": "inner", "model": "tests.support.own:Joined"},
            r"^space\.groups: groups 'inner': the network has no",
        ),
    ):
        prune.check(POINT | change, settings)
        with pytest.raises(InputError, match=message):
            prune.identity(POINT | change, settings, data_root)
    prune.identity(POINT | {"pruning.keep": {"layer[12].*": 0.5}, "groups": "inner"}, settings, data_root)


def test_costs_are_of_the_groups_that_are_cut(tmp_path: Path, data_root: Path, settings: Settings) -> None:
    ratios = {}
    for groups, rate in (("all", 0.5), ("inner", 0.5), ("inner", 0.0)):
        point = POINT | {"groups": groups, "rate": rate}
        ratios[groups, rate] = prune.cost(point, session(tmp_path, data_root, settings, point, "k"))["macs_ratio"]
    assert ratios["inner", 0.0] == 1
    assert 0.2 < ratios["all", 0.5] < 0.3 < 0.45 < ratios["inner", 0.5] < 0.6


def test_a_network_without_logits_is_refused(tmp_path: Path, data_root: Path, settings: Settings) -> None:
    point = POINT | {"model": "tests.support.own:Both"}
    with pytest.raises(
        InputError, match=r"^space.model, with settings.input_size: 8: .*gives a dict with 'maps', 'sco"
    ):
        prune.check(point, settings.model_copy(update={"input_size": 8}))
    native = settings.model_copy(update={"input_size": None})
    prune.check(point, native)  # before anything is known of the images
    store = session(tmp_path, data_root, native, point, "k").store
    with pytest.raises(
        InputError, match=r"^space.model, on the images of folder:scenes, .*gives a dict with 'maps', 's"
    ):
        prune.preparations([point], native, data_root, store)


def test_check_refuses_options_that_the_network_lacks(settings: Settings) -> None:
    with pytest.raises(InputError, match="has no option 'stem'"):
        prune.check(POINT, settings.model_copy(update={"model": settings.model.model_copy(update={"stem": "small"})}))


def test_share_loads_each_set_once(data_root: Path, settings: Settings) -> None:
    seen: list[tuple[str, int, int]] = []
    points = [POINT, POINT | {"rate": 0.3}, POINT | {"seed": 1}]
    sets = prune.share(points, settings, data_root, lambda name, done, total: seen.append((name, done, total)))
    assert len(sets) == 1
    (images,) = sets.values()
    assert images.images.shape == (60, 3, 16, 16)
    assert seen[-1] == ("folder:scenes", 60, 60)
