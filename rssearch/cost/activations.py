"""The most memory that the maps of a network take at once, known without a device.

The network runs once, and each operation says what it reads and writes. A map takes memory from the operation that
writes it to the last one that reads it. This is the order in which a deployed graph runs, one operation after the
other, as onnxruntime does by default; it is not the memory of PyTorch's own run, which frees later.

* An operation that works value by value writes over an input that nothing reads any more. Batch normalisation is one of
  them: folded into a convolution it takes nothing either way.
* Views, reshapes and slices take nothing. What nobody reads, such as the places of a maximum, is never there.
* Weights are not counted (`weight_bytes` has them), nor what kernels need besides, such as a convolution's columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rssearch.device import mode
from rssearch.eager import spare_compiler

__all__ = ["Step", "peak_activation_bytes", "peak_of", "steps"]

_VALUE_BY_VALUE = ("batch_norm", "dropout")  # parts of names of operations; others say so by a tag


@dataclass(frozen=True)
class Step:
    """An operation.

    Attributes:
        reads: numbers of the maps that it reads; 0 is the input of the network.
        writes: number of each map that it makes -> its values.
        in_place: whether it may write over what it reads.
    """

    reads: frozenset[int]
    writes: dict[int, int]
    in_place: bool


def peak_activation_bytes(model: nn.Module, input_shape: Sequence[int], value_bytes: int = 4) -> int:
    """The most bytes that the maps of one image take at once.

    Args:
        model: the network; stays as it is.
        input_shape: of an image, (C, H, W).
        value_bytes: of one value: 4 of float32, 2 of float16, 1 of int8.
    """
    found, result = steps(model, input_shape)
    return value_bytes * peak_of(found, {0: int(torch.Size(input_shape).numel())}, result)


def steps(model: nn.Module, input_shape: Sequence[int]) -> tuple[list[Step], frozenset[int]]:
    """The operations of a network in the order in which they run, and the maps that are its result."""
    parameter = next(model.parameters(), None)
    x = torch.zeros(1, *input_shape, device=None if parameter is None else parameter.device)
    recorder = _Recorder(model, x)
    with mode(model, training=False), torch.no_grad(), recorder:
        result = model(x)
    return recorder.steps, frozenset(recorder.numbers(result))


def peak_of(steps: Sequence[Step], inputs: dict[int, int], result: frozenset[int]) -> int:
    """The most values that are there at once.

    Args:
        steps: in the order in which they run.
        inputs: maps that are there before -> their values.
        result: maps that stay.
    """
    last = {number: place for place, step in enumerate(steps) for number in step.reads}
    last |= dict.fromkeys(result, len(steps))
    there = dict(inputs)
    peak = sum(there.values())
    for place, step in enumerate(steps):
        wanted = {number: values for number, values in step.writes.items() if number in last}
        ending = {number for number in there if last.get(number, -1) <= place}
        over = sorted(there[number] for number in ending & step.reads) if step.in_place else []
        taken = 0
        for values in sorted(wanted.values()):
            if values in over:
                over.remove(values)
            else:
                taken += values
        peak = max(peak, sum(there.values()) + taken)
        there = {number: values for number, values in there.items() if number not in ending} | wanted
    return peak


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes note of the operations that run inside this context."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._kept: list[Tensor] = [x]  # so that no two maps have the same address
        self._numbers = {_address(x): 0}
        self._weights = {_address(t) for t in (*model.parameters(), *model.buffers())}

    def numbers(self, values: Any) -> Iterator[int]:
        """The numbers of the maps among some values."""
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor) and (number := self._numbers.get(_address(tensor))) is not None:
                yield number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = frozenset(self.numbers((args, kwargs or {})))
        result = func(*args, **(kwargs or {}))
        writes = {}
        for tensor in tree_leaves(result):
            if not isinstance(tensor, Tensor) or _address(tensor) in self._weights:
                continue
            if (address := _address(tensor)) not in self._numbers:
                self._kept.append(tensor)
                self._numbers[address] = len(self._numbers)
                writes[self._numbers[address]] = tensor.numel()
        name = getattr(func, "_opname", str(func))
        in_place = torch.Tag.pointwise in func.tags or any(part in name for part in _VALUE_BY_VALUE)
        self.steps.append(Step(reads, writes, in_place))
        return result


spare_compiler(_Recorder)


def _address(tensor: Tensor) -> int:
    """What tells storages apart: views of one share it."""
    return int(tensor.untyped_storage()._cdata)
