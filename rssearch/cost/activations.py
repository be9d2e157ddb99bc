"""What the activations of a network take of a device's memory, exactly: from its operators in their order.

Nothing is computed: the operators run on tensors without values (PyTorch's device ``meta``), one image at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rssearch.cost.counting import duplicate, output_tensors
from rssearch.eager import spare_compiler

__all__ = ["Program", "Step", "traced"]


@dataclass(frozen=True)
class Step:
    """An operator: numbers of the buffers that it reads, of those that it writes, and of those it may overwrite.

    Attributes:
        over: of `reads`: those in whose place its result may stand, if nothing reads them any more.
    """

    reads: frozenset[int]
    writes: tuple[int, ...]
    over: frozenset[int] = frozenset()


@dataclass
class Program:
    """A pass of one image: buffers of so many elements, and the operators in the order in which they run.

    Buffer 0 is the image. Three rules say what is a buffer:

    - A view (a flattened, sliced or transposed map) lies in the buffer of what it views, and so does the result of an
      operator that says it works in place (``relu_``).
    - An operator that works element by element (activations, additions, factors) and a batch normalisation in eval mode
      write over an input of the same size that nothing reads any more. The image is never overwritten.
    - What does not depend on the image is a constant, which belongs to the weights; what nobody reads is left out.

    So a normalisation and an activation behind a convolution take nothing, as in runtimes that fuse them. What a
    convolution needs while it runs (`im2col`, packed weights) depends on the runtime and is left out.

    Attributes:
        sizes: elements of each buffer.
        steps: the operators.
        outputs: buffers that are there at the end.
    """

    sizes: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: frozenset[int] = frozenset()

    def peak(self) -> int:
        """The most elements that are there at once: what an operator reads and writes, and what later ones read."""
        last = {number: index for index, step in enumerate(self.steps) for number in step.reads}
        last |= dict.fromkeys(self.outputs, len(self.steps))
        there, most = {0}, self.sizes[0]
        for index, step in enumerate(self.steps):
            done = {number for number in there if last.get(number, -1) <= index}
            free = sorted(step.over & done - {0}, key=lambda number: -self.sizes[number])
            replaced: set[int] = set()
            writes = [number for number in step.writes if number in last]  # else it is for a backward pass
            for written in writes:
                place = next((n for n in free if n not in replaced and self.sizes[n] == self.sizes[written]), None)
                replaced |= set() if place is None else {place}
            during = there - replaced | {*writes}
            most = max(most, sum(self.sizes[number] for number in during))
            there = {number for number in during if last.get(number, -1) > index}
        return most


def traced(model: nn.Module, input_shape: tuple[int, int, int]) -> Program:
    """The pass of one image through a network in eval mode.

    Args:
        model: from [1, C, H, W] to its output; it is left as it is, wherever it is.
        input_shape: (C, H, W).
    """
    twin = duplicate(model).eval()
    try:
        return _run(twin.to("meta"), input_shape)
    except (NotImplementedError, RuntimeError):  # its code looks at values, which tensors on meta do not have
        return _run(duplicate(model).cpu().eval(), input_shape)


def _run(model: nn.Module, shape: tuple[int, int, int]) -> Program:
    reference = next(model.parameters(), torch.empty(0))
    image = torch.zeros(1, *shape, device=reference.device, dtype=reference.dtype)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for a whole layer, which hides what is inside
    try:
        with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            tracer = _Tracer(image)
            with tracer:
                output = model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    tracer.program.outputs = frozenset(filter(None, map(tracer.buffer, output_tensors(output))))
    return tracer.program


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what runs inside this context; tensors are known by their storage."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.program = Program([image.numel()])
        self._held = [image]  # a storage that is gone would give its address to another
        self._numbers = {_address(image): 0}

    def buffer(self, tensor: Tensor) -> int | None:
        """The number of the buffer that a tensor lies in; None for weights and constants."""
        return self._numbers.get(_address(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        reads = {number: tensor for tensor in inputs if (number := self.buffer(tensor)) is not None}
        if reads:
            self._note(func, reads, [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)])
        return result

    def _note(self, func: Any, reads: dict[int, Tensor], results: list[Tensor]) -> None:
        is_norm = "batch_norm" in func.name()
        if is_norm:  # what it returns besides is for a backward pass
            results = results[:1]
        new = [result for result in results if result.numel() and self.buffer(result) is None]
        known = {_address(tensor) for tensor in reads.values()}
        if not new and all(_address(result) in known for result in results) and func.is_view:
            return  # a view: whoever reads it reads the buffer
        for result in new:
            self._numbers[_address(result)] = len(self.program.sizes)
            self.program.sizes.append(result.numel())
            self._held.append(result)
        over = [number for number, tensor in reads.items() if tensor.numel() == self.program.sizes[number]]
        free = frozenset(over if is_norm or torch.Tag.pointwise in func.tags else ())
        writes = tuple(self._numbers[_address(result)] for result in new)
        self.program.steps.append(Step(frozenset(reads), writes, free))


spare_compiler(_Tracer)


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
