"""`rssearch.shrink`: a network of your own, in memory, pruned and fine-tuned in this process, without Ray."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rssearch import pruning
from rssearch.config.settings import Recipe
from rssearch.cost import counting, latency
from rssearch.data import IGNORE
from rssearch.device import mode, reproducible
from rssearch.errors import InputError, TrialFailed, cut
from rssearch.escaping import printable
from rssearch.front.gains import BEFORE
from rssearch.metrics import human, is_quality
from rssearch.models import outputs
from rssearch.models.weights import to_bytes
from rssearch.pruning.graph import check_traceable
from rssearch.storage.location import write_atomic
from rssearch.study import shrink_data
from rssearch.study.console import PlainConsole
from rssearch.study.shrink_defaults import METHOD
from rssearch.study.shrink_tables import table
from rssearch.train.balance import named_loss
from rssearch.train.evaluation import Batches, evaluate_batches
from rssearch.train.loop import make_optimizer, recalibrate_on, training_loss
from rssearch.train.schedule import learning_rate

__all__ = ["Shrunk", "shrink"]

Say = Callable[[str], None]

_SCORED = 5  # batches that the scores see


@dataclass(frozen=True, repr=False)
class Shrunk:
    """A smaller network; as text, the table of what was lost and gained.

    Attributes:
        model: in evaluation mode.
        spec: what rebuilds its shapes from the original network, see `rssearch.pruning.apply_spec`.
        report: ``before`` and ``after``, each with accuracy (or miou), macs, params, bytes, latency_ms and
            latency_iqr_ms.
    """

    model: nn.Module
    spec: dict[str, Any]
    report: dict[str, dict[str, float]]

    def __repr__(self) -> str:
        before, after = self.report["before"], self.report["after"]
        quality = "miou" if "miou" in after else "accuracy"
        return (
            f"<Shrunk {type(self.model).__name__}: {quality} {human(quality, before[quality])} -> "
            f"{human(quality, after[quality])}, {human('macs_ratio', after['macs'] / before['macs'])} of the MACs>"
        )

    def __str__(self) -> str:
        row: dict[str, Any] = {}
        for prefix, values in {"": self.report["after"], BEFORE: self.report["before"]}.items():
            for name, value in values.items():
                row[prefix + (f"val_{name}" if is_quality(name) else name)] = value
        console = PlainConsole(file=io.StringIO(), width=100)
        console.print(table(row))
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors``, ``spec.json`` and ``report.json`` into a folder.

        That is no bundle: `rssearch.bundle.load` builds networks by their names, and this one has none. A network
        that a study names, also by ``MODULE:NAME``, is exported as a bundle by ``rssearch shrink --out``.

        Raises:
            InputError: the folder is there and not empty.
        """
        place = Path(folder)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InputError(f"{place}: is there already; give a new or an empty folder")
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / "model.safetensors", to_bytes(self.model))
        write_atomic(place / "spec.json", json.dumps(self.spec).encode())
        write_atomic(place / "report.json", json.dumps(self.report, indent=1).encode())


