"""What a network costs: multiply-accumulates and parameters.

``macs`` is the count of thop, the counter behind most published pruning results; ``conv_linear_macs`` is the exact
count of the convolutions, linear layers and other matrix products alone. One MAC is one multiplication and one
addition; neither number is doubled.

thop knows layers by their exact type, and so takes a subclass (another padding, standardised or computed weights,
quantisation-aware training) for nothing. Here its rules hold for subclasses too, and convolutions and matrix products
are held against the operations that really run, by the formulas of `torch.utils.flop_counter`.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedBuffer, is_lazy
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rssearch.eager import spare_compiler
from rssearch.errors import InputError

_log = logging.getLogger(__name__)

# The convolutions and linear layers without code of their own.
PLAIN_LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)

# What thop's rules, or the layer's own, say of the products inside.
_WEIGHTED = (_ConvNd, nn.Linear, nn.RNNBase, nn.RNNCellBase)

# Operators that torch itself runs: what has no formula among them multiplies nothing, or next to nothing.
_OF_TORCH = {"aten", "prim", "prims", "profiler"}


@dataclass(frozen=True)
class Cost:
    """The cost of one image.

    Attributes:
        macs: as thop counts: conv and linear without bias, 4 per element of an affine BN, average pooling. A layer of a
            type that thop does not know counts as the known one that it is a kind of; convolutions and matrix products
            that no layer stands for (attention, functions called with a parameter) count as they are.
        params: all parameters, frozen or not.
        conv_linear_macs: multiply-accumulates of the convolutions, linear layers and matrix products, nothing else.
            Recurrent layers, and parametrizations that compute weights from weights, count nothing.
        counter: name and version of the counter behind `macs`.
        uncounted: operators of other libraries that nothing is known of, each with the module that calls it.
    """

    macs: int
    params: int
    conv_linear_macs: int
    counter: str
    uncounted: tuple[str, ...] = ()


class LayerCount(NamedTuple):
    """MACs of all calls of a layer: by thop's rule, and of its convolution or matrix product alone."""

    macs: int
    exact: int


@dataclass
class Counts:
    """What one pass of one image takes.

    Attributes:
        layers: by name: the layers that thop has a rule for.
        functional: by the module that calls them: MACs of convolutions and matrix products outside of these layers.
        params: all parameters.
        uncounted: see `Cost`.
    """

    layers: dict[str, LayerCount]
    functional: dict[str, int]
    params: int
    uncounted: tuple[str, ...]

    @property
    def macs(self) -> int:
        """See `Cost`."""
        return sum(layer.macs for layer in self.layers.values()) + sum(self.functional.values())

    @property
    def conv_linear_macs(self) -> int:
        """See `Cost`."""
        return sum(layer.exact for layer in self.layers.values()) + sum(self.functional.values())


def profile(model: nn.Module, input_size: tuple[int, int, int]) -> Cost:
    """Count the cost of one image; a warning names what cannot be counted.

    Args:
        model: a network that takes one batch of images; it is left as it is. On the device ``meta`` it is counted from
            shapes alone, without a computation.
        input_size: (C, H, W) of one image.
    """
    reference = next(model.parameters(), torch.empty(0))
    counts = count(model, torch.zeros(1, *input_size, device=reference.device, dtype=reference.dtype))
    warn_uncounted(model, counts)
    return Cost(counts.macs, counts.params, counts.conv_linear_macs, f"thop {version('thop')}", counts.uncounted)


def warn_uncounted(model: nn.Module, counts: Counts) -> None:
    """Say what the costs of a network leave out."""
    if counts.uncounted:
        shown = ", ".join(counts.uncounted[:5]) + (", ..." if len(counts.uncounted) > 5 else "")
        _log.warning("the MACs of %s do not count %s: their cost is not known", type(model).__name__, shown)


