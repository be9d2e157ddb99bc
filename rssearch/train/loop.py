"""The one training loop: fit, recalibrate.

Weight decay is applied to every parameter, biases and batch normalisation included, as the pruning papers' recipes do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rssearch.config.settings import Augment, Recipe
from rssearch.data import loader
from rssearch.device import Precision, autocast, mode, place, reproducible, seed_epoch, to_memory_format
from rssearch.eager import eager
from rssearch.errors import InputError, TrialFailed
from rssearch.models import attention
from rssearch.train import balance, checkpoint, losses
from rssearch.train import micro_batches as microbatch
from rssearch.train.balance import LabelLoss
from rssearch.train.checkpoint import StepRecord
from rssearch.train.context import TrainContext
from rssearch.train.evaluation import Batches, evaluate
from rssearch.train.schedule import learning_rate
from rssearch.train.sparsity import Penalty

if TYPE_CHECKING:
    from rssearch.data import AnyDataset

OnEpoch = Callable[[dict[str, float], Callable[[], bytes]], None]
StepLoss = Callable[
    [nn.Module, nn.Module | None, Recipe, LabelLoss, Tensor | float, Tensor, Tensor], Tensor
]  # called as `training_loss` is


class Objective(Protocol):
    """What is learned in place of `training_loss`."""

    def attach(self, model: nn.Module) -> None:
        """Get to know the network, on its device, before the first step."""

    def at(self, step: int) -> StepLoss:
        """The loss of one step, counted from 0 over all epochs: the same on each worker."""


LOOK_EVERY = 50  # steps
SGD, AdamW = eager(torch.optim.SGD), eager(torch.optim.AdamW)


def fit(
    model: nn.Module,
    train: AnyDataset,
    val: AnyDataset,
    recipe: Recipe,
    *,
    augment: Augment | None,
    context: TrainContext | None = None,
    teacher: nn.Module | None = None,
    resume: bytes | None = None,
    on_epoch: OnEpoch | None = None,
    after_epoch: Callable[[int], None] | None = None,
    elasticity: StepRecord | None = None,
    objective: Objective | None = None,
) -> list[dict[str, float]]:
    """Train a network in place, and move it to the device.

    The same arguments give the same weights: bit for bit on a CPU; on a GPU as far as cuDNN's deterministic kernels
    reach. Every epoch draws its random numbers from (seed, epoch) alone, so a resumed run equals an uninterrupted one,
    and the caller's random state is left as it was.

    Args:
        model: the network; gives logits [B, K], or [B, K, H, W] for masks.
        train: images to learn from.
        val: images to measure each epoch on.
        recipe: how to train. With epochs 0 nothing is learned; a recalibration that it asks for is still done. With
            `attention` the network has squeeze-and-excitation during the training, and so in the records and
            checkpoints; in the end its mean over `train` (without augmentation) is folded into the normalisations, and
            the network has its own structure again. So it has if the training fails.
        augment: random changes of the training images; None for none.
        context: device, seed, micro-batches and worker group; None for the default of each.
        teacher: gives the logits to distil from, in evaluation mode; needed if recipe.distill is above 0, else unused.
        resume: a checkpoint of the same recipe and seed, as made by the callable that `on_epoch` gets.
        on_epoch: called after each epoch with its record and a callable that makes a checkpoint of this moment.
        after_epoch: called with the number of each epoch (from 0) once it is trained, before it is validated and a
            checkpoint can be made; it may change the weights in place.
        elasticity: reset at the start of the last epoch, and updated in each of its steps with the loss and the plain
            gradients. It is in the checkpoints: with that of the last epoch it is whole again.
        objective: what is learned in place of `training_loss`.

    Returns:
        One record for each epoch, those before a resumption included: epoch (from 1), train_loss (mean over the
        images, in training mode), what `evaluate` measures on `val` (val_loss, val_accuracy or val_miou, ...), lr (of
        the last step), seconds (of training and validation), images_per_second (of training), and micro_batches where
        there were several.

    Raises:
        PeerLostError: another worker of the group died.
        TrialFailed: the loss is NaN or infinite; no checkpoint of that epoch is made. Or memory does not even suffice
            for the smallest micro-batches.
        OutOfMemory: memory does not suffice; with twice as many micro-batches it may.
        InputError: the recipe needs a teacher and there is none, its loss or class weights are not for these targets;
            attention cannot be inserted into this network; the checkpoint is of another recipe or seed, or is the last
            and has no elasticity; a split is too small.
    """
    if recipe.distill > 0 and teacher is None:
        raise InputError(f"distill {recipe.distill:g} needs a teacher")
    context = context or TrainContext()
    device, seed = context.device, context.seed
    label_loss, members = balance.label_loss(recipe, train, device), balance.members(recipe, train)
    place(model, device, train.input_shape)
    if teacher is not None:
        place(teacher, device, train.input_shape).eval()
    rows = loader.rows(len(train), recipe.batch_size, train=True)
    identity = {"recipe": recipe.identity(), "seed": seed}
    history: list[dict[str, float]] = []
    attended = _attended(model, train, recipe, context) if recipe.attention else nullcontext()
    with reproducible(device), attended:
        optimizer = make_optimizer(model, recipe)
        if objective is not None:
            objective.attach(model)
        if resume is not None:
            history = checkpoint.restore(resume, identity, model, optimizer, elasticity, device)
        elif recipe.recalibrate_batches:
            recalibrate(
                model, train, recipe.recalibrate_batches, batch_size=recipe.batch_size, device=device, seed=seed,
                precision=recipe.precision,
            )  # fmt: skip
        for epoch in range(len(history), recipe.epochs):
            begin = time.perf_counter()
            watch = elasticity if epoch == recipe.epochs - 1 else None
            data = loader.batches(
                train, recipe.batch_size, device=device, train=True, augment=augment, seed=seed, epoch=epoch,
                worker=(context.worker_group.rank, context.worker_group.size), members=members,
            )  # fmt: skip
            log = _train_epoch(
                model, rows, data, optimizer, recipe, label_loss, context, epoch, teacher, watch, objective
            )
            if not context.worker_group.is_main:
                continue
            trained = time.perf_counter()
            if after_epoch is not None:
                after_epoch(epoch)
            record = {
                "epoch": epoch + 1,
                "train_loss": log.total / log.images,
                **_validate(model, val, recipe, context, log),
                "lr": log.rate,
                "seconds": time.perf_counter() - begin,
                "images_per_second": log.images / (trained - begin),
            }
            if context.micro_batches > 1:
                record["micro_batches"] = context.micro_batches
            history.append(record)
            if on_epoch is not None:
                on_epoch(dict(record), lambda: checkpoint.write(identity, model, optimizer, elasticity, history))
    return history


def recalibrate(
    model: nn.Module,
    dataset: AnyDataset,
    batches: int,
    *,
    batch_size: int,
    device: torch.device,
    seed: int,
    precision: Precision = "auto",
) -> None:
    """Replace the running statistics of batch normalisation, in place, by those of at most `batches` training batches.

    Pruning shifts the activations that the old statistics describe. They are reset and replaced by the plain average of
    mean and variance over the batches, without augmentation; nothing else changes, and dropout stays off.
    """
    data = loader.batches(dataset, batch_size, device=device, train=True, augment=None, seed=seed, epoch=0)
    recalibrate_on(model, islice(data, batches), device=device, precision=precision)


def recalibrate_on(model: nn.Module, batches: Batches, *, device: torch.device, precision: Precision = "auto") -> None:
    """As `recalibrate`, by batches that are on the device; without any, nothing changes."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    first = next(found := iter(batches), None) if norms else None
    if first is None:
        return
    momenta = [norm.momentum for norm in norms]
    with mode(model, training=False), torch.no_grad(), autocast(device, precision):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's sign for a cumulative average
            norm.train()
        try:
            for x, _ in chain([first], found):
                model(to_memory_format(x, model))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


