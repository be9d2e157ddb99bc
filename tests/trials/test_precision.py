"""The dimension precision: trials whose network is deployed in fewer bits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper

from rssearch.config.loading import override_settings
from rssearch.config.schema import Bound, Search
from rssearch.config.settings import Settings
from rssearch.cost.compute import Work
from rssearch.cost.onnx import OnnxNetwork
from rssearch.data import loader
from rssearch.errors import Infeasible, InputError
from rssearch.storage.artifacts import Store
from rssearch.train import evaluate
from rssearch.trial.interface import CONVERTED
from rssearch.trial.session import Context, Session
from rssearch.trials import deployed, keys, network_trial, prune, results
from rssearch.trials.keys import FINETUNED, Keys
from rssearch.trials.point import PruningPoint
from rssearch.trials.pruning_trial import PruningTrial
from tests.trials.test_prune import POINT

INT8 = {"precision": "int8"}
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8_qat")


def opened(storage: Path, data_root: Path, settings: Settings, point: dict[str, Any], reports: list[Any]) -> Session:
    context = Context("s", str(storage), str(data_root), settings)
    return Session(context, f"{point['precision']}-key", point, reports.append)


@pytest.fixture(scope="module")
def found(
    data_root: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Session, dict[str, Any], list[Any]]]:
    """The session, the metrics and the reports of a trial in each precision, of one study."""
    storage, local = tmp_path_factory.mktemp("precision"), override_settings(settings, {"qat.epochs": 1})
    made = {}
    for precision in PRECISIONS:
        point, reports = POINT | {"precision": precision}, list[Any]()
        session = opened(storage, data_root, local, point, reports)
        metrics = prune.run(point, session)
        made[precision] = (session, metrics | prune.measure(point, session), reports)
    return made


def test_they_share_their_fine_tuning(found: dict[str, Any], data_root: Path) -> None:
    assert [len(found[name][2]) for name in PRECISIONS] == [2, 0, 0, 0, 1]  # epochs that each has reported
    assert {metrics["macs"] for _, metrics, _ in found.values()} == {found["fp32"][1]["macs"]}
    shared = [{key for key in metrics["shared_compute"] if "finetuned" in key} for _, metrics, _ in found.values()]
    assert len(set.union(*shared)) == 1
    assert found["fp32"][1]["compute"] == found["int8"][1]["compute"] < found["int8_qat"][1]["compute"]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "int8_qat"])
def test_what_is_reported_is_what_onnxruntime_computes(found: dict[str, Any], precision: str) -> None:
    session, metrics, _ = found[precision]
    content = session.store.get(results.MODELS, session.key)[CONVERTED]
    trial = PruningTrial.open(POINT | {"precision": precision}, session)
    network = OnnxNetwork(content)
    for split in ("val", "test"):
        seen = evaluate(network, trial.images.split(split), batch_size=5, device=torch.device("cpu"), precision="fp32")
        assert metrics[f"{split}_accuracy"] == seen["accuracy"]
    assert metrics["val_loss"] == pytest.approx(
        evaluate(network, trial.images.split("val"), batch_size=7, device=torch.device("cpu"))["loss"], rel=1e-5
    )
    assert metrics["bytes"] == len(content)
    assert metrics["fp32_val_loss"] == found["fp32"][1]["val_loss"]
    assert metrics["val_loss"] != metrics["fp32_val_loss"]
    images, _ = next(iter(loader.batches(trial.images.split("val"), 5, device=torch.device("cpu"), train=False)))
    assert network(images).shape == (5, 3)


def test_a_quantised_model_has_a_scale_for_each_channel_and_no_normalisation_left(found: dict[str, Any]) -> None:
    session, metrics, _ = found["int8"]
    model = onnx.load_from_string(session.store.get(results.MODELS, session.key)[CONVERTED])
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    made_by = {output: node for node in model.graph.node for output in node.output}
    for node in convolutions:
        stored, scale, *_ = made_by[node.input[1]].input
        assert weights[stored].dtype.name == "int8"
        assert weights[scale].shape == weights[stored].shape[:1]
    assert metrics["calibration"] in ("minmax", "percentile", "entropy")


def test_costs_follow_the_bits(found: dict[str, Any]) -> None:
    whole = found["fp32"][1]
    for precision, part in (("fp16", 2), ("bf16", 2), ("int8", 4), ("int8_qat", 4)):
        metrics = found[precision][1]
        assert metrics["weight_bytes"] * part == whole["weight_bytes"] == 4 * whole["params"]
        assert metrics["peak_activation_bytes"] * part == whole["peak_activation_bytes"]
        assert metrics["bops"] * part * part == whole["bops"] == 1024 * whole["macs"]
        assert metrics["bytes"] < whole["bytes"]


def test_costs_are_known_before_the_training(data_root: Path, settings: Settings, tmp_path: Path, found: Any) -> None:
    point = POINT | {"precision": "int8"}
    context = Context("s", str(tmp_path), str(data_root), settings, named=("peak_activation_bytes",))
    known = prune.cost(point, Session(context, "x", point))
    for name in ("weight_bytes", "bops", "peak_activation_bytes"):
        assert known[name] == found["int8"][1][name]
    whole = Context("s", str(tmp_path), str(data_root), settings, named=("bytes",))
    assert "bytes" not in prune.cost(point, Session(whole, "x", point))  # which its conversion decides
    plain = POINT | {"precision": "fp32"}
    assert prune.cost(plain, Session(whole, "x", plain))["bytes"] == found["fp32"][1]["bytes"]
    assert not (tmp_path / "store").exists()


def test_a_file_that_is_too_large_is_refused_before_the_training(
    found: dict[str, Any], data_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its worker as well, for networks that are known only there."""
    shared, size = found["fp32"][0].store, found["fp32"][1]["bytes"]
    limits = {"constraints": {"bytes": Bound(max=size - 1)}, "named": ("bytes",)}
    context = Context("s", str(shared.root.parent), str(data_root), settings, **limits)
    monkeypatch.setattr(network_trial, "fit", None)
    with pytest.raises(Infeasible) as error:
        prune.run(POINT, Session(context, "large", POINT))
    assert error.value.metrics["bytes"] == size


