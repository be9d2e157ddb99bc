"""Ways from a baseline to a smaller network, in steps, soft, by published rates: each resumes as if never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors

from rssearch import pruning
from rssearch.config.loading import override_settings
from rssearch.config.settings import Settings
from rssearch.storage.artifacts import Store
from rssearch.train.sparsity import sparsity
from rssearch.trial.session import Context, Session
from rssearch.trials import prune, results
from rssearch.trials.keys import Keys
from rssearch.trials.point import NO_METHOD, PruningPoint
from rssearch.trials.pruning_trial import PruningTrial
from tests.trials.test_prune import POINT

HALF = {name: value for name, value in POINT.items() if name != "rate"} | {"macs_ratio": 0.5}


def open_session(folder: Path, root: Path, local: Settings, point: dict[str, Any], key: str) -> Session:
    return Session(Context("s", str(folder), str(root), local), key, point)


def stopped_after(run_in: Session, epochs: int) -> Session:
    """The session, which is interrupted at its `epochs`-th checkpoint."""
    keep, count = run_in.save_checkpoint, 0

    def save(content: bytes) -> None:
        nonlocal count
        keep(content)
        count += 1
        if count == epochs:
            raise KeyboardInterrupt

    run_in.save_checkpoint = save  # type: ignore[method-assign]
    return run_in


def weights(run_in: Session) -> dict[str, torch.Tensor]:
    files = run_in.store.get(results.MODELS, run_in.key)
    assert files is not None
    return load_tensors(files["model.safetensors"])


@pytest.mark.parametrize(
    ("method", "steps"),
    [("l1", 3), ("lfp", 2), ("compound", 2), ("sfp", 1), (NO_METHOD, 1), ("rewind", 1), ("scratch", 1)],
)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupted_trial_ends_as_an_uninterrupted_one(
    storage: Path,
    data_root: Path,
    settings: Settings,
    method: str,
    steps: int,
    stop: int,
) -> None:
    local = override_settings(settings, {"pruning.steps": steps, "finetune.epochs": 4, "train.epochs": 4})
    point = HALF | {"method": method}
    whole = open_session(storage, data_root, local, point, f"whole-{method}")
    expected = prune.run(point, whole)
    broken = stopped_after(open_session(storage, data_root, local, point, f"broken-{method}-{stop}"), stop)
    with pytest.raises(KeyboardInterrupt):
        prune.run(point, broken)
    again = open_session(storage, data_root, local, point, broken.key)
    result = prune.run(point, again)
    assert [epoch["epoch"] for epoch in result["history"]] == [1, 2, 3, 4]
    for name in ("val_loss", "val_accuracy", "macs", "params", "removed_fraction"):
        assert result[name] == expected[name]
    first, second = weights(whole), weights(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_steps_reach_the_budget_by_equal_factors(storage: Path, data_root: Path, settings: Settings) -> None:
    local = override_settings(settings, {"pruning.steps": 3, "finetune.epochs": 4})
    seen: list[float] = []
    cut = pruning.cut

    def watched(model: Any, graph: Any, kept: Any) -> Any:
        seen.append(graph.macs(kept))
        return cut(model, graph, kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "cut", watched)
        result = prune.run(HALF, open_session(storage, data_root, local, HALF, "factors"))
    assert [macs / result["baseline_macs"] for macs in seen] == pytest.approx(
        [0.5 ** (1 / 3), 0.5 ** (2 / 3), 0.5], rel=0.011
    )
    assert result["macs"] == seen[-1]
    measured = prune.measure(HALF, open_session(storage, data_root, local, HALF, "factors"))
    assert 0 <= measured["test_accuracy"] <= 1


def test_soft_pruning_zeroes_until_the_end_and_lets_filters_grow(
    storage: Path,
    data_root: Path,
    settings: Settings,
) -> None:
    point = HALF | {"method": "sfp"}
    zeroed: list[dict[str, list[int]]] = []
    grown: list[int] = []
    zero = pruning.zero_filters

    def watched(model: Any, graph: Any, kept: Any) -> None:
        norms = pruning.score(model, graph, "l2")
        if zeroed:
            grown.append(sum(int((norms[name][gone] > 0).sum()) for name, gone in zeroed[-1].items()))
        zero(model, graph, kept)
        norms = pruning.score(model, graph, "l2")
        zeroed.append({name: (norm == 0).nonzero().ravel().tolist() for name, norm in norms.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "zero_filters", watched)
        result = prune.run(point, open_session(storage, data_root, settings, point, "soft"))
    assert len(zeroed) == settings.finetune.epochs + 1  # and before the first
    assert abs(result["macs_ratio"] / 0.5 - 1) <= 0.01
    assert any(zeroed[-1].values())
    assert all(grown)  # a filter behind a dead ReLU has no gradient, but others have
    assert len(grown) == settings.finetune.epochs


def test_soft_methods_need_no_scores_beforehand(tmp_path: Path, data_root: Path, settings: Settings) -> None:
    (needed,) = prune.preparations([HALF | {"method": "sfp"}], settings, data_root, Store(str(tmp_path)))
    assert dict(needed.parts) == {"baselines": 1, "scores": 0}


def test_methods_that_train_otherwise_have_baselines_of_their_own(data_root: Path, settings: Settings) -> None:
    def inputs(method: str, local: Settings = settings) -> Any:
        return Keys(PruningPoint(HALF | {"method": method}, local), data_root).baseline_inputs

    plain = inputs("l1")
    assert all(inputs(m) == plain for m in ("lfp", "bn_scale", "compound", "aml", "sfp", NO_METHOD))
    assert inputs("slimming")["recipe"] == plain["recipe"] | {"bn_l1": "auto"}
    assert inputs("cap")["recipe"] == plain["recipe"] | {"attention": True}
    assert inputs("remotetrimmer") == inputs("cap")
    stronger = override_settings(settings, {"train.bn_l1": 1e-3})
    assert inputs("slimming", stronger)["recipe"]["bn_l1"] == 1e-3  # what the study sets, stays
    losses = {
        m: PruningPoint(HALF | {"method": m}, settings).finetune_recipe.loss for m in ("cap", "aml", "remotetrimmer")
    }
    assert losses == {"cap": "cross_entropy", "aml": "adaptive_mining", "remotetrimmer": "adaptive_mining"}


def test_a_baseline_with_penalised_scales_says_how_sparse_it_is(
    tmp_path: Path, data_root: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    point = HALF | {"method": "slimming"}
    run_in = open_session(tmp_path, data_root, settings, point, "sparse")
    with caplog.at_level("INFO"):
        result = prune.run(point, run_in)
    share = sparsity(PruningTrial.open(point, run_in).baseline.model)
    assert result["baseline_bn_sparsity"] == PruningTrial.open(point, run_in).baseline.metrics["bn_sparsity"] == share
    assert "of the scales of batch normalisation are below 0.01 of the largest" in caplog.text
    assert "baseline_bn_sparsity" not in prune.run(HALF, open_session(tmp_path, data_root, settings, HALF, "plain"))


def test_a_method_with_attention_runs(tmp_path: Path, data_root: Path, settings: Settings) -> None:
    point = HALF | {"method": "remotetrimmer"}
    run_in = open_session(tmp_path, data_root, settings, point, "attention")
    trial = PruningTrial.open(point, run_in)
    model, base, _ = trial.baseline
    assert model.state_dict().keys() == trial.build_model().state_dict().keys()
    assert base["val_accuracy"] == base["history"][-1]["val_accuracy"]
    assert "folded_val_accuracy" in base
    result = prune.run(point, run_in)
    assert abs(result["macs_ratio"] / 0.5 - 1) <= 0.01


def test_published_rates(storage: Path, data_root: Path, settings: Settings) -> None:
    point = {name: value for name, value in POINT.items() if name != "rate"}
    point |= {"rates": "[0.]+[0.5]*2+[0.25]*9"}
    prune.check(point, settings)
    run_in = open_session(storage, data_root, settings, point, "published")
    before = prune.cost(point, run_in)
    result = prune.run(point, run_in)
    assert before == {name: result[name] for name in before}
    widths = {name: len(tensor) for name, tensor in weights(run_in).items() if name.endswith("conv1.weight")}
    assert widths["conv1.weight"] == 16
    assert widths["layer1.0.conv1.weight"] == 12
    assert widths["layer3.2.conv1.weight"] == 48