class _LossLog:
    """The losses of one epoch. They stay on the device, because each look at them makes the host wait for it."""

    def __init__(self, epoch: int, steps: int) -> None:
        self.epoch, self.steps = epoch, steps
        self.images = self.step = 0
        self.rate = 0.0
        self.total = 0.0
        self.pending: list[tuple[Tensor, int, float]] = []

    def add(self, loss: Tensor, images: int, rate: float) -> None:
        self.pending.append((loss.detach(), images, rate))
        self.rate = rate
        if len(self.pending) == LOOK_EVERY:
            self.look()

    def look(self) -> None:
        """Move the losses to the sums. Raises TrialFailed at the first that is not finite."""
        if not self.pending:
            return
        losses_, sizes, rates = zip(*self.pending, strict=True)
        self.pending = []
        for value, size, rate in zip(torch.stack(losses_).tolist(), sizes, rates, strict=True):
            self.step += 1
            if not math.isfinite(value):
                where = f"epoch {self.epoch + 1}, step {self.step} of {self.steps}, learning rate {rate:g}"
                raise TrialFailed(f"the training loss is {value} in {where}")
            self.total += value * size
            self.images += size


def _train_epoch(
    model: nn.Module,
    rows: Sequence[slice],
    data: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    label_loss: LabelLoss,
    context: TrainContext,
    epoch: int,
    teacher: nn.Module | None,
    watch: StepRecord | None,
    objective: Objective | None,
) -> _LossLog:
    """One pass over the data, with every loss looked at; `rows` are the places of the batches in the epoch."""
    workers, micro_batches, steps = context.worker_group, context.micro_batches, len(rows)
    workers.broadcast(model)
    seed_epoch(context.seed, epoch, context.device, workers.rank)
    model.train()
    log, warmup = _LossLog(epoch, steps), round(recipe.warmup_epochs * steps)
    if watch is not None:
        watch.reset()
    # Micro-batches have statistics of their own anyway, and one worker may have more of them than another.
    whole = workers.synchronised_batch_norm(model) if micro_batches == 1 else nullcontext()
    with microbatch.oom_context(-(-recipe.batch_size // workers.size), micro_batches), whole:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.affine]
        penalty = Penalty([norm.weight for norm in norms if norm.weight.requires_grad], recipe, steps)
        for step, (row, (images, labels)) in enumerate(zip(rows, data, strict=True)):
            x, weight = to_memory_format(images, model), workers.loss_weight(labels)
            rate = learning_rate(recipe, epoch * steps + step, recipe.epochs * steps, warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            step_loss = training_loss if objective is None else objective.at(epoch * steps + step)
            loss_of = partial(step_loss, model, teacher, recipe, label_loss, weight)
            own = microbatch.backward(loss_of, x, labels, micro_batches)
            loss = workers.all_reduce(model, own)
            if watch is not None:
                watch.update(loss)
            penalty.before_step()
            optimizer.step()
            penalty.after_step(rate)
            log.add(loss, row.stop - row.start, rate)
        log.look()
    return log


def _validate(
    model: nn.Module, val: AnyDataset, recipe: Recipe, context: TrainContext, log: _LossLog
) -> dict[str, float]:
    """What a network reaches after an epoch, named as metrics are."""
    batch_size = -(-recipe.batch_size // context.micro_batches)
    try:
        found = evaluate(
            model, val, batch_size=batch_size, device=context.device, precision=recipe.precision,
            per_class=context.per_class,
        )  # fmt: skip
    except TrialFailed as error:
        raise TrialFailed(f"{error}, after epoch {log.epoch + 1}, learning rate {log.rate:g}") from None
    return {f"val_{name}": value for name, value in found.items()}


def training_loss(
    model: nn.Module,
    teacher: nn.Module | None,
    recipe: Recipe,
    label_loss: LabelLoss,
    weight: Tensor | float,
    x: Tensor,
    y: Tensor,
) -> Tensor:
    """The loss of a batch by a recipe, times a weight: of the labels, and of the teacher where there is one."""
    with autocast(x.device, recipe.precision):
        logits = model(x)
        hard = label_loss(logits, y)
        if teacher is None or recipe.distill == 0:
            return weight * hard
        with torch.no_grad():
            taught = teacher(x)
        soft = losses.distillation(logits, taught, recipe.temperature, y)
        return weight * ((1 - recipe.distill) * hard + recipe.distill * soft)


@contextmanager
def _attended(model: nn.Module, train: AnyDataset, recipe: Recipe, context: TrainContext) -> Iterator[None]:
    """Attention in the network, folded at the end; merely removed if the training fails."""
    device = context.device
    attention.insert(model, seed=context.seed)
    try:
        yield
        batches = loader.batches(train, recipe.batch_size, device=device, train=False)
        with autocast(device, recipe.precision):
            mean = attention.mean_attention(model, ((to_memory_format(x, model), y) for x, y in batches))
        attention.fold(model, mean)
    finally:
        attention.remove(model)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe, over all parameters that learn."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        return AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return SGD(
        parameters, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
    )
