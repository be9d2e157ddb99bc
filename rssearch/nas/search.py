"""Differentiable channel search: weights and scores learn in turns, and a cost loss pulls the MACs to the target.

One step trains the weights on one part of the training split with the gates as they are; the next trains the scores on
the other part with the weights as they are (first order, as in DARTS). The scores' loss is the cross entropy and
``strength`` times a loss of R / q, where R is the expected ratio of MACs and q the wanted one.
"""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rssearch.config.settings import Augment, ChannelSearch, Recipe
from rssearch.data import AnyDataset, loader
from rssearch.device import autocast, pick_device, place, reproducible, seed_epoch, to_memory_format
from rssearch.eager import eager
from rssearch.errors import InputError, TrialFailed
from rssearch.nas.derive import derive, fold
from rssearch.nas.gates import Gates
from rssearch.pruning.graph import trace
from rssearch.pruning.pruned import PrunedModel
from rssearch.train import balance
from rssearch.train.loop import OnEpoch, make_optimizer
from rssearch.train.schedule import learning_rate

__all__ = ["Run", "cost_loss", "halves", "search", "temperature_at"]

_PARTS = ("model", "gates", "weight_optimizer", "score_optimizer")
Adam = eager(torch.optim.Adam)


def search(
    model: nn.Module,
    train_data: AnyDataset,
    *,
    macs_ratio: float,
    recipe: Recipe | None = None,
    settings: ChannelSearch | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    on_epoch: OnEpoch | None = None,
) -> PrunedModel:
    """Search how many channels each layer needs, and cut the network to them.

    Args:
        model: the network, which stays as it is; the weights that it has are the search's first ones.
        train_data: the training split; it is divided by class into a part for the weights and one for the scores.
        macs_ratio: remaining share of MACs, met by the result within 1 %.
        recipe: how the weights learn (epochs, optimizer, learning rate, ...); a batch of the scores has its size.
        settings: of the search.
        augment: random changes of the images; None for none.
        seed: of the division, the order of the images, the augmentation and the initial scores.
        device: None for the GPU, if there is one.
        on_epoch: called after each epoch as by `Run.finish`.

    Returns:
        The pruned network, to be fine-tuned. Its report has the record of each epoch, see `Run.epoch`, as ``history``,
        and the scores of each group of coupled channels as ``scores``.

    Raises:
        InputError: a ratio that cannot be reached (before anything is trained), or too few images.
        TrialFailed: a loss is not finite.
    """
    recipe, settings, device = recipe or Recipe(), settings or ChannelSearch(), device or pick_device()
    if not 0 < macs_ratio <= 1:
        raise InputError(f"macs_ratio is {macs_ratio}, but must be in (0, 1]")
    run = Run(model, train_data, settings.target or macs_ratio, recipe, settings, augment, seed, device)
    derive(run.model, run.gates, macs_ratio=macs_ratio, folded=False)  # refuses what cannot be reached
    run.finish(on_epoch)
    found = derive(run.model, run.gates, macs_ratio=macs_ratio)
    found.report["history"] = run.history
    found.report["scores"] = {name: values.tolist() for name, values in run.gates.by_group().items()}
    return found


