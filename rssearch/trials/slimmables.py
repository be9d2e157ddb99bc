"""One training that serves all budgets, which trials share, and the networks that are cut out of it.

As a *cascade* the baseline shrinks from budget to budget: each stage cuts the network of the stage before to the best
structure at its budget, trains it by a whole schedule, and keeps it. A small network has then learned at all larger
budgets, for the compute that fine-tuning each budget by itself would take. As a *sandwich* several widths learn
together in each step, see `rssearch.nas.slimmable`.

Structures are judged without training, by a part of the training images on which a sandwich is not trained, see
`rssearch.nas.structures`. A trial
begins with what is nearest above its ``macs_ratio``, and fine-tunes it like every other method.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from safetensors.torch import load as load_tensors
from torch import nn

from rssearch import nas, pruning
from rssearch.config.settings import Recipe
from rssearch.data import AnyDataset, loader
from rssearch.errors import InputError
from rssearch.models.weights import to_bytes
from rssearch.nas.slimmable import Sandwich, orders_of
from rssearch.nas.structures import Judge, Judged, best_at, first_structures, search_structures
from rssearch.nas.widths import Orders, Widths, WidthSpace
from rssearch.pruning import ChannelGraph
from rssearch.pruning.allocate import TOLERANCE
from rssearch.pruning.sensitivity import loss_of_cut
from rssearch.pruning.surgery import kept_by
from rssearch.storage.artifacts import Files
from rssearch.train import balance
from rssearch.train.loop import OnEpoch, recalibrate_on
from rssearch.trial.session import Session
from rssearch.trials import baselines
from rssearch.trials.keys import SLIMMABLES, STRUCTURES
from rssearch.trials.network_trial import History, NetworkTrial, reporter

IMPORTANCE = "l1"  # the criterion that orders the channels
FINALISTS = 4  # structures of a sandwich that are judged at a trial's own budget

Spec = dict[str, Any]


class Stage(NamedTuple):
    """A network that trials begin with, its spec relative to the baseline, and the record of its training.

    Attributes:
        model: the network.
        spec: relative to the baseline.
        orders: the channels of each of its groups, the most important first.
        history: of its own epochs.
    """

    model: nn.Module
    spec: Spec
    orders: Orders
    history: History


def prepared(trial: NetworkTrial) -> History:
    """Make what a trial begins with, unless the store has it; gives the record of the last training."""
    if trial.settings.slimmable.form == "sandwich":
        structures(trial)
        return source(trial).history
    return _cascade(trial, trial.point.slimmable_stages).history


def source(trial: NetworkTrial) -> Stage:
    """What a trial begins with: the stage nearest above its budget, or the network of all widths.

    Where the widths are coarse a stage may be too small for a budget that is near its own; then it is the one before.
    """
    if trial.settings.slimmable.form == "sandwich":
        return _stored(trial, trial.keys.slimmable(0), lambda: _sandwich(trial))
    least = (1 - TOLERANCE) * trial.point.values["macs_ratio"] * trial.graph.macs()
    for number in range(trial.point.slimmable_stages, 0, -1):
        stage = _cascade(trial, number)
        if trial.graph.macs(kept_by(trial.graph, stage.spec)) >= least:
            return stage
    return _cascade(trial, 0)


def derived(trial: NetworkTrial) -> tuple[nn.Module, Spec]:
    """The network of a trial and its spec, before its fine-tuning.

    That of a sandwich has its batch normalisation recalibrated: no step of its training has kept statistics.

    Raises:
        InputError: no network is within 1 % of its budget.
    """
    _space(trial, trial.graph).check(trial.point.values["macs_ratio"])
    stage = source(trial)
    model, spec = (stage.model, stage.spec) if _meets(trial, stage) else _fitted(trial, stage)
    if trial.settings.slimmable.form == "sandwich":
        batches, precision = _first(trial, held_out(trial)[0]), recipe_of(trial).precision
        recalibrate_on(model, batches, device=trial.device, precision=precision)
    return model, spec


def _fitted(trial: NetworkTrial, stage: Stage) -> tuple[nn.Module, Spec]:
    """The best structure at a trial's own budget, cut out. Raises InputError where none is within 1 % of it."""
    settings, ratio = trial.settings.slimmable, trial.point.values["macs_ratio"]
    graph = trial.trace(stage.model)
    wanted = ratio * trial.graph.macs() / graph.macs()
    space = _space(trial, graph)
    judge = _judge(trial, stage, space)
    if settings.form == "sandwich":
        best = min(best_at(space, structures(trial), wanted, FINALISTS), key=judge)
    else:
        best = _best(_searched(trial, space, judge, (wanted, wanted)), wanted)
    if abs((reached := space.ratio(best)) / wanted - 1) > TOLERANCE:
        raise InputError(
            f"macs_ratio {ratio:g} cannot be met within {TOLERANCE:.0%}: the nearest structure has "
            f"{ratio * reached / wanted:.4g} (round_to = {trial.point.round_to})"
        )
    model, cut = pruning.cut(stage.model, graph, space.kept(stage.orders, best))
    return model, pruning.compose(stage.spec, cut)


