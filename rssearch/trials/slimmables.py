"""One training for all budgets, which trials share, and the structures that are cut out of it.

The training begins with the trial's baseline, and distils from it; NSGA-II then judges structures on images that the
training did not see. A trial takes the best one at its ``macs_ratio``, and fine-tunes it like every other method.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, NamedTuple

from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from rssearch import nas, pruning
from rssearch.config.settings import Recipe
from rssearch.data import AnyDataset, loader
from rssearch.models.weights import to_bytes
from rssearch.nas.slimmable import Sandwich, orders_of
from rssearch.nas.structures import Judged, SharedJudge, best_at, first_structures, search_structures
from rssearch.nas.widths import floors_of, kept_at
from rssearch.storage.artifacts import Files
from rssearch.train import balance
from rssearch.trials import baselines
from rssearch.trials.keys import SLIMMABLES, STRUCTURES
from rssearch.trials.network_trial import History, NetworkTrial, reporter

IMPORTANCE = "l2"
FINALISTS = 4  # structures that are judged at a trial's own budget


class Slimmed(NamedTuple):
    """A network that was trained for all budgets, the order of its channels, and the record of its training."""

    model: nn.Module
    orders: Mapping[str, Sequence[int]]
    history: History


def slimmed(trial: NetworkTrial) -> Slimmed:
    """The slimmable training of a trial, from the store or run now."""
    files = trial.session.store.get_or_build(SLIMMABLES, trial.keys.slimmable, lambda: _train(trial))
    model = trial.build_model()
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    history: History = json.loads(files["history.json"])
    return Slimmed(model.to(trial.device).eval(), json.loads(files["orders.json"]), history)


def recipe_of(trial: NetworkTrial) -> Recipe:
    """How it learns: as the baseline did, for its own epochs at its own learning rate."""
    settings = trial.settings.slimmable
    changes = {"epochs": settings.epochs, "lr": settings.lr, "recalibrate_batches": 0, "bn_l1": 0.0, "distill": 0.0}
    return trial.settings.train.model_copy(update=changes | {"attention": False})


def _train(trial: NetworkTrial) -> Files:
    keeper = trial.shared_session(f"slimmable-{trial.keys.slimmable}")
    teacher = baselines.baseline(trial).model
    model = baselines.baseline(trial).model
    graph = trial.graph
    orders = orders_of(pruning.score(model, graph, IMPORTANCE))
    settings = trial.settings.slimmable
    history = trial.train(
        model,
        recipe_of(trial),
        teacher=teacher,
        resume=keeper.load_checkpoint(),
        on_epoch=reporter(keeper),
        objective=Sandwich(graph, orders, settings, trial.point.seed),
        held_out=settings.held_out,
    )
    keeper.drop_checkpoint()
    return {
        "model.safetensors": to_bytes(model),
        "orders.json": json.dumps(orders).encode(),
        "history.json": json.dumps(history).encode(),
        "inputs.json": json.dumps(trial.keys.slimmable_inputs, indent=1).encode(),
    }


def structures(trial: NetworkTrial) -> list[Judged]:
    """The structures that were judged for a trial, from the store or searched now."""

    def build() -> Files:
        settings, graph = trial.settings.slimmable, trial.graph
        floors = floors_of(graph, settings.floor)
        budgets = (settings.smallest, 1.0)
        found = search_structures(
            graph,
            floors,
            judge(trial, slimmed(trial)),
            first_structures(graph, floors, budgets, settings.population),
            budgets=budgets,
            population=settings.population,
            generations=settings.generations,
            seed=trial.point.seed,
        )
        return {"structures.json": json.dumps([asdict(one) for one in found]).encode()}

    files = trial.session.store.get_or_build(STRUCTURES, trial.keys.structures, build)
    return [Judged(tuple(one.pop("widths")), **one) for one in json.loads(files["structures.json"])]


def judge(trial: NetworkTrial, of: Slimmed) -> SharedJudge:
    """What judges structures: images of the training split that the slimmable training did not see."""
    settings, recipe = trial.settings.slimmable, recipe_of(trial)
    seen, unseen = nas.halves(trial.images.split("train"), settings.held_out, trial.point.seed)
    batches = -(-settings.images // recipe.batch_size)

    def first(part: AnyDataset) -> list[tuple[Tensor, Tensor]]:
        found = loader.batches(part, recipe.batch_size, device=trial.device, train=True, seed=trial.point.seed)
        return list(islice(found, batches))

    return SharedJudge(
        of.model,
        trial.graph,
        of.orders,
        calibration=first(seen),
        images=first(unseen),
        label_loss=balance.label_loss(recipe, trial.images.split("train"), trial.device),
        precision=recipe.precision,
    )


def derived(trial: NetworkTrial) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a trial and its spec, before its fine-tuning: the best structure at its budget."""
    of, graph, settings = slimmed(trial), trial.graph, trial.settings.slimmable
    floors = floors_of(graph, settings.floor)
    finalists = best_at(graph, floors, structures(trial), trial.point.values["macs_ratio"], FINALISTS)
    loss_of = judge(trial, of)
    best = min(finalists, key=loss_of)
    return pruning.cut(of.model, graph, kept_at(graph, of.orders, best))
