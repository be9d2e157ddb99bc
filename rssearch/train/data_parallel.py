"""One trial on several workers: each trains on its share of every batch, and all keep the same weights.

The first worker is the main one: it runs the trial as if it were alone, and keeps its checkpoints, scores and metrics.
The others wait until it trains, and then take the same steps with it. Gradients are those of the whole batch, added up
over the workers; batch normalisation measures the whole batch, too. So a network without dropout learns the same on any
number of workers but for rounding. Each worker draws dropout for itself.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rssearch.data import IGNORE
from rssearch.errors import InputError, PeerLostError

Job = tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]  # function, config, and what else it takes


class WorkerGroup:
    """Who trains a network together. By itself a worker alone, who has to agree with nobody.

    Attributes:
        rank: the number of this worker; 0 is the main one.
        size: how many there are.
    """

    rank, size = 0, 1

    @property
    def is_main(self) -> bool:
        """Whether this worker runs the trial."""
        return self.rank == 0

    def call(self, function: Callable[..., Any], config: dict[str, Any], **more: Any) -> None:
        """Have the other workers call an importable function (config, session, ...); the main one calls it itself."""

    def broadcast(self, model: nn.Module) -> None:
        """Take over the main worker's weights and buffers."""

    def loss_weight(self, targets: Tensor) -> Tensor | float:  # noqa: ARG002
        """The share of this worker's labelled samples in those of all: what its mean loss counts in the batch's."""
        return 1.0

    def all_reduce(self, model: nn.Module, loss: Tensor) -> Tensor:  # noqa: ARG002
        """Replace the gradients by their sums over the workers, and give the sum of the losses, a scalar."""
        return loss

    @contextmanager
    def synchronised_batch_norm(self, model: nn.Module) -> Iterator[None]:  # noqa: ARG002
        """Let batch normalisation measure whole batches, not a share of them; the modules are put back at the end."""
        yield


ALONE = WorkerGroup()


class DistributedWorkerGroup(WorkerGroup):
    """Several workers, as one of them sees them. PyTorch's default process group connects them."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    # What the main worker tells the others

    def call(self, function: Callable[..., Any], config: dict[str, Any], **more: Any) -> None:  # noqa: D102
        if self.is_main:
            self._tell((function, config, more))

    def close(self) -> None:
        """Let the other workers go: the trial has ended."""
        self._tell(None)

    def jobs(self) -> Iterator[Job]:
        """What the main worker calls, one after the other, until it lets this worker go."""
        while (job := self._tell(None)) is not None:
            yield job

    def _tell(self, job: Job | None) -> Job | None:
        buffer = io.BytesIO()
        if self.is_main:
            torch.save(job, buffer)
        sent = [buffer.getvalue()]
        with _together():
            dist.broadcast_object_list(sent, src=0, device=torch.device("cpu"))
        if self.is_main:
            return job
        # Networks of the main worker's GPU arrive on the CPU. They are pickled, by this trial's own main worker.
        heard: Job | None = torch.load(io.BytesIO(sent[0]), map_location="cpu", weights_only=False)
        return heard

    # What all do in each step and epoch

    def broadcast(self, model: nn.Module) -> None:  # noqa: D102
        for tensor in model.state_dict().values():
            whole = tensor.contiguous()
            with _together():
                dist.broadcast(whole, src=0)
            tensor.copy_(whole)

    def loss_weight(self, targets: Tensor) -> Tensor:  # noqa: D102
        if targets.dim() == 1 or targets.is_floating_point():
            own = torch.tensor(float(len(targets)), device=targets.device)
        else:
            own = (targets != IGNORE).sum().float()
        return own / self.total(own).clamp_min(1)

    def all_reduce(self, model: nn.Module, loss: Tensor) -> Tensor:  # noqa: D102
        # One message for all of them: networks of this size are sent within a fraction of a step.
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        total = self.total(torch.cat([*(g.reshape(-1) for g in gradients), loss.detach().reshape(1)]))
        parts = torch.split(total[:-1], [g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))
        return total[-1].clone()

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the workers: the same bits on each of them."""
        summed = values.clone()
        with _together():
            dist.all_reduce(summed)
        return summed

    @contextmanager
    def synchronised_batch_norm(self, model: nn.Module) -> Iterator[None]:  # noqa: D102
        found = [
            (parent, name, norm)
            for parent in model.modules()
            for name, norm in parent.named_children()
            if isinstance(norm, _BatchNorm)
        ]
        for parent, name, norm in found:
            setattr(parent, name, self._whole(norm))
        try:
            yield
        finally:
            for parent, name, norm in found:
                setattr(parent, name, norm)

    def _whole(self, norm: _BatchNorm) -> nn.Module:
        behind = _behind(norm)
        if next(norm.buffers(), torch.empty(0)).is_cuda:
            whole: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
        else:
            whole = _WholeBatchNorm(norm, self)
        return nn.Sequential(whole, *behind) if behind else whole


def _behind(norm: _BatchNorm) -> list[nn.Module]:
    """What a layer does behind its normalisation: timm's holds its dropout and its activation.

    Raises:
        InputError: it has code of its own that is not known.
    """
    if type(norm).forward is _BatchNorm.forward:
        return []
    if [name for name, _ in norm.named_children()] == ["drop", "act"]:
        return list(norm.children())
    raise InputError(
        f"{type(norm).__name__} is a batch normalisation with code of its own, which several workers cannot share: "
        "set resources.workers to 1"
    )


class _WholeBatchNorm(nn.Module):
    """What `torch.nn.SyncBatchNorm` does on GPUs alone: a normalisation by mean and variance of all workers' images."""

    def __init__(self, norm: _BatchNorm, worker_group: DistributedWorkerGroup) -> None:
        super().__init__()
        self.norm, self.worker_group = norm, worker_group

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, ...], B the images of this worker."""
        norm = self.norm
        others, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        values = x.float()
        count = self.worker_group.total(torch.tensor(x.numel() / x.shape[1], device=x.device))
        mean: Tensor = _Sum.apply(values.sum(others), self.worker_group) / count
        centred = values - mean.view(shape)
        variance: Tensor = _Sum.apply(centred.square().sum(others), self.worker_group) / count
        if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            step = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean.detach(), step)
            norm.running_var.lerp_(variance.detach() * (count / (count - 1)), step)
        result = centred * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            result = result * norm.weight.view(shape) + norm.bias.view(shape)
        return result.to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over the workers. Each has its part of the loss, so gradients add up likewise."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, worker_group: DistributedWorkerGroup) -> Tensor:
        ctx.worker_group = worker_group
        return worker_group.total(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.worker_group.total(gradient), None


@contextmanager
def _together() -> Iterator[None]:
    """Say so where another worker is gone: gloo and NCCL raise a plain RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(f"another worker of the trial is gone: {str(error).splitlines()[0]}") from error
