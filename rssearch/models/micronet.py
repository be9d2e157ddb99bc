"""Micro-Net and Miniaturized-Net: U-Nets of fire modules.

Source: Chen, Chen and Jing, "A miniaturized semantic segmentation method for remote sensing image", sections 2 and 3.
All convolutions but the last and the transposed ones are replaced with fire modules (Iandola et al., 2016): a 1x1
convolution squeezes the maps, then a 1x1 and a 3x3 convolution expand them side by side. Micro-Net has fewer levels,
more modules on each, and dilation in their 3x3 convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rssearch.errors import InputError, shown
from rssearch.models.options import flag, share, whole
from rssearch.models.options import levels as resolutions
from rssearch.models.unet import Block, Cascade, Design, Skips, convolution

LEVELS = 3


class Fire(nn.Module):
    """A fire module: squeeze to `squeezed` channels, expand to `channels`, of which `wide` see 3x3 positions.

    Shapes: [N, in_channels, H, W] -> [N, channels, H, W].
    """

    def __init__(
        self, in_channels: int, channels: int, squeezed: int, wide: int, rate: int, *, batch_norm: bool, bias: bool
    ) -> None:
        super().__init__()
        self.squeeze = convolution(in_channels, squeezed, 1, batch_norm=batch_norm, bias=bias)
        self.expand1 = convolution(squeezed, channels - wide, 1, batch_norm=batch_norm, bias=bias)
        self.expand3 = convolution(squeezed, wide, 3, rate=rate, batch_norm=batch_norm, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Squeeze, then both expansions, the 1x1 one first."""
        x = self.squeeze(x)
        return torch.cat([self.expand1(x), self.expand3(x)], 1)


def micronet(
    *,
    base: int = 64,
    rates: Sequence[Any] = (1, 1, 2, 3),
    decoder_rates: Sequence[Any] | None = None,
    levels: int | None = None,
    squeeze: float = 0.25,
    p3x3: float = 0.5,
    skips: Skips = "add",
    batch_norm: bool = False,
    bias: bool = False,
) -> Design:
    """Micro-Net; its defaults are the published network, whose decoder has modules on the lowest level too.

    Args:
        base: channels of the first level; each level below has twice as many.
        rates: dilation of the 3x3 convolutions of the encoder, a fire module for each: one cascade for all levels, or a
            sequence of cascades, one for each level from the top.
        decoder_rates: likewise of the decoder; None for the last three of the encoder's, in reverse order.
        levels: of resolution, where `rates` is a single cascade; None for 3.
        squeeze: channels of a module's squeezing convolution over those of its output (SR). The paper states 0.125, but
            its tables and its code have 0.25.
        p3x3: share of the 3x3 filters in the expansion.
        skips: ``"add"`` or ``"concat"``.
        batch_norm: normalise behind each convolution of the fire modules.
        bias: of all convolutions.

    Raises:
        InputError: a value that is not allowed, or widths that leave a convolution without filters.
    """
    encoder = _cascades("rates", rates, levels)
    if decoder_rates is None:
        decoder = [cascade[-3:][::-1] for cascade in encoder]
    else:
        decoder = _cascades("decoder_rates", decoder_rates, len(encoder))
    block = _fire(base, squeeze, p3x3, batch_norm=batch_norm, bias=bias)
    return Design(base, tuple(encoder), tuple(decoder), block, skips, bias)


def miniaturized_net(
    *,
    levels: int = 5,
    base: int = 64,
    squeeze: float = 0.125,
    p3x3: float = 0.5,
    skips: Skips = "concat",
    batch_norm: bool = False,
    bias: bool = False,
) -> Design:
    """Miniaturized-Net, the benchmark BM1 of Micro-Net's paper: U-Net with fire modules for its 3x3 convolutions.

    The arguments are those of `micronet`; the decoder begins on the last level but one, as U-Net's does.
    """
    encoder: list[Cascade] = [(1, 1)] * resolutions("levels", levels)
    decoder = [*encoder[1:], ()]
    block = _fire(base, squeeze, p3x3, batch_norm=batch_norm, bias=bias)
    return Design(base, tuple(encoder), tuple(decoder), block, skips, bias)


def parse_rates(text: str) -> list[Any]:
    """Cascades from a name: ``1,1,2,3`` for all levels, ``1,2,5/1,2,3/1,1,2`` for each level its own.

    Raises:
        InputError: it is something else.
    """
    try:
        cascades = [[int(rate) for rate in cascade.split(",")] for cascade in text.split("/")]
    except ValueError:
        raise InputError(
            f"the rates {shown(text)} of a micronet are not whole numbers with commas between them, such as 1,1,2,3, "
            "and slashes between levels, such as 1,2,5/1,2,3/1,1,2"
        ) from None
    return cascades if len(cascades) > 1 else cascades[0]


def _fire(base: int, squeeze: float, p3x3: float, *, batch_norm: bool, bias: bool) -> Block:
    """Builds fire modules of these shares, after a check that they leave filters to each convolution."""
    base, squeeze, p3x3 = whole("base", base), share("squeeze", squeeze), share("p3x3", p3x3)
    normed, biased = flag("batch_norm", batch_norm), flag("bias", bias)
    wide = int(p3x3 * base)
    if not int(squeeze * base):
        raise InputError(f"squeeze is {squeeze}, which leaves no filter of the {base} of the first level (base)")
    if not 0 < wide < base:
        size = "1x1" if wide else "3x3"
        raise InputError(f"p3x3 is {p3x3}, which leaves no {size} filter of the {base} of the first level (base)")

    def block(inputs: int, outputs: int, rate: int) -> nn.Module:
        squeezed, wide = int(squeeze * outputs), int(p3x3 * outputs)
        return Fire(inputs, outputs, squeezed, wide, rate, batch_norm=normed, bias=biased)

    return block


def _cascades(option: str, given: Any, levels: int | None) -> list[Cascade]:
    """One cascade for each level, from a single one or from one for each."""
    shape = "must be a sequence of rates, such as [1, 1, 2, 3], or a sequence of these, one for each level"
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise InputError(f"{option} is {shown(given)}, but {shape}")
    nested = [isinstance(cascade, Sequence) and not isinstance(cascade, str) for cascade in given]
    if any(nested) and not all(nested):
        raise InputError(f"{option} is {shown(given)}, but {shape}")
    if not any(nested):
        given = [given] * (LEVELS if levels is None else resolutions("levels", levels))
    elif levels is not None and resolutions("levels", levels) != len(given):
        raise InputError(f"{option} has cascades for {len(given)} levels, but there are {levels}")
    if not all(given):
        raise InputError(f"{option} has an empty cascade; each level needs at least one rate")
    return [tuple(whole(f"a rate in {option}", rate) for rate in cascade) for cascade in given]