def test_a_point_without_precision_is_the_trial_that_it_was(settings: Settings, data_root: Path) -> None:
    plain, other = Keys(PruningPoint(POINT, settings), data_root), settings.model_copy()
    assert plain.identity() == Keys(PruningPoint(POINT, other), data_root).identity()
    for precision in PRECISIONS:
        same = Keys(PruningPoint(POINT | {"precision": precision}, settings), data_root)
        assert (same.baseline, same.scores, same.finetuned) == (plain.baseline, plain.scores, plain.finetuned)


def test_how_networks_are_rounded_is_a_part_of_the_trials_in_8_bits_alone(
    settings: Settings, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier release has rounded is not reused; its fine-tuning is."""

    def found(precision: str) -> tuple[Any, str]:
        known = Keys(PruningPoint(POINT | {"precision": precision}, settings), data_root)
        return known.identity(), known.finetuned

    before = {precision: found(precision) for precision in PRECISIONS}
    monkeypatch.setattr(keys, "INT8_CODE", keys.INT8_CODE + 1)
    after = {precision: found(precision) for precision in PRECISIONS}
    assert {name for name in PRECISIONS if before[name][0] != after[name][0]} == {"int8", "int8_qat"}
    assert len({tuned for _, tuned in [*before.values(), *after.values()]}) == 1


def test_what_is_no_precision_is_refused(settings: Settings) -> None:
    with pytest.raises(InputError, match=r"space\.precision: unknown precision 'int4'"):
        prune.check(POINT | {"precision": "int4"}, settings)


@pytest.mark.parametrize("helped", [False, True])
def test_training_in_8_bits_is_kept_where_it_helps(
    data_root: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helped: bool
) -> None:
    """The better network on the validation split is deployed, and the training has cost what it cost."""

    def trained(trial: PruningTrial, tuned: Any) -> Any:
        model = copy.deepcopy(tuned.model)
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, torch.nn.Linear):  # of a network that is worse than chance: less or more sure
                    layer.weight *= 0 if helped else 10
        return model, [Work(1000, 10)]

    plain = prune.run(POINT | INT8, opened(tmp_path, data_root, settings, POINT | INT8, []))
    monkeypatch.setattr(deployed, "_trained_in_8_bits", trained)
    converted, convert = list[bool](), deployed.to_int8

    def to_int8(*args: Any, learned: bool) -> dict[str, bytes]:
        converted.append(learned)
        return convert(*args, learned=learned)

    monkeypatch.setattr(deployed, "to_int8", to_int8)
    point = POINT | {"precision": "int8_qat"}
    session = opened(tmp_path, data_root, settings, point, [])
    found = prune.run(point, session)
    assert found["compute"] == plain["compute"] + 10_000
    assert converted == [False, True]  # what has learned to be rounded to the nearest is rounded so
    assert (found["val_loss"] < plain["val_loss"], found["qat_epochs"]) == (helped, 2 * helped)
    network = OnnxNetwork(session.store.get(results.MODELS, session.key)[CONVERTED])
    val = PruningTrial.open(point, session).images.split("val")
    assert found["val_loss"] == pytest.approx(evaluate(network, val, batch_size=7, device=torch.device("cpu"))["loss"])
    if not helped:
        assert found["val_loss"] == plain["val_loss"]


def test_training_in_8_bits_leaves_the_statistics_of_batch_normalisation(
    data_root: Path, settings: Settings, tmp_path: Path
) -> None:
    point, local = POINT | {"precision": "int8_qat"}, override_settings(settings, {"qat.epochs": 1})
    trial = PruningTrial.open(point, opened(tmp_path, data_root, local, point, []))
    tuned = deployed._tuned(trial)
    before = {name: tensor.clone() for name, tensor in tuned.model.state_dict().items()}
    trained, _ = deployed._trained_in_8_bits(trial, tuned)
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    changed = {name for name, tensor in trained.state_dict().items() if not torch.equal(tensor, before[name])}
    assert statistics
    assert changed == {name for name, _ in tuned.model.named_parameters()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in tuned.model.state_dict().items())


def test_an_interrupted_quantisation_aware_training_resumes(
    data_root: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, local = POINT | {"precision": "int8_qat"}, override_settings(settings, {"qat.epochs": 2})
    whole = prune.run(point, opened(tmp_path / "a", data_root, local, point, []))

    def stop(report: dict[str, Any]) -> None:
        reports.append(report)
        if len(reports) == 3:  # the first epoch after the fine-tuning
            raise KeyboardInterrupt

    reports: list[dict[str, Any]] = []
    context = Context("s", str(tmp_path / "b"), str(data_root), local)
    with pytest.raises(KeyboardInterrupt):
        prune.run(point, Session(context, "int8_qat-key", point, stop))
    monkeypatch.setattr(deployed, "prune_and_finetune", lambda *_: pytest.fail("fine-tuned again"))
    resumed = prune.run(point, Session(context, "int8_qat-key", point, reports.append))
    assert {resumed[name] == whole[name] for name in ("val_loss", "qat_epochs", "compute")} == {True}
    assert len(reports) == 4
    assert Store(str(tmp_path / "b")).has(FINETUNED, Keys(PruningPoint(point, local), data_root).finetuned)


def test_a_prediction_of_float32_is_not_taken_for_other_bits() -> None:
    search = Search.model_validate({"objectives": {"val_accuracy": "max", "predicted_latency_ms": "min"}})
    prune.check_search(POINT | {"precision": "fp32"}, search)
    with pytest.raises(InputError, match=r"predicted_latency_ms is of networks in float32, .* has 'int8'"):
        prune.check_search(POINT | {"precision": "int8"}, search)


def test_epochs_in_fewer_bits_are_compared_with_their_like(settings: Settings) -> None:
    names = {prune.peers(POINT | {"precision": precision}, settings) for precision in PRECISIONS}
    assert len(names) == len(PRECISIONS)
    assert prune.peers(POINT, settings) == prune.peers(POINT | {"precision": "fp32"}, settings)
