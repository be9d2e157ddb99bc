"""What operations do to the channels that pass through them. An operation that is not here stops them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rssearch.pruning.channels import Indices
from rssearch.pruning.labels import Call, Labels, along, compact, varying

Rule = Callable[[Labels, Call], None]

# Give tensors that belong to no channel, and read none: only shapes, if anything.
CREATE = frozenset({"new_zeros", "new_ones", "new_empty", "new_full", "new_tensor", "arange", "zeros", "ones", "full"})

_ELEMENTWISE = """
    relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh hardshrink softshrink
    tanhshrink sigmoid logsigmoid log_sigmoid tanh softplus softsign threshold rrelu dropout dropout1d dropout2d
    dropout3d alpha_dropout feature_dropout feature_alpha_dropout clamp clamp_min clamp_max clip abs absolute
    neg negative positive exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square pow float_power sin cos erf
    floor ceil round trunc sign reciprocal nan_to_num bernoulli isnan isinf isfinite add sub subtract mul
    multiply div divide truediv true_divide floordiv floor_divide rsub mod remainder fmod maximum minimum where
    lerp addcmul addcdiv masked_fill copy eq ne gt ge lt le greater less logical_and logical_or logical_not
    logical_xor and or xor invert
"""

_FACTORS = frozenset({"mul", "multiply", "div", "divide", "truediv", "true_divide"})

# The same tensor of another type or place, or another of its shape.
_SAME = """
    contiguous clone detach data float half double bfloat16 to type type_as cpu cuda requires_grad bool int long
    zeros_like ones_like empty_like full_like rand_like randn_like
