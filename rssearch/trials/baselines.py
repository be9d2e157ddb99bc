"""The baselines and scores that trials share: found by their content, trained or computed once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from rssearch import pruning
from rssearch.cost import counting as costs
from rssearch.data import AnyDataset, loader
from rssearch.device import reproducible
from rssearch.models.weights import to_bytes
from rssearch.nas.search import halves
from rssearch.pruning import ChannelGraph, Elasticity, Sensitivity
from rssearch.pruning.sensitivity import from_json, to_json
from rssearch.scores import PER_CLASS
from rssearch.storage.artifacts import Files
from rssearch.train import balance
from rssearch.train.sparsity import NEAR_ZERO, sparsity
from rssearch.trials import baseline_check
from rssearch.trials.keys import BASELINES, SCORES, SENSITIVITIES
from rssearch.trials.network_trial import NetworkTrial, reporter

_log = logging.getLogger(__name__)

SPARSITY = "bn_sparsity"  # of a baseline whose scales were penalised, see `rssearch.train.sparsity`
VALIDATED = "validated_baselines"  # what is counted of baselines that an earlier release has trained
Scores = Mapping[str, torch.Tensor]


class Baseline(NamedTuple):
    """A trained, unpruned network.

    Attributes:
        model: the network.
        metrics: what it reaches and costs, with its history.
        elasticity: of its last epoch, for the criteria that read it.
    """

    model: nn.Module
    metrics: dict[str, Any]
    elasticity: Scores


def baseline(trial: NetworkTrial, *, reported: bool = False) -> Baseline:
    """The baseline of a trial, from the store or trained now.

    If it is `reported`, the epochs of a training are reported as the session's own.
    """
    files = trial.session.store.get_or_build(BASELINES, trial.keys.baseline, lambda: _train(trial, reported))
    model = trial.build_model()
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    metrics = _completed(trial, model, json.loads(files["metrics.json"]))
    return Baseline(model, metrics, load_tensors(files["elasticity.safetensors"]))


def _completed(trial: NetworkTrial, model: nn.Module, metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a baseline, validated again where an earlier release counted less.

    What was trained with attention is not kept, and stays as it was measured.
    """
    recipe = trial.point.train_recipe
    if f"val_{PER_CLASS}" in metrics or recipe.attention:
        return metrics

    def build() -> Files:
        model.to(trial.device)
        return {"metrics.json": json.dumps(trial.validate(model, recipe.batch_size)).encode()}

    files = trial.session.store.get_or_build(VALIDATED, trial.keys.baseline, build)
    validated: dict[str, Any] = json.loads(files["metrics.json"])
    return validated | metrics


def _train(trial: NetworkTrial, reported: bool) -> Files:
    recipe, model = trial.point.train_recipe, trial.initial_model()
    elasticity = Elasticity(model)
    keeper = trial.shared_session(f"baseline-{trial.keys.baseline}", reported=reported)
    history = trial.train(
        model, recipe, resume=keeper.load_checkpoint(), on_epoch=reporter(keeper), elasticity=elasticity
    )
    measured = trial.validate(model, recipe.batch_size)
    if trial.point.weights is not None and recipe.epochs == 0 and (said := baseline_check.warning(trial, model)):
        _log.warning("%s", said)
    keeper.drop_checkpoint()
    profile = costs.profile(model, trial.images.input_shape)
    # Folding the attention changes the network: the accuracy to compare with is that of the trained one.
    folded = {f"folded_{name}": value for name, value in measured.items() if recipe.attention}
    metrics = {
        **({name: history[-1][name] for name in measured if name in history[-1]} if recipe.attention else measured),
        **folded,
        **_sparsity(trial, model),
        "macs": profile.macs,
        "params": profile.params,
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "history": history,
    }
    return {
        "model.safetensors": to_bytes(model),
        "elasticity.safetensors": save_tensors(elasticity.values()),
        "metrics.json": json.dumps(metrics).encode(),
        "inputs.json": json.dumps(trial.keys.baseline_inputs, indent=1).encode(),
    }


def _sparsity(trial: NetworkTrial, model: nn.Module) -> dict[str, float]:
    """The share of scales near zero, of a training that penalises scales."""
    share = sparsity(model) if trial.point.train_recipe.bn_l1 else None
    if share is None:
        return {}
    _log.info(
        "baseline %s on %s: %.1f %% of the scales of batch normalisation are below %g of the largest",
        *(trial.point.model, trial.point.dataset, 100 * share, NEAR_ZERO),
    )
    return {SPARSITY: share}


def scores(trial: NetworkTrial) -> dict[str, torch.Tensor]:
    """The scores of every channel of a trial's baseline by its method, from the store or computed now."""

    def build() -> Files:
        trained = baseline(trial)
        _, result = score(trial, trained.model, trained.elasticity)
        return {"scores.safetensors": save_tensors({name: value.contiguous() for name, value in result.items()})}

    return load_tensors(trial.session.store.get_or_build(SCORES, trial.keys.scores, build)["scores.safetensors"])


def score(trial: NetworkTrial, model: nn.Module, elasticity: Scores) -> tuple[ChannelGraph, dict[str, torch.Tensor]]:
    """The graph and the scores of a network by a trial's method, on the first batches of the training split."""
    point = trial.point
    model.to(trial.device).eval()
    graph = trial.trace(model)
    return graph, pruning.score(
        model,
        graph,
        point.method_name,
        data=_batches(trial, trial.images.split("train")),
        seed=point.seed,
        elasticity=elasticity or None,
        **point.method_options,
    )


def sensitivities(trial: NetworkTrial) -> dict[str, Sensitivity]:
    """What the loss of a trial's baseline gains by cutting single groups, from the store or measured now."""

    def build() -> Files:
        found = measure_sensitivities(trial, baseline(trial).model, trial.graph, scores(trial))
        return {"sensitivities.json": json.dumps(to_json(found)).encode()}

    files = trial.session.store.get_or_build(SENSITIVITIES, trial.keys.sensitivities, build)
    return from_json(json.loads(files["sensitivities.json"]))


def measure_sensitivities(
    trial: NetworkTrial, model: nn.Module, graph: ChannelGraph, ranks: Scores
) -> dict[str, Sensitivity]:
    """The same of a network by its scores: by the loss of the training, on a half of the training split.

    Batch normalisation is recalibrated on the other half. Of each half as many batches are used as for scores.
    """
    recipe, train = trial.point.train_recipe, trial.images.split("train")
    model.to(trial.device).eval()
    recalibration, apart = (list(_batches(trial, part)) for part in halves(train, 0.5, trial.point.seed))
    label_loss = balance.label_loss(recipe, train, trial.device)
    with reproducible(trial.device):
        return pruning.measure_sensitivities(
            model, graph, ranks, recalibration, apart, label_loss=label_loss, precision=recipe.precision
        )


def _batches(trial: NetworkTrial, data: AnyDataset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The first batches of some images, shuffled, for what is asked of a trained network."""
    settings = trial.settings.pruning
    shuffled = loader.batches(data, settings.score_batch_size, device=trial.device, train=True, seed=trial.point.seed)
    return islice(shuffled, settings.score_batches)
