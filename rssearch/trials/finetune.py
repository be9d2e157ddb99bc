"""From a baseline to a fine-tuned smaller network: at once, in several steps, or softly.

A trial that is interrupted goes on with its last epoch: its checkpoint says which cuts had been made by then.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rssearch import models, pruning
from rssearch.config.schema import Recipe, Settings
from rssearch.errors import InputError
from rssearch.models import attention
from rssearch.pruning import ChannelGraph, Elasticity
from rssearch.pruning.allocate import Allocation
from rssearch.pruning.channels import Kept
from rssearch.pruning.ratios import ratios_of
from rssearch.train.loop import OnEpoch, recalibrate
from rssearch.trial.session import Session
from rssearch.trials import searches
from rssearch.trials.baselines import (
    CHANNEL_NAS,
    NO_METHOD,
    finetune_recipe,
    images_of,
    method_of,
    options_text,
    score_now,
    scores,
    train,
    train_recipe,
)
from rssearch.trials.tasks import named

Config = dict[str, Any]
History = list[dict[str, float]]


def check(point: Config, local: Settings) -> None:
    """Refuse ways of pruning that do not go together. Raises InputError."""
    steps, epochs, method, known = local.pruning.steps, local.finetune.epochs, point["method"], method_of(point)
    with named("settings.pruning.options"):
        for name, options in local.pruning.options.items():
            pruning.check_options(name, options)
    with named("settings.pruning.steps"):
        if steps > 1 and point.get("macs_ratio") is None:
            raise InputError("several steps need macs_ratio, as a rate changes its meaning on the way")
        if steps > max(epochs, 1):
            raise InputError(f"{steps} steps cannot share {epochs} epochs of fine-tuning")
        if steps > 1 and method == CHANNEL_NAS:
            raise InputError(f"method {method!r} derives its network in one step")
        if steps > 1 and known is not None and known.soft:
            raise InputError(f"method {method!r} prunes anew in each epoch, not in steps")
    with named("space.method"):
        _check_network(point, local)
        finetune_recipe(point, local)
    if method == CHANNEL_NAS:
        _check_search(point, local)
    if known is None:
        return
    asked = point.get("allocation") or local.pruning.allocation
    with named("allocation"):
        if asked == "joint" != known.allocation:
            raise InputError(f"'joint' needs the ranks of several criteria; method {method!r} has one")
    if point.get("rates") is not None:
        with named("space.rates"):
            if asked not in {None, "uniform"}:
                raise InputError(f"rates for each layer leave nothing to an allocation {asked!r}")
            ratios_of(point["rates"], point["model"])


def _check_search(point: Config, local: Settings) -> None:
    if point.get("macs_ratio") is None:
        raise InputError("space: method 'channel_nas' needs macs_ratio")
    if point.get("allocation"):
        raise InputError(
            "space.allocation: method 'channel_nas' has one threshold for all layers, and no other allocation"
        )
    with named("settings.train.epochs"):
        if local.train.epochs < 1:
            raise InputError("method 'channel_nas' searches in the epochs of train, so there must be one")
        if local.train.attention:
            raise InputError("method 'channel_nas' does not train with attention: switch settings.train.attention off")


def _check_network(point: Config, local: Settings) -> None:
    """Refuse a method for a network that has not what it trains or reads."""
    model, method = point["model"], method_of(point)
    if train_recipe(point, local).attention:
        attention.check(_blank(model, options_text(point, local)))
    if method is not None and method.needs_norms:
        layers = _blank(model, options_text(point, local)).modules()
        if not any(isinstance(layer, _BatchNorm) for layer in layers):
            raise InputError(f"{method.name!r} reads the scales of batch normalisation, and {model!r} has none")


@lru_cache(maxsize=32)
def _blank(model: str, options: str) -> nn.Module:
    """A network to look at: it has no numbers."""
    given = {name: value for name, value in json.loads(options).items() if name != "weights"}
    with torch.device("meta"):
        return models.create(model, 10, **given)


def allocation(point: Config, local: Settings) -> Allocation:
    """How the scores of a point become kept channels."""
    if point.get("rates") is not None:
        return "uniform"
    return point.get("allocation") or local.pruning.allocation or pruning.get_method(point["method"]).allocation


def allocate(
    graph: ChannelGraph, ranks: Mapping[str, torch.Tensor], point: Config, local: Settings, macs_ratio: float | None
) -> dict[str, tuple[int, ...]]:
    """The channels that a point keeps; `macs_ratio` is relative to the graph's network."""
    return pruning.allocate(
        graph,
        ranks,
        allocation=allocation(point, local),
        rate=point.get("rate"),
        rates=None if point.get("rates") is None else ratios_of(point["rates"], point["model"]),
        macs_ratio=macs_ratio,
        round_to=point.get("round_to", local.pruning.round_to),
        min_channels=local.pruning.min_channels,
    )