def recipe_of(trial: NetworkTrial) -> Recipe:
    """How it learns: as the baseline did, for its own epochs at its own learning rate."""
    settings = trial.settings.slimmable
    changes = {"epochs": settings.epochs, "lr": settings.lr, "distill": settings.distillation}
    plain = {"recalibrate_batches": 0, "bn_l1": 0.0, "attention": False}
    return trial.settings.train.model_copy(update=changes | plain)


def begins_at_budget(trial: NetworkTrial) -> bool:
    """Whether what a trial begins with has its MACs, so that no structure is searched for it alone."""
    return _meets(trial, source(trial))


def _meets(trial: NetworkTrial, stage: Stage) -> bool:
    macs, ratio = trial.graph.macs(kept_by(trial.graph, stage.spec)), float(trial.point.values["macs_ratio"])
    return abs(macs / (ratio * trial.graph.macs()) - 1) <= TOLERANCE


# The cascade


def _cascade(trial: NetworkTrial, number: int) -> Stage:
    """A stage, counted from 1, with all that come before it; 0 is the baseline."""
    if number == 0:
        model = baselines.baseline(trial).model.to(trial.device).eval()
        return Stage(model, pruning.make_spec(trial.graph, {}), _orders(model, trial.graph), [])
    return _stored(trial, trial.keys.slimmable(number), lambda: _train_stage(trial, number))


def _train_stage(trial: NetworkTrial, number: int) -> Files:
    settings, recipe = trial.settings.slimmable, recipe_of(trial)
    _space(trial, trial.graph).check(settings.budgets[number - 1])
    before = _cascade(trial, number - 1)
    graph = trial.trace(before.model)
    wanted = settings.budgets[number - 1] * trial.graph.macs() / graph.macs()
    space = _space(trial, graph)
    judged = _searched(trial, space, _judge(trial, before, space), (wanted, wanted))
    model, cut = pruning.cut(before.model, graph, space.kept(before.orders, _best(judged, wanted)))
    keeper = _keeper(trial, number)
    history = trial.train(
        model,
        recipe,
        teacher=baselines.baseline(trial).model if recipe.distill > 0 else None,
        resume=keeper.load_checkpoint(),
        on_epoch=_counted(reporter(keeper), (number - 1) * recipe.epochs),
    )
    keeper.drop_checkpoint()
    return _files(trial, number, Stage(model, pruning.compose(before.spec, cut), {}, history), judged)


def _searched(trial: NetworkTrial, space: WidthSpace, judge: Judge, budgets: tuple[float, float]) -> list[Judged]:
    """Structures of a network between two budgets, shares of its own MACs."""
    settings = trial.settings.slimmable
    return search_structures(
        space,
        judge,
        first_structures(space, budgets, settings.population, settings.spread, trial.point.seed),
        budgets=budgets,
        population=settings.population,
        generations=settings.generations,
        seed=trial.point.seed,
    )


def _best(judged: Sequence[Judged], ratio: float) -> Widths:
    """The structure of the lowest loss among those that meet a budget; the nearest where none does."""

    def rank(one: Judged) -> tuple[float, float]:
        return max(abs(one.macs_ratio / ratio - 1), TOLERANCE), one.loss

    return np.array(min(judged, key=rank).widths)


# The sandwich


def _sandwich(trial: NetworkTrial) -> Files:
    teacher, model = (baselines.baseline(trial).model for _ in range(2))
    settings, graph = trial.settings.slimmable, trial.graph
    orders = _orders(model, graph)
    keeper = _keeper(trial, 0)
    recipe = recipe_of(trial)
    calibration = _first(trial, held_out(trial)[0])
    history = trial.train(
        model,
        recipe,
        teacher=teacher if recipe.distill > 0 else None,
        resume=keeper.load_checkpoint(),
        on_epoch=reporter(keeper),
        # Its steps keep no statistics: the whole network is validated with those of these images.
        after_epoch=lambda _: recalibrate_on(model, calibration, device=trial.device, precision=recipe.precision),
        objective=Sandwich(_space(trial, graph), orders, settings, trial.point.seed),
        held_out=settings.held_out,
    )
    keeper.drop_checkpoint()
    return _files(trial, 0, Stage(model, pruning.make_spec(graph, {}), orders, history), [])


