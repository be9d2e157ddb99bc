"""From kept channels to a smaller network, and the description of it that rebuilds it.

A cut slices every parameter and buffer along the index maps of the channel graph. Which channels of each side of each
layer are kept is the *spec*: plain JSON, enough to give a fresh network of the same architecture the same shapes, so
that weights travel without pickles.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from rssearch.cost.counting import duplicate, output_tensors
from rssearch.errors import InputError
from rssearch.models.resnet_cifar import IndexShortcut
from rssearch.pruning.channels import ChannelGraph, Kept
from rssearch.pruning.cost_table import Side

SPEC_FORMAT = 1


def cut(model: nn.Module, graph: ChannelGraph, kept: Kept) -> tuple[nn.Module, dict[str, Any]]:
    """The network with only the kept channels, on the device and in the mode of `model`, which stays as it is.

    Afterwards both the cut network and `masked` are run on noise, and their outputs compared: an architecture whose
    channels were not followed rightly is refused, never silently damaged. That is the last of the checks, for these
    widths; noise of all kinds is for the cut on trial that a trace ends with, once for all cuts.

    Args:
        model: the network that `graph` was traced from (or one of the same architecture and widths).
        graph: its channel graph.
        kept: group -> channels to keep; groups that are not named stay whole.

    Returns:
        The smaller network and its spec.

    Raises:
        InputError: unknown groups or channels, a graph of another network, or an architecture that cannot be cut.
    """
    spec = make_spec(graph, kept)
    try:
        pruned = _prove(model, spec, graph)
    except InputError as error:
        what = f"{type(model).__name__} cannot be cut: its channels are combined in a way that was not understood"
        raise InputError(f"{what} ({error})") from error
    for whole, parameter in _still_shared(model, pruned):
        parameter.data = whole.detach().clone()
    return pruned, spec


def _still_shared(model: nn.Module, pruned: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """The parameters of a network that a copy reads the memory of, each with the copy's."""
    by_memory = {parameter.untyped_storage().data_ptr(): parameter for parameter in model.parameters()}
    memory = [(parameter.untyped_storage().data_ptr(), parameter) for parameter in pruned.parameters()]
    return [(by_memory[pointer], parameter) for pointer, parameter in memory if pointer in by_memory]


def try_cut(model: nn.Module, graph: ChannelGraph, kept: Kept, *, thorough: bool) -> nn.Module:
    """The same for a look at it: the smaller network shares what was not cut with the model.

    With `thorough` the noise is of all kinds, see `_prove`.

    Raises:
        InputError: it does not run, or does not give what the masked network gives.
    """
    return _prove(model, make_spec(graph, kept), graph, thorough=thorough)


def make_spec(graph: ChannelGraph, kept: Kept) -> dict[str, Any]:
    """The spec of a cut: ``{"format": 1, "layers": {layer: {"width": {side: full}, side: [kept channels]}}}``.

    Only layers that lose channels are listed. `side` is ``in``, ``out`` or ``both``.
    """
    left: dict[tuple[str, Side], npt.NDArray[np.bool_]] = {}
    for name, channels in graph.check(kept).items():
        group = graph.groups[name]
        gone = np.ones(group.width, bool)
        gone[list(channels)] = False
        for member in group.members if gone.any() else ():
            if member.kind == "passing":  # without parameters, so there is nothing to cut
                continue
            side = member.layer, member.side
            left.setdefault(side, np.ones(graph.sizes[side], bool))[member.index[gone].ravel()] = False
    layers: dict[str, Any] = {}
    for (layer, of_layer), stays in left.items():
        layers.setdefault(layer, {"width": {}})[of_layer] = np.flatnonzero(stays).tolist()
        layers[layer]["width"][of_layer] = len(stays)
    return {"format": SPEC_FORMAT, "layers": layers}