def shrink(
    model: nn.Module,
    data: Batches | str,
    *,
    macs_ratio: float,
    val: Batches | None = None,
    method: str = METHOD,
    epochs: int = 10,
    lr: float = 0.01,
    distill: float = 0.5,
    seed: int = 0,
    device: torch.device | str | None = None,
    data_root: str | Path = "data",
    normalize: str | Mapping[str, Any] | None = None,
    input_size: int | None = None,
    batch_size: int = 32,
    verbose: bool = True,
) -> Shrunk:
    """Prune a trained network, and fine-tune it with the original as its teacher.

    Args:
        model: gives logits [B, K], or [B, K, H, W] for masks; it is left as it is. All parameters of the smaller one
            are trained, also those that are frozen in it.
        data: training batches, such as a DataLoader: float32 images [B, C, H, W], as the network takes them, and int64
            labels [B] or masks [B, H, W]. It is gone through once an epoch; batches of a single image are left out, as
            batch normalisation cannot train on them. Or the name of a dataset, such as ``folder:fields``: its training
            images, flipped and turned, and for `val` its validation images.
        macs_ratio: share of the MACs that is left, in (0, 1].
        val: validation batches; None with the name of a dataset alone.
        method: of `rssearch.pruning.list_methods`; not a soft one.
        epochs: of the fine-tuning, by SGD with momentum 0.9 and a cosine schedule.
        lr: learning rate at first.
        distill: weight of the distillation beside the cross entropy, in [0, 1].
        seed: of scores that are drawn.
        device: where it is trained; None: a GPU where there is one.
        data_root: where the dataset of that name is.
        normalize: what its images are normalised by, as the network knows them: ``imagenet``, ``dataset``, ``none``,
            or ``{"mean": ..., "std": ...}``; likewise only for the name of a dataset, as what follows.
        input_size: height and width in pixels that its images are scaled to; None: their own.
        batch_size: images of a step.
        verbose: write a line for each step and epoch to the standard error.

    Returns:
        The smaller network and what was lost and gained. Without a seed for torch, `data` decides the order of the
        images, so that results repeat as far as it does.

    Raises:
        InputError: unknown method, a ratio that cannot be met, a soft method or a control; no batches, or such as can
            be gone through only once, or are no images with labels of the network's classes; or a network that is
            compiled, does not run on them in float32, cannot be trained on them, or gives no logits.
        TrialFailed: the training loss is not finite.
    """
    chosen = pruning.get_method(method)
    if chosen.soft:
        raise InputError(f"method {method!r} prunes while a study trains: name it in a study")
    if chosen.retrain or chosen.start == "initial":
        raise InputError(f"method {method!r} trains by the recipe of a study's baselines: name it in a study")
    if epochs < 0 or not 0 <= distill <= 1 or not lr > 0:
        raise InputError(f"epochs {epochs} must be at least 0, distill {distill:g} in [0, 1], lr {lr:g} above 0")
    say = _written if verbose else _unsaid
    recipe = Recipe(epochs=epochs, lr=lr, distill=distill, recalibrate_batches=10)
    if isinstance(data, str):
        if val is not None:
            raise InputError(f"val: is that of the dataset {data}; give batches for both, or its name alone")
        say(f"reading {data}")
        data, val = shrink_data.named(
            data, data_root, normalize=normalize, input_size=input_size, batch_size=batch_size, seed=seed
        )
    elif normalize is not None or input_size is not None:
        raise InputError("normalize and input_size: are of a dataset given by its name; batches are taken as they are")
    if val is None:
        raise InputError("val: is needed beside batches to train on")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    _check_network(model)
    teacher = counting.duplicate(model).to(where).eval()
    teacher.requires_grad_(True)
    first = next(_batches("data", data, where, None, least=2), None)
    if first is None:
        raise InputError("data: there are no batches of two images or more to train on")
    classes = _classes(teacher, *first)
    _check_trains(counting.duplicate(teacher), *first, recipe)
    train = partial(_batches, "data", data, where, classes, least=2)
    measured = partial(_measured, val=partial(_batches, "val", val, where, classes), classes=classes)
    before = measured(teacher)
    say(f"before: {_words(before)}; pruning by {method} to {macs_ratio:.1%} of the MACs")
    scored = [*islice(train(), _SCORED)]
    pruned = pruning.prune(teacher, first[0][:1], method, macs_ratio=macs_ratio, data=scored, seed=seed)
    student = pruned.model.to(where)
    with reproducible(where):
        recalibrate_on(student, islice(train(), recipe.recalibrate_batches), device=where)
        _fine_tune(student, teacher, train, recipe, say)
    after = measured(student)
    say(f"after: {_words(after)}")
    return Shrunk(student.eval(), pruned.spec, {"before": before, "after": after})


def _written(text: str) -> None:
    sys.stderr.write(f"shrink: {printable(text)}\n")
    sys.stderr.flush()


def _unsaid(_: str) -> None:
    """Nothing."""


def _words(found: Mapping[str, float]) -> str:
    quality = "miou" if "miou" in found else "accuracy"
    return f"{quality} {human(quality, found[quality])}, {human('macs', found['macs'])} MACs"