def count(model: nn.Module, image: Tensor, *, in_place: bool = False) -> Counts:
    """Count layer by layer, in eval mode on a copy.

    Args:
        model: a network that takes one batch of images.
        image: [1, C, H, W] on its device.
        in_place: run the network itself, which is in eval mode afterwards, and not a copy.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"{name or type(model).__name__} is TorchScript, whose layers cannot be counted")
    twin = (model if in_place else duplicate(model, share=True)).eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for a whole layer, without a formula
    try:
        with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            if any(is_lazy(parameter) for parameter in twin.parameters()):
                twin(image)  # which gives lazy layers their sizes and types
            counter = _Counter(twin)
            try:
                with counter:
                    twin(image)
            finally:
                counter.remove_hooks()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    params = sum(parameter.numel() for parameter in twin.parameters())
    layers = {name: LayerCount(int(macs), exact) for name, (macs, exact) in counter.layers.items()}
    return Counts(layers, dict(counter.functional), params, tuple(sorted(counter.uncounted)))


def duplicate(model: nn.Module, *, share: bool = False) -> nn.Module:
    """A deep copy, also of what torch does not copy.

    Weights that were computed from parameters (`torch.nn.utils.weight_norm`) are copied by value, buffers of lazy
    layers are made again without one.

    Args:
        model: the network.
        share: the copy has modules and buffers of its own, and its parameters are its own too, but read the memory of
            the model's: for copies that are only looked at. Copying the weights of a large network takes as long as
            running it.
    """
    copies: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                copies[id(value)] = value.detach().clone()
            elif type(value) in (dict, OrderedDict) and not value:
                copies[id(value)] = type(value)()  # a dozen a module, and `deepcopy` is slow at each
    copies |= {id(buffer): buffer.clone() for buffer in _plain_buffers(model)}
    for parameter in model.parameters() if share else ():
        if type(parameter) is nn.Parameter:
            copies[id(parameter)] = nn.Parameter(parameter.detach(), parameter.requires_grad)
    make: Any = UninitializedBuffer  # whose stub has other arguments than its code
    for buffer in model.buffers():
        if isinstance(buffer, UninitializedBuffer):
            copies[id(buffer)] = make(device=buffer.device, dtype=buffer.dtype)
    return copy.deepcopy(model, copies)


def _plain_buffers(model: nn.Module) -> list[Tensor]:
    """Buffers that can be cloned, which takes a fraction of the time of `deepcopy`: that have memory of their own."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if not is_lazy(tensor)]
    memory = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors)
    return [
        buffer
        for buffer in model.buffers()
        if type(buffer) is Tensor and not buffer.requires_grad and not vars(buffer)
        if memory[buffer.untyped_storage().data_ptr()] == 1
    ]


