"""Weights rounded so that the outputs of their layer change least, instead of each to the nearest.

Frantar and Alistarh, NeurIPS 2022, "Optimal Brain Compression", in the form of "GPTQ" (Frantar et al., ICLR 2023,
algorithm 1): the weights of all filters are rounded input by input, and those that are not yet rounded take over what
the error does to the outputs, as far as their inputs go together. What an output loses follows from the second moments
of the inputs, which are measured on images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rssearch.cost.int8_layers import Array, Layer, inputs_of

__all__ = ["round_by_output", "rounded_by_output"]

_INPUTS = 2304  # of a filter at most: of more the inverse takes a minute, and the errors of so many average out
_POSITIONS = 2048  # of the maps of a batch that are read, and at least two for each weight of a filter
_VALUES = 2**24  # that are unfolded at once
_BLOCK = 64
_DAMPING = 0.01  # of the mean second moment, as in GPTQ


def rounded_by_output(model: Any, layers: Sequence[Layer], images: Iterable[Tensor]) -> dict[str, Array]:
    """The weights of layers in whole steps, by the name of the constant, which layers may share.

    Args:
        model: the float32 ONNX model.
        layers: of the model. Two-dimensional convolutions and linear layers are rounded here; others are left out, as
            are those with filters of more than 2,304 weights.
        images: batches float32 [B, C, H, W], normalised, not augmented.
    """
    own = [layer for layer in layers if _is_read(layer)]
    moments: dict[str, Tensor] = {}
    for found in inputs_of(model, own, images):
        for layer in own:
            name, read = layer.rounded_name, torch.from_numpy(found[layer.node.input[0]])
            moments[name] = moments.get(name, torch.zeros(())) + _second_moments(layer, read)
    result: dict[str, Array] = {}
    for layer in {each.rounded_name: each for each in own}.values():
        groups, filters = _groups(layer), len(layer.weight)
        weight = torch.from_numpy(layer.weight.copy()).reshape(groups, filters // groups, -1)
        scale = torch.from_numpy(layer.scale.copy()).expand(filters).reshape(groups, -1)
        most = int(np.abs(layer.rounded).max())
        steps = round_by_output(weight, scale, moments[layer.rounded_name], most)
        result[layer.rounded_name] = steps.reshape(layer.weight.shape).numpy().astype(layer.rounded.dtype)
    return result


def round_by_output(weight: Tensor, scale: Tensor, moments: Tensor, most: int) -> Tensor:
    """Round the filters of one layer.

    Args:
        weight: [G, K, N]: K filters in each of G groups, of N weights.
        scale: [G, K], the step of each filter.
        moments: [G, N, N], the second moments of the inputs of a group.
        most: steps from 0 at most.

    Returns:
        Steps, whole numbers in float64 [G, K, N].
    """
    weight, scale, moments = weight.double(), scale.double(), moments.double()
    mean = moments.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    damped = moments + torch.where(mean > 0, _DAMPING * mean, 1.0) * torch.eye(weight.shape[2], dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor = torch.linalg.cholesky(inverse, upper=True)
    steps = torch.zeros_like(weight)
    rest = weight.clone()
    for start in range(0, weight.shape[2], _BLOCK):  # inputs behind a block take over its errors at once
        stop = min(start + _BLOCK, weight.shape[2])
        errors = torch.zeros_like(weight[..., start:stop])
        for n in range(start, stop):
            steps[..., n] = (rest[..., n] / scale).round().clamp(-most, most)
            error = errors[..., n - start] = (rest[..., n] - steps[..., n] * scale) / factor[:, n, n, None]
            rest[..., n:stop] -= error[..., None] * factor[:, n, n:stop].unsqueeze(1)
        rest[..., stop:] -= errors @ factor[:, start:stop, stop:]
    return steps


def _is_read(layer: Layer) -> bool:
    """Whether the weights are rounded here: filters along the first axis, with a scale each, that are not too long."""
    flat = layer.node.op_type == "Gemm" and _attribute(layer, "transB", 0) == 1
    filters = layer.node.op_type == "Conv" and layer.weight.ndim == 4 and _pads_are_given(layer)
    return (flat or filters) and layer.axis == 0 and layer.weight[0].size <= _INPUTS


def _groups(layer: Layer) -> int:
    return int(_attribute(layer, "group", 1))


def _second_moments(layer: Layer, read: Tensor) -> Tensor:
    """The sums of the products of what the weights of a filter are multiplied with: float64 [G, N, N]."""
    if layer.node.op_type == "Gemm":
        columns = read.double()
        return (columns.T @ columns)[None]
    top, left, bottom, right = _attribute(layer, "pads", [0, 0, 0, 0])
    read = functional.pad(read, (left, right, top, bottom))
    groups, inputs = _groups(layer), layer.weight[0].size
    size = max(1, _VALUES // (groups * inputs * read.shape[2] * read.shape[3]))
    found, generator = torch.zeros(groups, inputs, inputs, dtype=torch.float64), torch.Generator().manual_seed(0)
    for part in torch.split(read, size):
        columns = functional.unfold(
            part,
            tuple(layer.weight.shape[2:]),
            dilation=tuple(_attribute(layer, "dilations", [1, 1])),
            stride=tuple(_attribute(layer, "strides", [1, 1])),
        )
        number = max(1, min(columns.shape[2], max(_POSITIONS, 2 * inputs) // len(read)))
        drawn = torch.randperm(columns.shape[2], generator=generator)[:number]  # steps would meet one edge of the maps
        columns = columns[:, :, drawn].reshape(len(part), groups, inputs, -1)
        found += torch.einsum("bgnl,bgml->gnm", columns, columns)
    return found


def _pads_are_given(layer: Layer) -> bool:
    return bool(_attribute(layer, "auto_pad", b"NOTSET") == b"NOTSET")


def _attribute(layer: Layer, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in layer.node.attribute if each.name == name), default)
