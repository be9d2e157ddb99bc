"""Following channels through a network: it runs once, and every tensor says what its positions belong to.

Layers that compute channels give labels, operations couple and move them (`rules`). What has no rule is no reason to
give up: the channels that reach it stay whole, and the reason is told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd
from torch.overrides import TorchFunctionMode

from rssearch.cost.counting import output_tensors
from rssearch.models.resnet_cifar import IndexShortcut
from rssearch.pruning.atoms import Atoms
from rssearch.pruning.cost_table import Shapes, Side
from rssearch.pruning.labels import Call, Labels, along, name_of
from rssearch.pruning.rules import CREATE, IN_PLACE, RULES

_WEIGHTED = {f"conv{transposed}{d}d" for transposed in ("", "_transpose") for d in (1, 2, 3)} | {"linear"}
# What gives a number of Python, or as many values as the tensor happens to say.
_NUMBERS = {
    "bool",
    "int",
    "float",
    "complex",
    "index",
    "item",
    "tolist",
    "numpy",
    "array",
    "contains",
    "equal",
    "allclose",
}
_SIZED = {"nonzero", "argwhere", "unique", "unique_consecutive", "masked_select"}
_NORMS = {"batch_norm", "instance_norm"}

# Layers that work channel by channel and have no channels of their own; what they cost goes by the width.
_PASSING = (_AvgPoolNd, _AdaptiveAvgPoolNd, nn.Upsample, nn.PReLU)


class Follower(TorchFunctionMode):
    """Follows the channels of a network that runs inside this context.

    Layers are known by their parameters, so that it does not matter whether one is a subclass, holds a child, pads its
    input first or is called as a function.

    Args:
        model: the network.
        atoms: where channels are numbered and coupled; several runs may share one.

    Attributes:
        calls: for each layer that has channels, the shapes of what it read and wrote at each call.
        branches: whether the network's code read the values of a tensor, so that it may go another way for others.
    """

    def __init__(self, model: nn.Module, atoms: Atoms) -> None:
        super().__init__()
        self.atoms, self.labels = atoms, Labels(atoms)
        self.calls: dict[str, list[Shapes]] = defaultdict(list)
        self.branches = False
        self._names = {module: name for name, module in model.named_modules()}
        self._owners: dict[int, list[tuple[str, nn.Module, str]]] = defaultdict(list)
        for module, name in self._names.items():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for parameter, tensor in own:
                self._owners[id(tensor)].append((name, module, parameter))
        self._inside: list[nn.Module] = []
        self._opaque = 0  # how deep we are in layers whose operations are not looked at
        self._hooks: list[Any] = []

    def __enter__(self) -> Any:
        for module in self._names:
            self._hooks.append(module.register_forward_pre_hook(self._before))
            self._hooks.append(module.register_forward_hook(self._after))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        self.branches |= _reads_values(name := name_of(func), args, output)
        if not self._opaque:
            self._follow(Call(name, func, args, kwargs, output, self._caller()))
        return output

    def fix_output(self, output: Any) -> None:
        """The channels of the output of the network stay."""
        for tensor in output_tensors(output):
            self.labels.fix(tensor, "reaches the output of the network")

    def _caller(self) -> tuple[str, str, bool]:
        if not self._inside:
            return "", "", True
        module = self._inside[-1]
        return self._names[module], type(module).__name__, next(module.children(), None) is not None

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._inside.append(module)
        name, x = self._names[module], args[0] if args else None
        if isinstance(module, IndexShortcut) and isinstance(x, Tensor):
            self.atoms.add(name, "index", {"in": module.in_channels, "out": module.out_channels})
            self._link(name, "in", x, 1)
            self._opaque += 1
        elif _passes(module) and isinstance(x, Tensor) and x.dim() > 1:
            self._pass(name, x)

    def _pass(self, name: str, x: Tensor) -> None:
        self.atoms.add(name, "passing", {"both": x.shape[1]})
        if self.atoms.sizes[name, "both"] == x.shape[1]:
            self._link(name, "both", x, 1)
        else:  # its cost is no function of one width
            reason = f"passes through {name}, which is used for maps of different widths"
            self.atoms.fix(self.atoms.of(name, "both"), reason)
            self.labels.fix(x, reason)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._inside.pop()
        name = self._names[module]
        if isinstance(module, IndexShortcut):
            self._opaque -= 1
            self.labels.set(output, along(self.atoms.of(name, "out"), output.dim(), 1))
        if self.atoms.kinds.get(name) in {"index", "passing"}:
            self._record(name, args[0], output)

    def _record(self, name: str, x: Tensor, output: Tensor) -> None:
        self.calls[name].append((tuple(x.shape), tuple(output.shape)))

    def _link(self, layer: str, side: Side, x: Tensor, axis: int) -> None:
        """The channels along an axis of a tensor are those of one side of a layer."""
        labels = self.labels.get(x)
        if labels is None:
            return
        if any(size > 1 for i, size in enumerate(labels.shape) if i != axis % x.dim()):
            reason = f"is read by {layer} as positions, not as channels"
            self.atoms.fix(labels, reason)
            self.atoms.fix(self.atoms.of(layer, side), reason)
            return
        self.atoms.link(layer, side, np.broadcast_to(labels.ravel(), (self.atoms.sizes[layer, side],)))

    def _follow(self, call: Call) -> None:
        if call.name == "setitem":
            self.labels.stop(call)
        elif not call.outputs or call.name in CREATE:
            return
        elif call.name in _WEIGHTED:
            self._weighted(call)
        elif call.name in _NORMS:
            self._norm(call)
        elif call.name == "prelu":
            self._prelu(call)
        elif any(self.labels.get(tensor) is not None for tensor in call.tensors):
            rule = RULES.get(call.name)
            written = "out" in call.kwargs or (_writes(call) and call.name not in IN_PLACE)
            if rule is None or written:
                self.labels.stop(call)
                return
            try:
                rule(self.labels, call)
            except (ArithmeticError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                self.labels.stop(call)  # arguments that the rule does not know

    def _weighted(self, call: Call) -> None:
        """A convolution or a linear layer, or the function with a weight that is no layer's."""
        weight, bias = call.argument(1, "weight"), call.argument(2, "bias")
        owners = self._owners.get(id(weight), [])
        name, layer, parameter = owners[0] if owners else ("", None, "")
        if len(owners) > 1:
            names = " and ".join(owner for owner, *_ in owners)
            for owner, *_ in owners:
                self.atoms.keep_whole(owner, f"shares its weight: {names}")
            self.labels.stop(call, f"is read by {names}, which share a weight")
        elif isinstance(layer, _ConvNd | nn.Linear) and layer not in self._inside:
            self.atoms.keep_whole(name, "is called as a function")
            self.labels.stop(call, f"is read by {name}, which is called as a function")
        elif not isinstance(layer, _ConvNd | nn.Linear) or parameter != "weight" or not _is_own(call.name, layer):
            self.atoms.keep_whole(call.caller[0] or call.name, "has a weight that is computed or not a layer's")
            self.labels.stop(call, f"is read by {call.layer}, whose weight is computed or not a layer's")
        else:
            axis = -1
            if isinstance(layer, nn.Linear):
                self.atoms.add(name, "linear", {"in": layer.in_features, "out": layer.out_features})
            else:
                self.atoms.add(name, "conv", {"in": layer.in_channels, "out": layer.out_channels}, layer.groups)
                axis -= len(layer.kernel_size)
            (output,) = call.outputs
            self._record(name, call.x, output)
            self._link(name, "in", call.x, axis)
            out = self.atoms.of(name, "out")
            if bias is not None and bias is not layer.bias:
                self.atoms.fix(out, "has a bias that is computed or not its own")
            self.labels.set(output, along(out, output.dim(), axis))

    def _norm(self, call: Call) -> None:
        owners = [owner for tensor in call.tensors[1:] for owner in self._owners.get(id(tensor), [("", None, "")])]
        if not owners and self._inside:
            owners = [(self._names[self._inside[-1]], self._inside[-1], "")]
        layer = owners[0][1] if owners else None
        known = isinstance(layer, _BatchNorm | _InstanceNorm) and layer in self._inside
        if not known or any(owner[1] is not layer for owner in owners):
            self.labels.stop(call, f"passes through {call.layer}, whose parameters are computed or not a layer's")
        else:
            self._channelwise(call, owners[0][0], "norm")

    def _prelu(self, call: Call) -> None:
        weight = call.argument(1, "weight")
        owners = self._owners.get(id(weight), [])
        if weight.numel() == 1:
            self.labels.set(call.outputs[0], self.labels.get(call.x))
        elif len(owners) == 1 and isinstance(owners[0][1], nn.PReLU):
            self._channelwise(call, owners[0][0], "prelu")
        else:
            self.labels.stop(call)

    def _channelwise(self, call: Call, name: str, kind: str) -> None:
        """A layer with parameters for each channel (axis 1) that passes its channels on."""
        (output,) = call.outputs
        self.atoms.add(name, kind, {"both": call.x.shape[1]})
        self._record(name, call.x, output)
        self._link(name, "both", call.x, 1)
        self.labels.set(output, self.labels.get(call.x))


def _reads_values(name: str, args: tuple[Any, ...], output: Any) -> bool:
    """Whether what the code does next may depend on the values of a tensor."""
    if name == "getitem":
        return any(tensor.dtype == torch.bool for tensor in output_tensors(args[1:]))
    return name in _SIZED or (name in _NUMBERS and not isinstance(output, Tensor))


def _writes(call: Call) -> bool:
    """Whether an operation changes its first argument."""
    name = getattr(call.func, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _is_own(name: str, layer: nn.Module) -> bool:
    """Whether an operation is what a layer of its kind does."""
    if isinstance(layer, _ConvNd):
        return name == f"conv{'_transpose' if layer.transposed else ''}{len(layer.kernel_size)}d"
    return name == "linear"


def _passes(module: nn.Module) -> bool:
    return isinstance(module, _PASSING) and not (isinstance(module, nn.PReLU) and module.num_parameters > 1)
