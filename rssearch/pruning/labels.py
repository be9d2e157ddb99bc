"""What the positions of a tensor belong to, while the channels of a network are followed.

The *labels* of a tensor are an array of integers with as many axes as the tensor: which channel of `Atoms` each
position belongs to, 0 for none. They are compact: along an axis where they are all the same, their size is 1. So the
labels of feature maps [1, C, H, W] are [1, C, 1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rssearch.cost.counting import output_tensors
from rssearch.pruning.atoms import NONE, Atoms
from rssearch.pruning.channels import Indices

Labelled = tuple[Indices | None, torch.Size]  # labels and shape of a tensor

_ATTRIBUTE = "_rssearch_labels"


@dataclass(frozen=True)
class Call:
    """One call of an operation.

    Attributes:
        name: without underscores, see `name_of`.
        func: what was called.
        args: its arguments.
        kwargs: its keyword arguments.
        output: what it returned.
        caller: name and kind of the module that called it, and whether it has children.
    """

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    caller: tuple[str, str, bool]

    def argument(self, position: int, *names: str) -> Any:
        """An argument by position or name; None if it was not given."""
        if len(self.args) > position:
            return self.args[position]
        return next((self.kwargs[name] for name in names if name in self.kwargs), None)

    @property
    def x(self) -> Any:
        """The first argument."""
        return self.argument(0, "input", "self", "tensors", "x")

    @property
    def place(self) -> str:
        """Where the network is, for reasons: the layer, or the operation and the module that it stands in."""
        name, kind, has_children = self.caller
        if not name:
            return self.name
        return f"{self.name} in {name} ({kind})" if has_children else f"{name} ({kind})"

    @property
    def layer(self) -> str:
        """The module that the operation stands in, for reasons."""
        name, kind, _ = self.caller
        return f"{name} ({kind})" if name else self.name

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return output_tensors([*self.args, *self.kwargs.values()])

    @property
    def outputs(self) -> list[Tensor]:
        """The tensors of the output."""
        return output_tensors(self.output)


class Labels:
    """The labels of tensors, kept as an attribute of each.

    Args:
        atoms: the channels, and which of them are coupled or must stay.
    """

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms

    def get(self, tensor: Any) -> Indices | None:
        """The labels of a tensor; None if no position of it belongs to a channel."""
        labels: Indices | None = getattr(tensor, _ATTRIBUTE, None)
        return labels

    def set(self, tensor: Tensor, labels: Indices | None) -> None:
        """Give a tensor its labels, or take them away."""
        if labels is not None and labels.any():
            setattr(tensor, _ATTRIBUTE, labels)
        elif hasattr(tensor, _ATTRIBUTE):
            delattr(tensor, _ATTRIBUTE)

    def full(self, tensor: Tensor) -> Tensor:
        """The label of every position of a tensor [its shape], as a view."""
        labels = self.get(tensor)
        compact = torch.zeros((1,) * tensor.dim(), dtype=torch.int64) if labels is None else torch.from_numpy(labels)
        return compact.expand(tensor.shape)

    def fix(self, tensor: Any, reason: str) -> None:
        """The channels in a tensor must stay."""
        labels = self.get(tensor)
        if labels is not None:
            self.atoms.fix(labels, reason)

    def stop(self, call: Call, reason: str | None = None) -> None:
        """What reaches an operation without a rule stays whole; what comes out of it belongs to no channel."""
        for tensor in call.tensors:
            self.fix(tensor, reason or f"passes through {call.place}")
        for tensor in call.outputs:
            self.set(tensor, None)

    def combine(self, one: Labelled, other: Labelled, what: str, *, factor: bool = False) -> Indices | None:
        """The labels of an elementwise operation on two tensors, whose channels are coupled.

        Where one of them is the same for all channels of the other (a map of one channel, a factor), the other's
        channels can be removed without it.

        Args:
            one: labels and shape.
            other: labels and shape.
            what: the reason of channels that are combined with something of their number that cannot be cut.
            factor: whether they are multiplied, which joins them no more than an activation does.
        """
        dims = max(len(one[1]), len(other[1]))
        (a, shape_a), (b, shape_b) = (_aligned(labels, shape, dims) for labels, shape in (one, other))
        apart = False
        for x, y, shape_y in ((a, b, shape_b), (b, a, shape_a)):
            for axis in range(dims):
                if x.shape[axis] > 1 and y.shape[axis] == 1:
                    apart = True
                    self.atoms.fix(y, "is combined with several channels at once")
                    if shape_y[axis] > 1:
                        self.atoms.fix(x, what)
        if apart:
            return a if len(varying(a)) >= len(varying(b)) and a.any() else b
        a, b = np.broadcast_arrays(a, b)
        for x, y in ((a, b), (b, a)):
            self.atoms.fix(x[y == NONE] if len(varying(x)) else x[:0], what)
        self.atoms.couple(a, b)
        differ = (a != b) & (a != NONE) & (b != NONE)
        if factor:
            self.atoms.multiply(a[differ], b[differ])
        else:
            self.atoms.join(np.concatenate([a[differ], b[differ]]), "an addition")
        return np.where(a == NONE, b, a)


def _aligned(labels: Indices | None, shape: torch.Size, dims: int) -> tuple[Indices, tuple[int, ...]]:
    """Labels and shape with so many axes, new ones in front as in broadcasting."""
    labels = np.zeros((1,) * len(shape), np.int64) if labels is None else labels
    new = (1,) * (dims - len(shape))
    return labels.reshape(new + labels.shape), new + tuple(shape)


def compact(full: Tensor) -> Indices:
    """Labels of every position, without the axes along which they are the same."""
    for axis in range(full.dim()):
        if full.shape[axis] > 1 and full.stride(axis) == 0:
            full = full.narrow(axis, 0, 1)
    for axis in range(full.dim()):
        if full.shape[axis] > 1 and torch.equal(full.narrow(axis, 0, 1).expand(full.shape), full):
            full = full.narrow(axis, 0, 1)
    labels: Indices = full.contiguous().numpy()
    return labels


def varying(labels: Indices) -> list[int]:
    """The axes along which labels differ."""
    return [axis for axis, size in enumerate(labels.shape) if size > 1]


def along(channels: Indices, dims: int, axis: int) -> Indices:
    """Labels of a tensor with so many axes whose channels lie along one of them."""
    shape = [1] * dims
    shape[axis] = len(channels)
    return channels.reshape(shape)


def name_of(func: Callable[..., Any]) -> str:
    """What an operation is called, whether function, method, operator, in place or a property."""
    name: str = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        if name[:1] in {"i", "r"} and name[1:] in _OPERATORS:
            name = name[1:]
    return name.strip("_")


_OPERATORS = {"add", "sub", "mul", "div", "truediv", "floordiv", "pow", "mod", "and", "or", "xor", "matmul"}