class Run:
    """A search under way: the network with its gates, both optimizers, and the record so far.

    Args are those of `search`, but for `target`, the ratio of MACs that the cost loss leads to.
    """

    def __init__(
        self,
        model: nn.Module,
        train_data: AnyDataset,
        target: float,
        recipe: Recipe,
        settings: ChannelSearch,
        augment: Augment | None,
        seed: int,
        device: torch.device,
    ) -> None:
        if recipe.epochs < 1:
            raise InputError("a search needs at least one epoch")
        self.recipe, self.settings, self.augment, self.seed, self.device = recipe, settings, augment, seed, device
        self.target = target
        self.label_loss = balance.label_loss(recipe, train_data, device)
        self.model = place(copy.deepcopy(model), device, train_data.input_shape)
        graph = trace(self.model, torch.zeros(1, *train_data.input_shape, device=device))
        self.gates = Gates(graph, seed=seed, straight_through=settings.straight_through).to(device)
        fold(self.model, self.gates)  # refuses a network that could not be derived in the end
        self.for_weights, self.for_scores = halves(train_data, settings.score_share, seed)
        self.members_of_weights = balance.members(recipe, self.for_weights)
        self.members_of_scores = balance.members(recipe, self.for_scores)
        self.steps = loader.num_batches(len(self.for_weights), recipe.batch_size, train=True)
        self.weight_optimizer = make_optimizer(self.model, recipe)
        self.score_optimizer = Adam([self.gates.scores], lr=settings.score_lr)
        self.warm = math.ceil(settings.warmup * recipe.epochs) if recipe.epochs > 1 else 0
        self.history: list[dict[str, float]] = []

    def finish(self, on_epoch: OnEpoch | None = None) -> None:
        """Train all epochs that are left; `on_epoch` gets each one's record and a callable that makes a checkpoint."""
        with reproducible(self.device):
            for epoch in range(len(self.history), self.recipe.epochs):
                record = self.epoch(epoch)
                if on_epoch is not None:
                    on_epoch(dict(record), self.checkpoint)

    def checkpoint(self) -> bytes:
        """All that a resumption needs; every epoch seeds its own random numbers."""
        buffer = io.BytesIO()
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        torch.save({**self._identity(), **parts, "history": self.history}, buffer)
        return buffer.getvalue()

    def restore(self, checkpoint: bytes) -> None:
        """Go on from a checkpoint. Raises InputError if it is of another search."""
        state = torch.load(io.BytesIO(checkpoint), map_location=self.device, weights_only=True)
        for name, value in self._identity().items():
            if state[name] != value:
                raise InputError(f"the checkpoint was made with another {name}: {state[name]!r}, not {value!r}")
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.history = state["history"]

    def _identity(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.identity(),
            "settings": self.settings.model_dump(mode="json"),
            "target": self.target,
            "seed": self.seed,
        }

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch.

        Returns:
            epoch (from 1), train_loss, soft_ratio (expected MACs over those of the whole network), hard_ratio (of the
            channels with scores above 0), temperature, percentiles of the scores (score_p05, score_p50, score_p95), a
            histogram of the soft gates (gates/0.0 is the share in [0, 0.1), and so on to gates/0.9), seconds; and
            score_loss and cost_loss unless all gates were open.
        """
        begin, searching = time.perf_counter(), epoch >= self.warm
        seed_epoch(self.seed, epoch, self.device)
        self.model.train()
        weight_losses, score_losses, cost_losses = [], [], []
        ones = torch.ones_like(self.gates.scores)
        held_out = self._endless(epoch)
        with self.gates.attached(self.model, None if searching else lambda: ones):
            for step, (x, y) in enumerate(self._batches(self.for_weights, epoch)):
                done = epoch * self.steps + step
                self.gates.temperature = temperature_at(done / (self.recipe.epochs * self.steps), self.settings)
                weight_losses.append(self._weight_step(x, y, done))
                if searching:
                    score_loss, cost = self._score_step(*next(held_out))
                    score_losses.append(score_loss)
                    cost_losses.append(cost)
        with torch.no_grad():
            soft, hard = self.gates.soft(), (self.gates.scores > 0).to(self.gates.scores.dtype)
            low, middle, high = self.gates.scores.quantile(self.gates.scores.new_tensor([0.05, 0.5, 0.95])).tolist()
            record = {
                "epoch": epoch + 1,
                "train_loss": _mean(weight_losses),
                "soft_ratio": float(self.gates.expected_ratio(soft)),
                "hard_ratio": float(self.gates.expected_ratio(hard)),
                "temperature": self.gates.temperature,
                "score_p05": low,
                "score_p50": middle,
                "score_p95": high,
                **{f"gates/{index / 10}": share for index, share in enumerate(_tenths(soft))},
                "seconds": time.perf_counter() - begin,
            }
            if searching:
                record |= {"score_loss": _mean(score_losses), "cost_loss": _mean(cost_losses)}
        if not all(map(math.isfinite, record.values())):
            raise TrialFailed(f"a loss of the channel search is not finite in epoch {epoch + 1}: {record}")
        self.history.append(record)
        return record

    def _weight_step(self, x: Tensor, y: Tensor, done: int) -> Tensor:
        rate = learning_rate(
            self.recipe, done, self.recipe.epochs * self.steps, round(self.recipe.warmup_epochs * self.steps)
        )
        for group in self.weight_optimizer.param_groups:
            group["lr"] = rate
        self.gates.scores.requires_grad_(False)
        loss = self._loss(x, y)
        self.gates.scores.requires_grad_(True)
        self.weight_optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.weight_optimizer.step()
        return loss.detach()

    def _score_step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        cost = cost_loss(self.gates.expected_ratio(self.gates.soft()), self.target, self.settings.cost)
        loss = self._loss(x, y)
        total = loss + self.settings.strength * cost.to(loss.dtype)
        # The gradient goes through the network to the scores, and to no weight.
        (self.gates.scores.grad,) = torch.autograd.grad(total, [self.gates.scores])
        self.score_optimizer.step()
        return loss.detach(), cost.detach()

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        x = to_memory_format(x, self.model)
        with autocast(x.device, self.recipe.precision):
            return self.label_loss(self.model(x), y)

    def _batches(self, part: AnyDataset, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        members = self.members_of_weights if part is self.for_weights else self.members_of_scores
        return loader.batches(
            part, self.recipe.batch_size, device=self.device, train=True, augment=self.augment, seed=self.seed,
            epoch=epoch, members=members,
        )  # fmt: skip

    def _endless(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches for the scores, in another order each time that their images have been gone through."""
        for turn in range(self.steps + 1):
            yield from self._batches(self.for_scores, epoch * (self.steps + 1) + turn)


