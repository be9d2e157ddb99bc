"""Which positions a cascade of dilated convolutions reaches, and the cascades that leave no holes.

A 3x3 convolution of dilation r adds -r, 0 or r to the row and to the column, independently. So everything here is about
one axis: the rates r_1, ..., r_n reach the offsets ``sum d_i r_i`` with d_i in {-1, 0, 1}, in a receptive field of
``1 + 2 sum r_i``. Equal rates above 1 reach a grid with holes. Micro-Net asks for rates without a common divisor
(section 2.2.2), which is necessary but not sufficient: (2, 3) reaches 9 of 11 positions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rssearch.errors import InputError, unknown

Criterion = Literal["dense", "gcd", "any"]


def reachable_offsets(rates: Sequence[int]) -> list[int]:
    """The offsets from the centre that a cascade reaches, ascending. Raises InputError for rates below 1 or none."""
    reached = {0}
    for rate in _checked(rates):
        reached = {offset + step for offset in reached for step in (-rate, 0, rate)}
    return sorted(reached)


def receptive_field(rates: Sequence[int]) -> int:
    """Pixels from the first to the last that a cascade reaches. Raises InputError for rates below 1 or none."""
    return 1 + 2 * sum(_checked(rates))


def coverage(rates: Sequence[int]) -> float:
    """The share of the receptive field that a cascade reaches, in (0, 1]."""
    return len(reachable_offsets(rates)) / receptive_field(rates)


def neighbour_overlap(rates: Sequence[int]) -> int:
    """How many of the positions that one output reaches are reached by the output next to it too."""
    reached = set(reachable_offsets(rates))
    return len(reached & {offset + 1 for offset in reached})


def is_dense(rates: Sequence[int]) -> bool:
    """Whether a cascade reaches its whole receptive field; the order of the rates does not matter.

    It does exactly if each rate, in ascending order, is at most 1 + twice the sum of those before it: these reach an
    interval of that length, and three copies of it, shifted by -r, 0 and r, make one again.
    """
    reached = 1
    for rate in sorted(_checked(rates)):
        if rate > reached:
            return False
        reached += 2 * rate
    return True


def cascades(length: int, largest: int, *, criterion: Criterion = "dense") -> Iterator[tuple[int, ...]]:
    """All cascades of `length` rates in 1..`largest`, each in ascending order.

    Args:
        length: how many rates.
        largest: of the rates.
        criterion: ``"dense"`` for those without holes, ``"gcd"`` for those without a common divisor (Micro-Net, section
            2.2.2), ``"any"`` for all.

    Raises:
        InputError: numbers below 1, or an unknown criterion.
    """
    for name, value in (("length", length), ("largest", largest)):
        if value < 1:
            raise InputError(f"{name} is {value}, but must be at least 1")
    if criterion not in get_args(Criterion):
        raise unknown("criterion of cascades", criterion, get_args(Criterion))
    every = combinations_with_replacement(range(1, largest + 1), length)
    return (cascade for cascade in every if fulfils(cascade, criterion))


def fulfils(rates: Sequence[int], criterion: Criterion) -> bool:
    """Whether a cascade meets a criterion of `cascades`."""
    match criterion:
        case "dense":
            return is_dense(rates)
        case "gcd":
            return math.gcd(*rates) == 1
        case "any":
            return True


def encoder_decoder_field(encoder: Sequence[Sequence[int]], decoder: Sequence[Sequence[int]]) -> int:
    """The receptive field in pixels of an `rssearch.models.unet.EncoderDecoder`, the largest of all positions.

    Followed backwards from an output: a 3x3 convolution of rate r widens an interval by r on either side, a transposed
    convolution reads one position for two, and a pooling two for one.

    Args:
        encoder: a cascade for each level, from the top, as in `rssearch.models.unet.Design`.
        decoder: likewise.
    """
    levels = len(encoder)

    def width(place: int) -> int:
        first = last = place
        for level, rates in enumerate(decoder):
            first, last = first - sum(rates), last + sum(rates)
            if level < levels - 1:
                first, last = first // 2, last // 2
        for level, rates in reversed(list(enumerate(encoder))):
            first, last = first - sum(rates), last + sum(rates)
            if level:
                first, last = 2 * first, 2 * last + 1
        return last - first + 1

    return max(width(place) for place in range(2 ** (levels - 1)))


@dataclass(frozen=True)
class Field:
    """The pixels that an output of a network depends on.

    Attributes:
        height: of the smallest rectangle around them.
        width: of the same.
        dense: whether all pixels in it are among them.
    """

    height: int
    width: int
    dense: bool


def model_receptive_field(model: nn.Module, size: int, *, in_channels: int = 3, stride: int = 4) -> list[Field]:
    """The receptive field of a whole network, at neighbouring outputs, as gradients show it.

    In a copy, all weights are positive and max-pooling is averaging, so that no gradients cancel and none is blocked: a
    pixel belongs to the field exactly if its gradient is not zero.

    Args:
        model: a network of convolutions, batch normalisation, ReLU, pooling, additions and concatenations that maps
            images to maps of the same size.
        size: height and width of an image; the field must fit inside.
        in_channels: bands of the images.
        stride: how many outputs are looked at, on the diagonal from the centre. Pooling makes the field depend on the
            position, with a period that is the product of the strides.

    Returns:
        The field of each of the outputs.

    Raises:
        InputError: a field that reaches the border of the image.
    """
    twin = _positive(model)
    image = torch.ones(1, in_channels, size, size, dtype=torch.float64, requires_grad=True)
    logits: Tensor = twin(image).sum(1)
    fields = []
    for place in range(size // 2, size // 2 + stride):
        (gradient,) = torch.autograd.grad(logits[0, place, place], [image], retain_graph=True)
        inside = gradient[0].sum(0) > 0
        rows, columns = (inside.any(axis).nonzero().ravel() for axis in (1, 0))
        (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
        if min(top, left) == 0 or max(bottom, right) == size - 1:
            raise InputError(f"the receptive field is not inside an image of {size} pixels: give a larger size")
        dense = bool(inside[top : bottom + 1, left : right + 1].all())
        fields.append(Field(bottom - top + 1, right - left + 1, dense))
    return fields


def _positive(model: nn.Module) -> nn.Module:
    """A copy in float64 whose layers are averages of what they read."""
    twin = copy.deepcopy(model).to("cpu", torch.float64).eval().requires_grad_(False)
    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            parent, _, child = name.rpartition(".")
            setattr(twin.get_submodule(parent), child, mean)
        elif isinstance(module, _ConvNd):
            module.weight.fill_(1 / module.weight[0].numel())
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.reset_parameters()
    return twin


def _checked(rates: Sequence[int]) -> Sequence[int]:
    if not rates or any(isinstance(rate, bool) or not isinstance(rate, int) or rate < 1 for rate in rates):
        raise InputError(f"the rates of a cascade are {rates!r}, but must be whole numbers of at least 1")
    return rates