def shrink(
    config: Config,
    session: Session,
    dense: nn.Module,
    on_epoch: OnEpoch,
    on_shape: Callable[[nn.Module], object] = lambda _: None,
) -> tuple[nn.Module, dict[str, Any], History]:
    """Prune a baseline as its point says, and fine-tune it.

    Args:
        config: the point.
        session: of the trial; `on_epoch` keeps the checkpoints in it.
        dense: the baseline, which stays as it is.
        on_epoch: called as `rssearch.train.fit` does, with the epochs counted over all steps.
        on_shape: called once, as soon as a network has its final shape: before the last step's fine-tuning.

    Returns:
        The network, its spec relative to the baseline, and the records of all epochs.
    """
    method = method_of(config)
    if method is not None and method.soft:
        model, spec, history = _softly(config, session, dense, on_epoch)
        on_shape(model)
        return model, spec, history
    targets = pruning.check_steps(session.settings.pruning.steps, config.get("macs_ratio"))
    recipes = _divided(finetune_recipe(config, session.settings), len(targets))
    whole = _trace(config, session, dense)
    spec = pruning.make_spec(whole, {})
    model, history, first, checkpoint = dense, [], 0, None
    elasticity: Mapping[str, torch.Tensor] = {}
    if (kept := session.load_checkpoint()) is not None:
        first, spec, history, checkpoint = _unpack(kept)
        model = pruning.apply_spec(copy.deepcopy(dense), spec)
    for step in range(first, len(targets)):
        if checkpoint is None:
            macs = targets[step] * whole.macs() if config.get("macs_ratio") is not None else None
            ranks = scores(config, session) if step == 0 and method is not None else None
            model, cut_now = _cut(config, session, model, macs, ranks, elasticity)
            spec = pruning.compose(spec, cut_now)
        if step == len(targets) - 1:
            on_shape(model)
        watch = Elasticity(model) if step < len(targets) - 1 else None
        report = _Steps(step, spec, history, on_epoch)
        recipe, teacher = recipes[step], dense if recipes[step].distill > 0 else None
        done = train(
            config, session, model, recipe, teacher=teacher, resume=checkpoint, on_epoch=report, elasticity=watch
        )
        history = report.continued(done)
        elasticity, checkpoint = watch.values() if watch is not None else {}, None
    return model, spec, history


class _Steps:
    """Counts the epochs over all steps, and puts before each checkpoint what the steps until then have done."""

    def __init__(self, step: int, spec: dict[str, Any], history: History, on_epoch: OnEpoch) -> None:
        self.step, self.spec, self.history, self.on_epoch = step, spec, history, on_epoch

    def __call__(self, record: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
        (counted,) = self.continued([record])[len(self.history) :]
        self.on_epoch(counted, lambda: _pack(self.step, self.spec, self.history, checkpoint()))

    def continued(self, records: History) -> History:
        """The records of the steps before and of this one."""
        return self.history + [record | {"epoch": record["epoch"] + len(self.history)} for record in records]


def _cut(
    config: Config,
    session: Session,
    model: nn.Module,
    macs: float | None,
    ranks: Mapping[str, torch.Tensor] | None,
    elasticity: Mapping[str, torch.Tensor],
) -> tuple[nn.Module, dict[str, Any]]:
    """One cut, by the scores that are given or by scores of this network; `macs` are to be left, where asked."""
    if config["method"] == CHANNEL_NAS:
        found = searches.derived(config, session)
        return found.model, found.spec
    if config["method"] == NO_METHOD:
        return pruning.cut(model, _trace(config, session, model), {})
    if ranks is None:
        graph, ranks = score_now(config, session, model, elasticity)
    else:
        graph = _trace(config, session, model)
    ratio = None if macs is None else min(1.0, macs / graph.macs())
    return pruning.cut(model, graph, allocate(graph, ranks, config, session.settings, ratio))


def _softly(
    config: Config,
    session: Session,
    dense: nn.Module,
    on_epoch: OnEpoch,
) -> tuple[nn.Module, dict[str, Any], History]:
    """Fine-tune at full size; the filters that would go are zeroed before and after each epoch. They go at the end."""
    model = copy.deepcopy(dense)

    def kept() -> tuple[ChannelGraph, Kept]:
        graph, ranks = score_now(config, session, model, {})
        return graph, allocate(graph, ranks, config, session.settings, config.get("macs_ratio"))

    def zero(_: int) -> None:
        pruning.zero_filters(model, *kept())

    recipe, checkpoint = finetune_recipe(config, session.settings), session.load_checkpoint()
    if checkpoint is None:
        zero(-1)
    teacher = dense if recipe.distill > 0 else None
    history = train(
        config, session, model, recipe, teacher=teacher, resume=checkpoint, on_epoch=on_epoch, after_epoch=zero
    )
    model, spec = pruning.cut(model, *kept())
    recalibrate(
        model,
        images_of(config, session).split("train"),
        recipe.recalibrate_batches,
        batch_size=recipe.batch_size,
        device=session.device,
        seed=config.get("seed", 0),
        precision=recipe.precision,
    )
    return model, spec, history


def _trace(config: Config, session: Session, model: nn.Module) -> ChannelGraph:
    device = next(model.parameters()).device
    return pruning.trace(model, torch.zeros(1, *images_of(config, session).input_shape, device=device))


def _divided(recipe: Recipe, steps: int) -> list[Recipe]:
    """The recipe of each step: equal shares of the epochs, what is over in the last; a whole schedule each."""
    share = recipe.epochs // steps
    epochs = [share] * (steps - 1) + [recipe.epochs - share * (steps - 1)]
    return [recipe.model_copy(update={"epochs": number}) for number in epochs]


def _pack(step: int, spec: dict[str, Any], history: History, checkpoint: bytes) -> bytes:
    """A line of JSON before the checkpoint of the step's training."""
    return json.dumps({"step": step, "spec": spec, "history": history}).encode() + b"\n" + checkpoint


def _unpack(content: bytes) -> tuple[int, dict[str, Any], History, bytes]:
    header, _, checkpoint = content.partition(b"\n")
    about = json.loads(header)
    return about["step"], about["spec"], about["history"], checkpoint