def _batches(
    name: str, source: Batches, device: torch.device, classes: int | None, least: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of at least so many images, on the device; all labels are below `classes`, or ignored in masks.

    Raises:
        InputError: something that is no such batch, or `source` can be gone through only once.
    """
    found = iter(source)
    if found is source:
        raise InputError(f"{name}: can be gone through only once; give a list of batches or a DataLoader")
    for batch in found:
        if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(t, Tensor) for t in batch)):
            raise InputError(f"{name}: a batch is {outputs.described(batch)}, not a pair of images and labels")
        images, labels = batch
        shapes = labels.shape in (images.shape[:1], images.shape[:1] + images.shape[2:])
        if images.dim() != 4 or not shapes or images.dtype != torch.float32 or labels.dtype != torch.int64:
            raise InputError(
                f"{name}: a batch has images {_said(images)} and labels {_said(labels)}; it must have float32 images "
                "[B, C, H, W], and int64 labels [B] or masks [B, H, W]"
            )
        if classes is not None:
            _check_labels(name, labels, classes)
        if len(images) >= least:
            yield images.to(device), labels.to(device)


def _said(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _check_network(model: nn.Module) -> None:
    """Refuse what cannot be copied, pruned and trained. Raises InputError."""
    if not isinstance(model, nn.Module):
        raise InputError(f"the network is {outputs.described(model)}, not a torch.nn.Module")
    check_traceable(model)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise InputError(f"the network's {name} is {_said(parameter)}; it is pruned in float32: model.float()")


@contextmanager
def _own_code(doing: str) -> Iterator[None]:
    """What the network's own code raises, as an InputError with what it was doing; memory that does not suffice not."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        why = cut(" ".join(str(error).split()) or type(error).__name__, 300)
        raise InputError(f"the network {doing}: {why}") from error


def _check_trains(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe) -> None:
    """Refuse a network that cannot be trained on a batch. Raises InputError."""
    labels = torch.zeros_like(labels)  # labels that the network lacks are refused by their numbers elsewhere
    with reproducible(images.device), _own_code("cannot be trained on a batch of the data"):
        model.train()
        found = model(images.clone())
        if not isinstance(found, Tensor):
            raise InputError(f"the network gives {outputs.described(found)} in training mode, not one tensor of logits")
        if not found.requires_grad:
            raise InputError("the network gives logits without a gradient in training mode: it cannot be fine-tuned")
        torch.autograd.backward(training_loss(model, None, recipe, named_loss(recipe), 1.0, images, labels))


def _classes(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Of how many classes a network gives logits. Raises InputError if it gives no logits for such labels."""
    with mode(model, training=False), torch.inference_mode(), _own_code(f"does not run on images {_said(images)}"):
        found = model(images.clone())
    if not isinstance(found, Tensor):
        raise InputError(
            f"the network gives {outputs.described(found)}, not one tensor of logits; "
            "wrap it in a module that gives them"
        )
    if found.dim() != labels.dim() + 1 or found.shape[2:] != labels.shape[1:]:
        raise InputError(f"the network gives {_said(found)} for labels {_said(labels)}, which are no logits for them")
    return found.shape[1]


def _check_labels(name: str, labels: Tensor, classes: int) -> None:
    """Refuse labels of classes that a network does not have. Raises InputError."""
    known = (labels >= 0) & (labels < classes)
    if not bool((known if labels.dim() == 1 else known | (labels == IGNORE)).all()):
        least, most = labels.aminmax()
        raise InputError(
            f"{name}: labels from {least} to {most}, but the network has {classes} classes: 0 to {classes - 1}"
        )


def _fine_tune(model: nn.Module, teacher: nn.Module, train: Callable[[], Batches], recipe: Recipe, say: Say) -> None:
    optimizer, label_loss = make_optimizer(model, recipe), named_loss(recipe)
    model.train()
    for epoch in range(recipe.epochs):
        rate = learning_rate(recipe, epoch, recipe.epochs, 0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        total, steps = torch.zeros(()), 0
        for x, y in train():
            loss = training_loss(model, teacher, recipe, label_loss, 1.0, x, y)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total, steps = total.to(loss.device) + loss.detach(), steps + 1
        if not math.isfinite(total.item()):
            raise TrialFailed(f"the training loss is {total.item()} in epoch {epoch + 1}, learning rate {rate:g}")
        say(f"epoch {epoch + 1} of {recipe.epochs}: training loss {total.item() / max(steps, 1):.4g}")


def _measured(model: nn.Module, val: Callable[[], Batches], classes: int) -> dict[str, float]:
    """Quality on the validation batches, and costs."""
    first = next(iter(val()), None)
    if first is None:
        raise InputError("val: there are no images to measure the network on")
    x, y = first
    C, H, W = x.shape[1:]
    masks = y.dim() > 1
    found = evaluate_batches(model, val(), classes=classes if masks else None, device=x.device)
    profile = counting.profile(model, (C, H, W))
    timed = latency.measure(model, (C, H, W), device=x.device)
    quality = "miou" if masks else "accuracy"
    return {
        quality: found[quality],
        "macs": profile.macs,
        "params": profile.params,
        "bytes": len(to_bytes(model)),
        "latency_ms": timed.median_ms,
        "latency_iqr_ms": timed.iqr_ms,
    }
