"""Channel searches that trials share: found by their content, or run once.

A search trains its own weights by the recipe ``settings.train``, led by ``settings.nas``. Networks are derived from it
at the trials' ``macs_ratio``, and fine-tuned like those of every other method. With ``settings.nas.target`` all ratios
of a study are derived from one search; without, each ratio has a search of its own.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from safetensors.torch import load as load_tensors
from torch import nn

from rssearch import nas
from rssearch.models.weights import to_bytes
from rssearch.pruning import PrunedModel
from rssearch.storage.artifacts import Files
from rssearch.trials.keys import SEARCHES
from rssearch.trials.network_trial import History, NetworkTrial, in_turns, reporter


class Searched(NamedTuple):
    """A searched network, its gates, and the record of the search."""

    model: nn.Module
    gates: nas.Gates
    history: History


def searched(trial: NetworkTrial) -> Searched:
    """The search of a trial, from the store or run now."""
    files = trial.session.store.get_or_build(SEARCHES, trial.keys.search, lambda: _search(trial))
    model = trial.build_model()
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    model.to(trial.device).eval()
    gates = nas.Gates(trial.trace(model), straight_through=trial.settings.nas.straight_through).to(trial.device)
    gates.load_state_dict(load_tensors(files["gates.safetensors"]))
    history: History = json.loads(files["history.json"])
    gates.temperature = history[-1]["temperature"]
    return Searched(model, gates, history)


def _search(trial: NetworkTrial) -> Files:
    settings = trial.settings
    keeper = trial.shared_session(f"search-{trial.keys.search}")
    run = nas.Run(
        trial.initial_model(),
        trial.images.split("train"),
        trial.point.target,
        settings.train,
        settings.nas,
        settings.augment,
        trial.point.seed,
        trial.device,
    )
    if (checkpoint := keeper.load_checkpoint()) is not None:
        run.restore(checkpoint)
    with in_turns(trial.session, reporter(keeper)) as on_epoch:
        run.finish(on_epoch)
    keeper.drop_checkpoint()
    return {
        "model.safetensors": to_bytes(run.model),
        "gates.safetensors": to_bytes(run.gates),
        "history.json": json.dumps(run.history).encode(),
        "inputs.json": json.dumps(trial.keys.search_inputs, indent=1).encode(),
    }


def derived(trial: NetworkTrial) -> PrunedModel:
    """The network of a trial, before its fine-tuning."""
    model, gates, _ = searched(trial)
    return nas.derive(
        model,
        gates,
        macs_ratio=trial.point.values["macs_ratio"],
        round_to=trial.point.round_to,
        min_channels=trial.settings.pruning.min_channels,
        keep=trial.settings.pruning.keep,
    )