"""


def _elementwise(labels: Labels, call: Call) -> None:
    tensors = call.tensors
    merged, shape, factor = labels.get(tensors[0]), tensors[0].shape, call.name in _FACTORS
    for before, tensor in pairwise(tensors):
        bare = isinstance(tensor, nn.Parameter) or isinstance(before, nn.Parameter)
        what = "is combined with " + ("a bare parameter" if bare else f"a tensor of fixed size in {call.place}")
        merged = labels.combine((merged, shape), (labels.get(tensor), tensor.shape), what, factor=factor)
        shape = torch.Size(np.broadcast_shapes(shape, tensor.shape))
    if merged is not None and any(output.dim() != merged.ndim for output in call.outputs):
        labels.stop(call)
        return
    for output in call.outputs:
        labels.set(output, merged)


def _same(labels: Labels, call: Call) -> None:
    for output in call.outputs:
        labels.set(output, labels.get(call.x))


def _permute(labels: Labels, call: Call) -> None:
    moved = call.func(labels.full(call.x), *call.args[1:], **_others(call))
    labels.set(call.outputs[0], compact(moved))


def _reshape(labels: Labels, call: Call) -> None:
    """Axes may be joined. One that is split becomes rows and columns, and rows lose the same columns.

    Whether the sizes were computed from the width or written down cannot be seen here; a cut on trial shows it.
    """
    before, y = labels.get(call.x), call.outputs[0]
    if before is None or y.numel() != call.x.numel():
        labels.stop(call)
        return
    after = compact(labels.full(call.x).reshape(y.shape))
    if len(varying(before)) > 2 or len(varying(after)) > 2:
        labels.stop(call)
        return
    if len(varying(after)) == 2 and len(varying(before)) == 1:
        labels.atoms.couple(after, np.broadcast_to(after.take([0], varying(after)[0]), after.shape))
        labels.atoms.guess(after, f"is split into axes in {call.place}")
    elif len(varying(after)) == 2 and [n for n in before.shape if n > 1] != [n for n in after.shape if n > 1]:
        labels.stop(call)
        return
    labels.set(y, after)


def _expand(labels: Labels, call: Call) -> None:
    before, y = labels.get(call.x), call.outputs[0]
    labels.set(y, None if before is None else before.reshape((1,) * (y.dim() - before.ndim) + before.shape))


def _repeat(labels: Labels, call: Call) -> None:
    repeated = call.func(labels.full(call.x), *call.args[1:], **_others(call))
    labels.set(call.outputs[0], compact(repeated))


def _others(call: Call) -> dict[str, Any]:
    return {key: value for key, value in call.kwargs.items() if key not in {"input", "self", "x"}}


def _cat(labels: Labels, call: Call) -> None:
    tensors = [tensor for tensor in call.x if tensor.numel()]
    fulls = [labels.full(tensor) for tensor in tensors]
    axis = call.argument(1, "dim", "axis") or 0
    if call.name == "stack":
        axis %= tensors[0].dim() + 1
        fulls = [full.unsqueeze(axis) for full in fulls]
    else:
        axis %= tensors[0].dim()
    parts = [compact(full) for full in fulls]
    if len(parts) > 1:
        labels.atoms.join(np.concatenate([part.ravel() for part in parts]), "a concatenation")
    if not any(other != axis for part in parts for other in varying(part)):
        lines = [np.broadcast_to(part.ravel(), full.shape[axis]) for part, full in zip(parts, fulls, strict=True)]
        labels.set(call.outputs[0], along(np.concatenate(lines), fulls[0].dim(), axis))
    elif any(part.shape[axis] > 1 for part in parts):
        labels.stop(call)
    else:  # joined along positions, or images: a channel is one in all of them
        what = f"is joined with a tensor of fixed size in {call.place}"
        shapes = [torch.Size([*full.shape[:axis], 1, *full.shape[axis + 1 :]]) for full in fulls]
        merged: Indices | None = parts[0]
        for part, shape in zip(parts[1:], shapes[1:], strict=True):
            merged = labels.combine((merged, shapes[0]), (part, shape), what)
        labels.set(call.outputs[0], merged)


def _getitem(labels: Labels, call: Call) -> None:
    x, index = call.args
    before = labels.get(x)
    if before is None or any(axis in varying(before) for axis in _indexed(x, index)):
        labels.stop(call)
        return
    for tensor in call.tensors[1:]:
        labels.fix(tensor, f"is an index in {call.place}")
    own = tuple(part.cpu() if isinstance(part, Tensor) else part for part in _parts(index))
    labels.set(call.outputs[0], compact(labels.full(x)[own]))


def _indexed(x: Tensor, index: Any) -> Iterable[int]:
    """The axes of which an index takes less than the whole."""
    widths = [_consumed(part) for part in _parts(index)]
    axis = 0
    for part, width in zip(_parts(index), widths, strict=True):
        if part is Ellipsis:
            axis += x.dim() - sum(widths)
        elif part is not None and not (
            isinstance(part, slice) and part.indices(x.shape[axis]) == (0, x.shape[axis], 1)
        ):
            yield from range(axis, axis + width)
        axis += width


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _consumed(part: Any) -> int:
    """How many axes one part of an index is for."""
    if part is None or part is Ellipsis:
        return 0
    return part.dim() if isinstance(part, Tensor) and part.dtype == torch.bool else 1


def _pieces(labels: Labels, call: Call) -> None:
    """Pieces of equal size along the channels lose the same channels."""
    before = labels.get(call.x)
    axis = _axis(call, call.argument(2, "dim", "axis"))
    outputs = call.outputs
    if before is None or axis not in varying(before):
        for output in outputs:
            labels.set(output, before)
    elif len(varying(before)) > 1 or len({output.shape[axis] for output in outputs}) > 1 or _listed(call):
        labels.stop(call)
    else:
        parts = np.split(before, len(outputs), axis)
        if call.name == "split":
            labels.atoms.guess(before, f"is split at a number in {call.place}")
        for part, output in zip(parts, outputs, strict=True):
            labels.atoms.couple(parts[0], part)
            labels.set(output, part)


def _listed(call: Call) -> bool:
    """Whether the sizes of pieces are written down one by one."""
    return isinstance(call.argument(1, "split_size_or_sections", "split_sizes", "indices_or_sections"), list | tuple)


def _axis(call: Call, axis: int | None, default: int = 0) -> int:
    given: int = (default if axis is None else axis) % call.x.dim()
    return given


def _glu(labels: Labels, call: Call) -> None:
    before = labels.get(call.x)
    axis = _axis(call, call.argument(1, "dim"), -1)
    if before is not None and axis in varying(before):
        one, other = np.split(before, 2, axis)
        labels.atoms.couple(one, other)
        before = one
    labels.set(call.outputs[0], before)


def _pixel_shuffle(labels: Labels, call: Call) -> None:
    """A channel of the output is a block of r^2 channels of the input, or the other way round."""
    before, block = labels.get(call.x), call.argument(1, "upscale_factor", "downscale_factor") ** 2
    axis = call.x.dim() - 3
    if before is None or varying(before) not in ([axis], []):
        labels.stop(call)
        return
    channels = np.broadcast_to(before.ravel(), (call.x.shape[axis],))
    if call.name == "pixel_shuffle":
        blocks = channels.reshape(-1, block)
        labels.atoms.couple(blocks, np.broadcast_to(blocks[:, :1], blocks.shape))
        channels = blocks[:, 0]
    else:
        channels = np.repeat(channels, block)
    labels.set(call.outputs[0], along(channels, call.x.dim(), axis))


def _channel_shuffle(labels: Labels, call: Call) -> None:
    before, groups = labels.get(call.x), call.argument(1, "groups")
    if before is None or varying(before) != [1]:
        labels.stop(call)
        return
    rows = before.reshape(groups, -1)
    labels.atoms.couple(rows, np.broadcast_to(rows[:1], rows.shape))
    labels.set(call.outputs[0], rows.T.reshape(before.shape))


def _reduce(labels: Labels, call: Call) -> None:
    before = labels.get(call.x)
    given = call.argument(2 if call.name in {"norm", "vector_norm", "linalg_vector_norm"} else 1, "dim", "axis")
    if isinstance(given, Tensor):  # the larger or smaller of two
        _elementwise(labels, call)
        return
    if before is None or given is None or isinstance(given, bool | float):
        labels.stop(call)
        return
    axes = {axis % call.x.dim() for axis in ([given] if isinstance(given, int) else given)} or {*range(call.x.dim())}
    if not axes.isdisjoint(varying(before)):
        labels.stop(call)
        return
    for output in call.outputs:
        labels.set(output, before if output.dim() == call.x.dim() else np.squeeze(before, tuple(axes)))


def _spatial(labels: Labels, call: Call) -> None:
    """Pooling and resizing work on the last axes, on each channel by itself."""
    before, last = labels.get(call.x), call.name.replace("_with_indices", "")[-2:]
    positions = int(last[0]) if last[0].isdigit() and last[1] == "d" else call.x.dim() - 2
    if before is None or any(axis >= call.x.dim() - positions for axis in varying(before)):
        labels.stop(call)
        return
    for tensor in call.tensors[1:]:
        if tensor is not call.x:
            labels.fix(tensor, f"passes through {call.place}")
    for output in call.outputs:
        labels.set(output, before)


def _pad(labels: Labels, call: Call) -> None:
    before, widths, mode = labels.get(call.x), call.argument(1, "pad"), call.argument(2, "mode") or "constant"
    padded = [call.x.dim() - 1 - i // 2 for i, width in enumerate(widths) if width]
    inside = [axis for axis in padded if before is not None and axis in varying(before)]
    if before is None or (inside and (mode != "constant" or any(width < 0 for width in widths))):
        labels.stop(call)
        return
    amounts = [width if call.x.dim() - 1 - i // 2 in inside else 0 for i, width in enumerate(widths)]
    labels.set(call.outputs[0], compact(torch.nn.functional.pad(labels.full(call.x), amounts)))


def _flip(labels: Labels, call: Call) -> None:
    labels.set(call.outputs[0], compact(call.func(labels.full(call.x), *call.args[1:], **_others(call))))


def _unbind(labels: Labels, call: Call) -> None:
    before, axis = labels.get(call.x), _axis(call, call.argument(1, "dim"))
    if before is None or axis in varying(before):
        labels.stop(call)
        return
    for output in call.outputs:
        labels.set(output, np.squeeze(before, axis))


# Whose results may be written into their first argument.
IN_PLACE = frozenset((_ELEMENTWISE + _SAME).split())


def _by_name(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_by_name(_elementwise, _ELEMENTWISE),
    **_by_name(_same, _SAME),
    **_by_name(_permute, "transpose permute swapaxes swapdims movedim moveaxis t T mT adjoint"),
    **_by_name(_reshape, "view reshape flatten unflatten view_as reshape_as squeeze unsqueeze"),
    **_by_name(_expand, "expand expand_as broadcast_to"),
    **_by_name(_repeat, "repeat tile repeat_interleave"),
    **_by_name(_cat, "cat concat concatenate stack"),
    **_by_name(_getitem, "getitem"),
    **_by_name(_pieces, "chunk split split_with_sizes tensor_split"),
    **_by_name(_unbind, "unbind"),
    **_by_name(_glu, "glu"),
    **_by_name(_pixel_shuffle, "pixel_shuffle pixel_unshuffle"),
    **_by_name(_channel_shuffle, "channel_shuffle native_channel_shuffle"),
    **_by_name(
        _reduce,
        "mean sum nansum nanmean amax amin max min std var prod norm vector_norm linalg_vector_norm logsumexp median "
        "all any argmax argmin var_mean std_mean",
    ),
    **_by_name(
        _spatial,
        "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
        "avg_pool1d avg_pool2d avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
        "adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d lp_pool1d lp_pool2d lp_pool3d "
        "fractional_max_pool2d fractional_max_pool3d interpolate upsample upsample_nearest upsample_bilinear "
        "grid_sample",
    ),
    **_by_name(_pad, "pad"),
    **_by_name(_flip, "flip fliplr flipud"),
}
