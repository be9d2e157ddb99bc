"""Batches that do not fit into memory: several micro-batches for each step, with the same effective batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rssearch.errors import OutOfMemory, TrialFailed
from rssearch.train import losses

LEAST = 2  # images: batch normalisation cannot train on one
_SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the memory of the GPU or of the machine did not suffice.

    PyTorch has a class for GPUs' allocator alone; its CPU allocator, cuBLAS and cuDNN raise a plain RuntimeError.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextmanager
def oom_context(batch_size: int, micro_batches: int) -> Iterator[None]:
    """Name what was too large where memory runs out.

    Raises:
        OutOfMemory: half as many images at a time may fit.
        TrialFailed: fewer images cannot be trained on.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        images = -(-batch_size // micro_batches)
        reason = f"out of memory with {images} images at a time"
        if batch_size < 2 * micro_batches * LEAST:
            raise TrialFailed(f"{reason} of the batch of {batch_size}, which cannot be halved further") from error
        raise OutOfMemory(reason) from error


def backward(loss_of: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, micro_batches: int) -> Tensor:
    """Add the gradients of a batch's mean loss to the parameters', one micro-batch after another.

    Each part counts by its labelled samples, so that loss and gradients are those of the whole batch but for rounding.
    Two things are the micro-batches' own: the statistics of batch normalisation, and the random numbers of dropout.

    Args:
        loss_of: the mean loss of images and labels.
        x: images [B, ...].
        y: labels [B] or masks [B, H, W].
        micro_batches: how many parts of nearly equal size; fewer where one would have a single image.

    Returns:
        The batch's mean loss, a scalar without a graph.
    """
    parts = max(1, min(micro_batches, len(x) // LEAST))
    if parts == 1:
        loss = loss_of(x, y)
        torch.autograd.backward(loss)
        return loss.detach()
    total, samples = torch.zeros((), device=x.device), losses.labelled(y)
    for images, labels in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
        share = loss_of(images, labels) * (losses.labelled(labels) / samples)
        torch.autograd.backward(share)
        total += share.detach()
    return total
