"""`rssearch.shrink`: a network of your own, in memory, pruned and fine-tuned in this process, without Ray."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rssearch import pruning
from rssearch.cost import counting, latency
from rssearch.device import mode, reproducible
from rssearch.errors import InputError
from rssearch.storage.location import write_atomic
from rssearch.study.shrinking import METHOD
from rssearch.train import losses
from rssearch.train.segmentation import Tally

__all__ = ["Shrunk", "shrink"]

Batches = Iterable[tuple[Tensor, Tensor]]

_SCORED = 5  # batches that the scores see
_RECALIBRATED = 10  # batches for the statistics of batch normalisation after the surgery
_TEMPERATURE = 4.0


@dataclass(frozen=True)
class Shrunk:
    """A smaller network.

    Attributes:
        model: in evaluation mode.
        spec: what rebuilds its shapes from the original network, see `rssearch.pruning.apply_spec`.
        report: ``before`` and ``after``, each with accuracy (or miou), macs, params, bytes, latency_ms and
            latency_iqr_ms.
    """

    model: nn.Module
    spec: dict[str, Any]
    report: dict[str, dict[str, float]]

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors``, ``spec.json`` and ``report.json`` into a folder.

        Raises:
            InputError: the folder is there and not empty.
        """
        place = Path(folder)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InputError(f"{place}: is there already; give a new or an empty folder")
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / "model.safetensors", _bytes(self.model))
        write_atomic(place / "spec.json", json.dumps(self.spec).encode())
        write_atomic(place / "report.json", json.dumps(self.report, indent=1).encode())


def shrink(
    model: nn.Module,
    data: Batches,
    *,
    macs_ratio: float,
    val: Batches,
    method: str = METHOD,
    epochs: int = 10,
    lr: float = 0.01,
    distill: float = 0.5,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Shrunk:
    """Prune a trained network, and fine-tune it with the original as its teacher.

    Args:
        model: gives logits [B, K], or [B, K, H, W] for masks; it is left as it is.
        data: training batches, such as a DataLoader: float32 images [B, C, H, W], as the network takes them, and int64
            labels [B] or masks [B, H, W]. It is gone through once an epoch.
        macs_ratio: share of the MACs that is left, in (0, 1].
        val: validation batches.
        method: of `rssearch.pruning.list_methods`; not a soft one.
        epochs: of the fine-tuning, by SGD with momentum 0.9 and a cosine schedule.
        lr: learning rate at first.
        distill: weight of the distillation beside the cross entropy, in [0, 1].
        seed: of scores that are drawn.
        device: where it is trained; None: a GPU where there is one.

    Returns:
        The smaller network and what was lost and gained. Without a seed for torch, `data` decides the order of the
        images, so that results repeat as far as it does.

    Raises:
        InputError: unknown method, a ratio that cannot be met, no batches, or a soft method.
        TrialFailed: the outputs are not finite.
    """
    if pruning.get_method(method).soft:
        raise InputError(f"method {method!r} prunes while a study trains: name it in a study")
    if epochs < 0 or not 0 <= distill <= 1 or not lr > 0:
        raise InputError(f"epochs {epochs} must be at least 0, distill {distill:g} in [0, 1], lr {lr:g} above 0")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    teacher = copy.deepcopy(model).to(where).eval()
    first = next(iter(data), None)
    if first is None:
        raise InputError("data: there are no batches to train on")
    scored = [(x.to(where), y.to(where)) for x, y in islice(iter(data), _SCORED)]
    pruned = pruning.prune(teacher, scored[0][0][:1], method, macs_ratio=macs_ratio, data=scored, seed=seed)
    student = pruned.model.to(where)
    with reproducible(where):
        _recalibrate(student, data, where)
        _fine_tune(student, teacher, data, epochs, lr, distill, where)
    shape = tuple(first[0].shape[1:])
    report = {"before": _measured(teacher, val, shape, where), "after": _measured(student, val, shape, where)}
    return Shrunk(student.eval(), pruned.spec, report)


def _recalibrate(model: nn.Module, data: Batches, device: torch.device) -> None:
    """The statistics of batch normalisation after the surgery, as plain averages over a few batches."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with mode(model, training=False), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for x, _ in islice(iter(data), _RECALIBRATED):
            model(x.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _fine_tune(
    model: nn.Module, teacher: nn.Module, data: Batches, epochs: int, lr: float, distill: float, device: torch.device
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    model.train()
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        for images, labels in data:
            x, y = images.to(device), labels.to(device)
            logits = model(x)
            loss = (1 - distill) * losses.cross_entropy(logits, y)
            if distill:
                with torch.no_grad():
                    taught = teacher(x)
                loss = loss + distill * losses.distillation(logits, taught, _TEMPERATURE, y)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()


def _measured(model: nn.Module, val: Batches, shape: tuple[int, ...], device: torch.device) -> dict[str, float]:
    """Quality on the validation batches, and costs."""
    hits = count = 0
    tally: Tally | None = None
    with mode(model, training=False), torch.inference_mode():
        for images, labels in val:
            logits, y = model(images.to(device)), labels.to(device)
            if logits.dim() == 4:
                tally = tally or Tally(logits.shape[1], device)
                tally.add(logits, y)
            hits += int((logits.argmax(1) == y).sum())
            count += y.numel()
    if not count:
        raise InputError("val: there are no images to measure the network on")
    C, H, W = shape
    profile = counting.profile(model, (C, H, W))
    timed = latency.measure(model, (C, H, W), device=device)
    quality = {"accuracy": hits / count} if tally is None else {"miou": tally.metrics()["miou"]}
    return {
        **quality,
        "macs": profile.macs,
        "params": profile.params,
        "bytes": len(_bytes(model)),
        "latency_ms": timed.median_ms,
        "latency_iqr_ms": timed.iqr_ms,
    }


def _bytes(model: nn.Module) -> bytes:
    return save_tensors({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()})
