"""How much of a GPU's memory a training takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Footprint:
    """What a trial took of a GPU, and what that GPU has: bytes."""

    taken: int
    memory: int


class DeviceMemory(Protocol):
    """What `measure` asks of a device; all are bytes."""

    def reset(self) -> None:
        """Forget the peak."""

    def peak(self) -> int:
        """The most that this process's allocator has held."""

    def held(self) -> int:
        """What it holds now."""

    def free(self) -> int:
        """What nobody holds."""

    def total(self) -> int:
        """What the device has."""


def measure(train: Callable[[], None], memory: DeviceMemory | None = None) -> Footprint:
    """The memory that a few steps of training take of a GPU that this process has for itself.

    It is the allocator's peak, which is above that of the tensors, and what CUDA takes beside: context, kernels and
    libraries, which every process has of its own.

    Args:
        train: takes a few steps.
        memory: of the device; None for that of the current GPU.
    """
    memory = memory or _Cuda()
    memory.reset()
    train()
    beside = memory.total() - memory.free() - memory.held()
    return Footprint(memory.peak() + max(0, beside), memory.total())


class _Cuda:
    """The current GPU."""

    def reset(self) -> None:
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        import torch

        return torch.cuda.max_memory_reserved()

    def held(self) -> int:
        import torch

        return torch.cuda.memory_reserved()

    def free(self) -> int:
        import torch

        return torch.cuda.mem_get_info()[0]

    def total(self) -> int:
        import torch

        return torch.cuda.mem_get_info()[1]
