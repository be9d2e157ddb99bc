"""How a network is run: device, memory layout, precision, mode, and random numbers of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Precision = Literal["auto", "fp32", "bf16"]


def pick_device() -> torch.device:
    """The GPU that this process may use, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def place(model: nn.Module, device: torch.device, input_shape: Sequence[int]) -> nn.Module:
    """Move a model to the device, in the memory layout that convolutions are fast with (channels last).

    A network that flattens maps by `view` cannot run in it, and keeps PyTorch's default.

    Args:
        model: moved in place.
        device: where to.
        input_shape: of one image, (C, H, W).
    """
    model.to(device).to(memory_format=torch.channels_last)
    if not _runs(model, torch.zeros(1, *input_shape, device=device)):
        model.to(memory_format=torch.contiguous_format)
    return model


def _runs(model: nn.Module, x: Tensor) -> bool:
    with mode(model, training=False), torch.no_grad():
        try:
            model(to_memory_format(x, model))
        except RuntimeError as error:
            return "view size is not compatible" not in str(error)  # anything else the training will tell
    return True


def to_memory_format(x: Tensor, model: nn.Module) -> Tensor:
    """Images in the same layout as the model."""
    weights = (p for p in model.parameters() if p.dim() == 4 and not p.is_contiguous())
    last = any(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Mixed precision: bfloat16 if asked for, and on GPUs for ``auto``."""
    bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put every module into one mode, and each back into its own at the end."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Deterministic convolutions, and random numbers that the caller does not notice."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def seed_epoch(seed: int, epoch: int, device: torch.device, rank: int = 0) -> None:
    """Seed the generators that dropout uses, those of this device alone; workers of one training draw differently."""
    entropy = (seed, epoch, rank) if rank else (seed, epoch)
    number = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