def structures(trial: NetworkTrial) -> list[Judged]:
    """The structures of a sandwich that were judged, from the store or searched now."""

    def build() -> Files:
        space, smallest = _space(trial, trial.graph), trial.settings.slimmable.budgets[-1]
        found = _searched(trial, space, _judge(trial, source(trial), space), (smallest, 1.0))
        return {"structures.json": json.dumps([asdict(one) for one in found]).encode()}

    files = trial.session.store.get_or_build(STRUCTURES, trial.keys.structures, build)
    return _judged(files["structures.json"])


# What both have


def _keeper(trial: NetworkTrial, number: int) -> Session:
    """Keeps the checkpoints of a training; its epochs are reported where it is prepared, not on the way of a trial."""
    return trial.shared_session(trial.keys.slimmable(number), reported="slimmable" in trial.point.values)


def _counted(on_epoch: OnEpoch, before: int) -> OnEpoch:
    """Count the epochs of a stage on from those of the stages before it."""
    return lambda record, checkpoint: on_epoch(record | {"epoch": record["epoch"] + before}, checkpoint)


def _orders(model: nn.Module, graph: ChannelGraph) -> Orders:
    return orders_of(pruning.score(model, graph, IMPORTANCE))


def _space(trial: NetworkTrial, graph: ChannelGraph) -> WidthSpace:
    """The structures that a network may have, which may have been cut from the trial's; shares are of the whole one."""
    return trial.point.width_space(graph, trial.graph)


def _judge(trial: NetworkTrial, stage: Stage, space: WidthSpace) -> Judge:
    """Judges structures by training images; those of a sandwich's training are not among them."""
    recipe = recipe_of(trial)
    seen, unseen = (_first(trial, part) for part in held_out(trial))
    label_loss = balance.label_loss(recipe, trial.images.split("train"), trial.device)

    def judge(widths: Widths) -> float:
        kept = space.kept(stage.orders, widths)
        loss = loss_of_cut(
            stage.model, space.graph, kept, seen, unseen, label_loss=label_loss, precision=recipe.precision
        )
        return loss if math.isfinite(loss) else math.inf

    return judge


def _first(trial: NetworkTrial, part: AnyDataset) -> list[Any]:
    """The batches of some images that structures see, on the device."""
    batch_size = recipe_of(trial).batch_size
    found = loader.batches(part, batch_size, device=trial.device, train=True, seed=trial.point.seed)
    return list(islice(found, -(-trial.settings.slimmable.images // batch_size)))


def held_out(trial: NetworkTrial) -> tuple[AnyDataset, AnyDataset]:
    """The training images that are trained on, and those that structures are judged by."""
    share = trial.settings.slimmable.held_out
    try:
        return nas.halves(trial.images.split("train"), share, trial.point.seed)
    except InputError as error:
        raise InputError(f"settings.slimmable.held_out: {share:g} of each class: {error}") from None


def _files(trial: NetworkTrial, number: int, stage: Stage, judged: Sequence[Judged]) -> Files:
    return {
        "model.safetensors": to_bytes(stage.model),
        "spec.json": json.dumps(stage.spec).encode(),
        "orders.json": json.dumps(stage.orders).encode(),
        "history.json": json.dumps(stage.history).encode(),
        "structures.json": json.dumps([asdict(one) for one in judged]).encode(),
        "inputs.json": json.dumps(trial.keys.slimmable_inputs(number), indent=1).encode(),
    }


def _stored(trial: NetworkTrial, key: str, build: Callable[[], Files]) -> Stage:
    files = trial.session.store.get_or_build(SLIMMABLES, key, build)
    spec: Spec = json.loads(files["spec.json"])
    model = pruning.apply_spec(trial.build_model(), spec)
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    model.to(trial.device).eval()
    orders: Orders = json.loads(files["orders.json"]) or _orders(model, trial.trace(model))
    return Stage(model, spec, orders, json.loads(files["history.json"]))


def _judged(content: bytes) -> list[Judged]:
    found: list[Mapping[str, Any]] = json.loads(content)
    return [Judged(tuple(one["widths"]), one["macs_ratio"], one["loss"]) for one in found]