def cost_loss(ratio: Tensor, target: float, kind: str = "squared") -> Tensor:
    """How far a ratio of MACs is from the target q: ``(R/q - 1)^2`` or ``|log(R/q)|``."""
    relative = ratio / target
    return (relative - 1).square() if kind == "squared" else relative.log().abs()


def temperature_at(progress: float, settings: ChannelSearch) -> float:
    """The temperature at a share of the search: it falls exponentially to the final one, and stays there."""
    share = 1.0 if settings.annealing == 0 else min(1.0, progress / settings.annealing)
    return settings.temperature * math.exp(share * math.log(settings.final_temperature / settings.temperature))


def halves(data: AnyDataset, share: float, seed: int) -> tuple[AnyDataset, AnyDataset]:
    """Divide a split by class into images for the weights and, `share` of them, images for the scores.

    Scenes are divided whole, unless there are few of them.

    Raises:
        InputError: one of the parts would have fewer than two images.
    """
    rng = np.random.default_rng([seed, len(data)])
    stratum, unit = data.strata()
    taken = np.zeros(unit.max(initial=-1) + 1, bool)
    for label in np.unique(stratum):
        members = rng.permutation(np.unique(unit[stratum == label]))
        taken[members[: round(share * len(members))]] = True
    chosen = taken[unit]
    if min(chosen.sum(), (~chosen).sum()) < 2:
        raise InputError(f"{len(data)} training images are too few to be divided into two parts")
    return data.part(np.flatnonzero(~chosen)), data.part(np.flatnonzero(chosen))


def _tenths(gates: Tensor) -> list[float]:
    """The share of gates in each tenth of [0, 1]."""
    shares: list[float] = (torch.histc(gates.float().cpu(), bins=10, min=0, max=1) / len(gates)).tolist()
    return shares


def _mean(losses: list[Tensor]) -> float:
    """The mean; the losses stay on the device until now, because each look at one makes the host wait."""
    return torch.stack(losses).mean().item()