def macs_of_call(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """The multiply-accumulates of one call of a convolution (transposed or not) or linear layer, bias left out."""
    if isinstance(module, nn.Linear):
        return int(output.numel() * module.in_features)
    if not isinstance(module, _ConvNd):
        raise TypeError(f"{type(module).__name__} is neither a convolution nor a linear layer")
    positions = x.numel() // module.in_channels if module.transposed else output.numel() // module.out_channels
    macs: int = positions * module.weight.numel()
    return macs


def thop_rule(kind: type[nn.Module]) -> Callable[..., None] | None:
    """The rule of thop for a type or the nearest type above it, called as a forward hook; None without one."""
    if issubclass(kind, nn.Sequential):  # a container, of which thop only says so
        return None
    return next((_rules()[base] for base in kind.__mro__ if base in _rules()), None)


@cache
def _rules() -> dict[type, Callable[..., None]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # thop imports distutils
        from thop.profile import register_hooks

    return {**register_hooks, _ConvNd: register_hooks[nn.Conv2d], _NormBase: register_hooks[nn.BatchNorm2d]}


def is_layer(module: nn.Module) -> bool:
    """Whether a module computes by itself, even if it holds others (a normalisation with its activation inside)."""
    return not any(True for _ in module.children()) or thop_rule(type(module)) is not None


def output_tensors(value: Any) -> list[Tensor]:
    """The tensors in the output of a network: itself, or those in its tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        children: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        children = value
    else:  # an object that holds some, such as a dataclass
        held = {} if isinstance(value, type | nn.Module) or callable(value) else getattr(value, "__dict__", {})
        children = [child for child in held.values() if isinstance(child, Tensor | dict | list | tuple)]
    return [tensor for child in children for tensor in output_tensors(child)]


@contextmanager
def forward_hooks(model: nn.Module, which: Callable[[nn.Module], bool], hook: Callable[..., Any]) -> Iterator[None]:
    """Have `hook` called after the forward pass of each module that `which` accepts; removed at the end."""
    handles = [module.register_forward_hook(hook) for module in model.modules() if which(module)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Call:
    """A module that is running.

    Attributes:
        macs: of the convolutions and matrix products so far, those of modules inside left out.
        unknown: operators that nothing is known of.
    """

    name: str
    module: nn.Module
    macs: int = 0
    unknown: set[str] = field(default_factory=set)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs inside this context, and adds it up by the module that calls it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: dict[str, tuple[float, int]] = {}
        self.functional: defaultdict[str, int] = defaultdict(int)
        self.uncounted: set[str] = set()
        self._running = [_Call("", model)]
        self._hooks: list[Any] = []
        for name, module in model.named_modules():
            self._hooks.append(module.register_forward_pre_hook(self._enter(name), prepend=True))
            self._hooks.append(module.register_forward_hook(self._leave, with_kwargs=True))

    def remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", func)
        if packet not in flop_registry and isinstance(func, torch._ops.OpOverload):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if packet in flop_registry:
            self._running[-1].macs += flop_registry[packet](*args, **kwargs, out_val=result) // 2
        elif getattr(func, "namespace", "") not in _OF_TORCH:
            self._running[-1].unknown.add(str(func))
        return result

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: tuple[Any, ...]) -> None:
            self._running.append(_Call(name, module))

        return hook

    def _leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = self._running.pop()
        while call.module is not module:  # an error inside was caught by the network's own code
            call = self._running.pop()
        rule, label = thop_rule(type(module)), call.name or type(module).__name__
        inside = any(isinstance(outer.module, ParametrizationList) for outer in [*self._running, call])
        if rule is not None and not inside:
            found = _of_layer(call, rule, args or tuple(kwargs.values()), output)
            before = self.layers.get(call.name, (0, 0))
            self.layers[call.name] = before[0] + found[0], before[1] + found[1]
        if not inside and (rule is None or not isinstance(module, _WEIGHTED)):
            if call.macs:
                self.functional[label] += call.macs
            if rule is None:
                self.uncounted |= {f"{operator} in {label}" for operator in call.unknown}


spare_compiler(_Counter)


def _of_layer(call: _Call, rule: Callable[..., None], inputs: tuple[Any, ...], output: Any) -> tuple[float, int]:
    """MACs of one call of a layer: by thop's rule, and exactly."""
    module, x, y = call.module, output_tensors(list(inputs))[:1], output_tensors(output)[:1]
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):  # whose rules read states, and count them
        return _by_rule(module, rule, inputs, output), 0
    by_rule = _by_rule(module, rule, tuple(x), y[0]) if x and y else 0
    if not isinstance(module, _WEIGHTED):
        return by_rule, 0
    usual = macs_of_call(module, x[0], y[0]) if x and y else 0
    # A layer with code of its own may convolve more than once, or resize what it convolves.
    return (by_rule, usual) if call.macs in (0, usual) else (call.macs, call.macs)


def _by_rule(module: nn.Module, rule: Callable[..., None], inputs: tuple[Any, ...], output: Any) -> float:
    tally = _Tally(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thop warns of its own functions
        rule(tally, inputs, output)
    return float(tally.total_ops)


class _Tally:
    """Stands for a module in a rule of thop, which adds to an attribute of it."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.total_ops: Any = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