def compose(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The spec of two cuts one after the other: `second` was made on the network that `first` had cut."""
    layers = copy.deepcopy(first["layers"])
    for layer, sides in second["layers"].items():
        mine = layers.setdefault(layer, {"width": {}})
        for side, width in sides["width"].items():
            before = mine.get(side, range(width))
            mine[side] = [before[c] for c in sides[side]]
            mine["width"].setdefault(side, width)
    return {"format": SPEC_FORMAT, "layers": layers}


def kept_by(graph: ChannelGraph, spec: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The channels of each group that a spec keeps."""
    kept = {}
    for name, group in graph.groups.items():
        producer = group.producers[0]
        left = set(spec["layers"].get(producer.layer, {}).get("out", range(graph.sizes[producer.layer, "out"])))
        kept[name] = tuple(c for c, first in enumerate(producer.index[:, 0].tolist()) if first in left)
    return kept


def apply_spec(model: nn.Module, spec: dict[str, Any]) -> nn.Module:
    """Cut a fresh network of the same architecture to the widths of a spec, in place, and return it.

    Parameters keep the values of the kept channels; usually ``load_state_dict`` follows.

    Raises:
        InputError: a spec of another format, or of another architecture.
    """
    known = isinstance(spec, dict) and type(spec.get("format")) is int and spec["format"] == SPEC_FORMAT
    if not known or not isinstance(spec.get("layers"), dict):
        found = spec.get("format") if isinstance(spec, dict) else type(spec).__name__
        raise InputError(f"the spec has format {found!r}; this version reads format {SPEC_FORMAT}")
    modules = dict(model.named_modules())
    for name, sides in spec["layers"].items():
        if name not in modules:
            raise InputError(f"the spec names layer {name!r}, which {type(model).__name__} does not have")
        _check_sides(name, modules[name], sides)
    for name, sides in spec["layers"].items():
        slice_layer(modules[name], sides)
    return model


def slice_layer(layer: nn.Module, sides: Mapping[str, Any]) -> None:
    """Cut a layer, in place, to the channels that a spec says of it."""
    for side in ("out", "in", "both"):
        if side in sides:
            _slice(layer, side, sides[side])


def masked(model: nn.Module, graph: ChannelGraph, kept: Kept) -> nn.Module:
    """A copy of full size whose removed channels are zero where they are computed and unread where they are used.

    In eval mode its outputs are those of the cut network, up to rounding.
    """
    return _silence(duplicate(model), make_spec(graph, kept))


def _silence(model: nn.Module, spec: Mapping[str, Any]) -> nn.Module:
    """The same in place, but for parameters that are silenced: those are replaced, as others may share their memory."""
    with torch.no_grad():
        for name, sides in spec["layers"].items():
            layer = model.get_submodule(name)
            for parameter, value in layer.named_parameters(recurse=False):
                setattr(layer, parameter, nn.Parameter(value.clone(), value.requires_grad))
            if isinstance(layer, IndexShortcut):
                layer.index = layer.index.clone()
            for side, width in sides["width"].items():
                gone = torch.ones(width, dtype=torch.bool)
                gone[sides[side]] = False
                _zero(layer, side, gone.nonzero().ravel())
    return model


@contextmanager
def _silenced(model: nn.Module, spec: Mapping[str, Any]) -> Iterator[None]:
    """The same for a while."""
    layers = [model.get_submodule(name) for name in spec["layers"]]
    before = [
        (layer, [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]) for layer in layers
    ]
    _silence(model, spec)
    try:
        yield
    finally:
        for layer, tensors in before:
            for name, tensor in tensors:
                setattr(layer, name, tensor)


def zero_filters(model: nn.Module, graph: ChannelGraph, kept: Kept) -> None:
    """Set the filters of all channels that are not kept to zero, in place; they may grow again when trained.

    Only the weights and biases of the layers that compute the channels change, as in soft filter pruning (He et al.,
    IJCAI 2018): a normalisation set to zero as well would never let a filter come back.
    """
    with torch.no_grad():
        for name, channels in graph.check(kept).items():
            group = graph.groups[name]
            gone = sorted(set(range(group.width)) - set(channels))
            for member in group.producers if gone else ():
                index = torch.from_numpy(member.index[gone].ravel())
                _zero(model.get_submodule(member.layer), "out", index)


def _check_sides(name: str, layer: nn.Module, sides: Any) -> None:
    width = sides.get("width") if isinstance(sides, dict) else None
    if not isinstance(width, dict) or {*sides} - {"width"} != {*width} or not {*width} <= {"in", "out", "both"}:
        raise InputError(f"the spec of layer {name!r} must have `width`, and channels for each side that is in it")
    for side, size in width.items():
        has = _width(layer, side)
        if has != size or isinstance(size, bool):
            raise InputError(f"the spec is for a layer {name!r} with {size} channels ({side}), but it has {has}")
        channels = sides[side]
        whole = isinstance(channels, list) and {*map(type, channels)} <= {int}
        if not whole or not channels or sorted(set(channels)) != channels or channels[0] < 0 or channels[-1] >= size:
            raise InputError(f"the spec's channels of {name!r} ({side}) are not ascending indices below {size}")
        if isinstance(layer, _ConvNd) and layer.groups > 1:
            block = size // layer.groups
            if len(channels) != block * len({channel // block for channel in channels}):
                raise InputError(f"the spec's channels of {name!r} ({side}) are no whole blocks of {block}")


def _width(layer: nn.Module, side: str) -> int | None:
    """The channels of a side; None where the layer has no width of its own."""
    attribute = _width_attribute(layer, side)
    return None if attribute is None else int(getattr(layer, attribute))


def _width_attribute(layer: nn.Module, side: str) -> str | None:
    if isinstance(layer, nn.Linear):
        return f"{side}_features"
    if isinstance(layer, _ConvNd | IndexShortcut):
        return f"{side}_channels"
    if isinstance(layer, _NormBase):
        return "num_features"
    return "num_parameters" if isinstance(layer, nn.PReLU) else None


def parameter_axes(layer: nn.Module, side: str) -> dict[str, int]:
    """The parameters of a layer that are cut with one of its sides, each with the axis that holds the channels."""
    axes: dict[str, int] = {}
    if isinstance(layer, _ConvNd):
        if layer.groups == 1:
            axes["weight"] = int((side == "in") != layer.transposed)
        elif (side == "in") == layer.transposed:
            # Whole blocks go, inputs with outputs: the axis of the weight that holds the blocks is cut once.
            axes["weight"] = 0
    elif isinstance(layer, nn.Linear):
        axes["weight"] = int(side == "in")
    elif isinstance(layer, _NormBase | nn.PReLU):
        axes["weight"] = 0
    if side != "in":
        axes["bias"] = 0
    return {name: axis for name, axis in axes.items() if isinstance(getattr(layer, name, None), nn.Parameter)}


def _slice(layer: nn.Module, side: str, channels: list[int]) -> None:
    """Keep `channels` of one side of a layer."""
    index = torch.tensor(channels)
    for name, axis in parameter_axes(layer, side).items():
        setattr(layer, name, _keep(getattr(layer, name), index, axis))
    if isinstance(layer, IndexShortcut):
        _cut_map(layer, side, index.to(layer.index.device))
    elif isinstance(layer, _ConvNd) and layer.groups > 1 and side == "in":
        layer.groups = len(index) * layer.groups // layer.in_channels
    elif isinstance(layer, _NormBase):
        for name in ("running_mean", "running_var"):
            buffer = getattr(layer, name)
            if buffer is not None:
                setattr(layer, name, buffer.index_select(0, index.to(buffer.device)))
    attribute = _width_attribute(layer, side)
    if attribute is not None:
        setattr(layer, attribute, len(channels))


def _keep(parameter: Tensor, index: Tensor, axis: int) -> nn.Parameter:
    kept = parameter.detach().index_select(axis, index.to(parameter.device))
    return nn.Parameter(kept, requires_grad=parameter.requires_grad)


def _cut_map(layer: IndexShortcut, side: str, channels: Tensor) -> None:
    """Cut the index map of a shortcut; channels that are gone read the zero channel, which is the last."""
    if side == "out":
        layer.index = layer.index[channels]
        layer.scale = None if layer.scale is None else layer.scale[channels]
        return
    position = torch.full((layer.in_channels + 1,), len(channels), device=layer.index.device)
    position[channels] = torch.arange(len(channels), device=layer.index.device)
    layer.index = position[layer.index]


def _zero(layer: nn.Module, side: str, channels: Tensor) -> None:
    """Silence `channels` of one side of a layer."""
    if isinstance(layer, IndexShortcut):
        channels = channels.to(layer.index.device)
        silent = torch.isin(layer.index, channels)
        if side == "out":
            silent = torch.zeros_like(layer.index, dtype=torch.bool)
            silent[channels] = True
        layer.index[silent] = layer.in_channels
        return
    if isinstance(layer, _ConvNd) and layer.groups > 1 and side == "in":
        return  # its outputs are silenced block by block
    weight = getattr(layer, "weight", None)
    if weight is None:
        return
    channels = channels.to(weight.device)
    if isinstance(layer, _ConvNd) and layer.groups > 1 and layer.transposed:
        per_block = layer.out_channels // layer.groups  # the weight is [in, out / groups, ...]
        blocks = weight.unflatten(0, (layer.groups, -1))
        blocks[channels // per_block, :, channels % per_block] = 0
    else:
        transposed = isinstance(layer, _ConvNd) and layer.transposed
        axis = int((side == "in") != transposed) if side != "both" else 0
        weight.index_fill_(axis, channels, 0)
    bias = getattr(layer, "bias", None)
    if side != "in" and bias is not None:
        bias.index_fill_(0, channels.to(bias.device), 0)


class _DifferenceError(InputError):
    """Two networks give other outputs."""


def _prove(model: nn.Module, spec: dict[str, Any], graph: ChannelGraph, *, thorough: bool = False) -> nn.Module:
    """The network cut to a spec, after its outputs were compared with those of the silenced one, both in eval mode.

    What was not cut shares the memory of `model`. With `thorough` the noise that they are run on is of all kinds. Deep
    networks can blow up the rounding of single precision, so those that differ in it are asked again in double.

    Raises:
        InputError: it does not run, or differs by more than rounding.
    """
    pruned = duplicate(model, share=True)
    try:
        _cut_and_compare(pruned, spec, graph, thorough)
    except _DifferenceError:
        parameter = next(model.parameters())
        if parameter.dtype != torch.float32 or parameter.device.type not in ("cpu", "cuda"):
            raise
        _cut_and_compare(duplicate(model).double(), spec, graph, thorough)
    return pruned


def _cut_and_compare(model: nn.Module, spec: dict[str, Any], graph: ChannelGraph, thorough: bool) -> None:
    """The same in place, in the precision of the network."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with _silenced(model, spec), torch.no_grad():
            runs = _run(model, graph, thorough)
        apply_spec(model, spec)
        with torch.no_grad():
            for image, expected in runs:
                for one, other in zip(expected, output_tensors(model(image)), strict=True):
                    _check_same(one, other)
    except InputError:
        raise
    except Exception as error:  # the network's own code may raise anything
        raise InputError(f"after the cut it does not run: {str(error) or type(error).__name__}") from error
    finally:
        for module, training in modes:
            module.training = training


def _run(model: nn.Module, graph: ChannelGraph, thorough: bool) -> list[tuple[Tensor, list[Tensor]]]:
    """Images of noise, each with the outputs for it.

    Noise around zero; where that gives what is not finite (the logarithm of an image), in (0, 1) as well; if it is to
    be thorough, in (-1, 0) and around zero with four times the deviation, too.
    """
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    shape = (1, *graph.input_shape[1:])
    around, above = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)
    runs = []
    for noise in (around, above, -above, 4 * around):
        image = noise.to(parameter.device, parameter.dtype)
        runs.append((image, output_tensors(model(image.clone()))))
        if not thorough and (noise is above or all(bool(tensor.isfinite().all()) for tensor in runs[-1][1])):
            break
    return runs


def _check_same(expected: Tensor, found: Tensor) -> None:
    if expected.shape != found.shape:
        raise InputError(f"outputs of {tuple(expected.shape)} become {tuple(found.shape)}")
    if not expected.is_floating_point():  # labels, which rounding may change
        if float((expected != found).double().mean()) > 0.05:
            raise _DifferenceError("labels differ")
        return
    finite = expected[expected.isfinite()]
    scale = float(finite.abs().amax()) if finite.numel() else 0.0
    if not torch.allclose(found, expected, rtol=0, atol=1e-3 * scale + 1e-6, equal_nan=True):
        error = float((found - expected).abs().amax())
        raise _DifferenceError(f"outputs of up to {scale:.3g} differ by {error:.3g}")
