"""Channel searches that trials share: found by their content, or run once.

A search trains its own weights by the recipe ``settings.train``, led by ``settings.nas``. Networks are derived from it
at the trials' ``macs_ratio``, and fine-tuned like those of every other method. With ``settings.nas.target`` all ratios
of a study are derived from one search; without, each ratio has a search of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from rssearch import nas, pruning
from rssearch.config.schema import Settings
from rssearch.config.space import content_key
from rssearch.pruning import PrunedModel
from rssearch.storage.artifacts import Files, Store
from rssearch.trial.interface import Preparation
from rssearch.trial.session import Session, point_settings
from rssearch.trials.baselines import CODE, build_model, data_inputs, images_of, in_turns, own_code, reporter

Config = dict[str, Any]
Metrics = dict[str, Any]

SEARCHES = "searches"


def search_inputs(point: Config, local: Settings, root: Path) -> Config:
    """What determines a search."""
    return {
        "data": data_inputs(point, local, root),
        "model": point["model"],
        "options": local.model.given(point["model"]),
        "recipe": local.train.model_dump(mode="json"),
        "augment": local.augment.model_dump(mode="json"),
        "nas": local.nas.model_dump(mode="json") | {"target": target(point, local)},
        "seed": point.get("seed", 0),
        "code": CODE["search"],
        **own_code(point["model"]),
    }


def target(point: Config, local: Settings) -> float:
    """The ratio of MACs that a point's search is led to."""
    return float(local.nas.target or point["macs_ratio"])


def search_preparation(point: Config, settings: Settings, root: Path, store: Store) -> Preparation:
    """The search that a point needs."""
    local = point_settings(settings, point)
    key = content_key(search_inputs(point, local, root))
    done = store.has(SEARCHES, key)
    seed = f", seed {point['seed']}" if "seed" in point else ""
    title = f"channel search {point['model']} on {point['dataset']}, {target(point, local):g} of the MACs{seed}"
    return Preparation(f"search-{key}", title, {**point, "search": True}, done, {"searches": int(not done)})


def searched(config: Config, session: Session) -> tuple[nn.Module, nas.Gates, list[dict[str, float]]]:
    """The searched network, its gates and the search's record, from the store or searched now."""
    inputs = search_inputs(config, session.settings, session.data_root)
    key = content_key(inputs)
    files = session.store.get_or_build(SEARCHES, key, lambda: _search(config, session, key, inputs))
    images = images_of(config, session)
    model = build_model(config, session, images)
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    model.to(session.device).eval()
    graph = pruning.trace(model, torch.zeros(1, *images.input_shape, device=session.device))
    gates = nas.Gates(graph, straight_through=session.settings.nas.straight_through).to(session.device)
    gates.load_state_dict(load_tensors(files["gates.safetensors"]))
    history: list[dict[str, float]] = json.loads(files["history.json"])
    gates.temperature = history[-1]["temperature"]
    return model, gates, history


def _search(config: Config, session: Session, key: str, inputs: Config) -> Files:
    images, local = images_of(config, session), session.settings
    # A search has a checkpoint of its own, under its own key: whichever trial runs it, another can go on with it.
    own = f"search-{key}"
    keeper = Session(session.context, own, {}, session.report if session.key == own else None)
    run = nas.Run(
        build_model(config, session, images),
        images.split("train"),
        target(config, local),
        local.train,
        local.nas,
        local.augment,
        config.get("seed", 0),
        session.device,
    )
    if (checkpoint := keeper.load_checkpoint()) is not None:
        run.restore(checkpoint)
    with in_turns(session, reporter(keeper)) as on_epoch:
        run.finish(on_epoch)
    keeper.drop_checkpoint()
    weights = {name: tensor.contiguous().cpu() for name, tensor in run.model.state_dict().items()}
    gates = {name: tensor.contiguous().cpu() for name, tensor in run.gates.state_dict().items()}
    return {
        "model.safetensors": save_tensors(weights),
        "gates.safetensors": save_tensors(gates),
        "history.json": json.dumps(run.history).encode(),
        "inputs.json": json.dumps(inputs, indent=1).encode(),
    }


def derived(config: Config, session: Session) -> PrunedModel:
    """The network of a point, before its fine-tuning."""
    model, gates, _ = searched(config, session)
    local = session.settings.pruning
    return nas.derive(
        model,
        gates,
        macs_ratio=config["macs_ratio"],
        round_to=config.get("round_to", local.round_to),
        min_channels=local.min_channels,
    )
