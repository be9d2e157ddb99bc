"""Encoder-decoders for segmentation, and U-Net (Ronneberger et al., MICCAI 2015), the first of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from rssearch.models.options import flag, whole
from rssearch.models.options import levels as resolutions

Skips = Literal["add", "concat"]
Cascade = tuple[int, ...]  # the dilation rates of consecutive blocks
Block = Callable[[int, int, int], nn.Module]  # in_channels, out_channels, rate -> maps of the same height and width


@dataclass(frozen=True)
class Design:
    """What an encoder-decoder is made of; it costs nothing to have.

    Attributes:
        base: channels of the first level.
        encoder: one cascade for each level, from the top: a block for each rate.
        decoder: likewise for the way up; an empty cascade, on the lowest level, goes up at once.
        block: builds a block.
        skips: ``"add"`` or ``"concat"``.
        bias: of the transposed convolutions and of the last one.
    """

    base: int
    encoder: tuple[Cascade, ...]
    decoder: tuple[Cascade, ...]
    block: Block
    skips: Skips
    bias: bool


class EncoderDecoder(nn.Module):
    """Blocks on several levels of resolution, down and up again, with a skip on each level but the lowest.

    Each level has half the height and width (rounded up) and twice the channels of the one above. On the way up, a 2x2
    transposed convolution without activation doubles the size of the maps; they are cropped to the encoder's, and
    added to or concatenated with these. So any image size serves, and the logits have it too.

    Args:
        num_classes: channels of the logits.
        in_channels: bands of the images.
        design: what it is made of.
    """

    def __init__(self, num_classes: int, in_channels: int, design: Design) -> None:
        super().__init__()
        self.skips, bias, levels = design.skips, design.bias, len(design.encoder)
        widths = [design.base * 2**level for level in range(levels)]
        joined = [width * (1 + (self.skips == "concat")) for width in widths[:-1]] + widths[-1:]
        blocks = [design.block] * levels
        self.encoder = nn.ModuleList(map(_stage, [in_channels, *widths], widths, design.encoder, blocks))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(below, width, 2, stride=2, bias=bias) for width, below in pairwise(widths)
        )
        self.decoder = nn.ModuleList(map(_stage, joined, widths, design.decoder, blocks))
        self.head = nn.Conv2d(design.base, num_classes, 1, bias=bias)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [N, C, H, W] to logits [N, num_classes, H, W]."""
        skipped: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            x = stage(self.pool(x) if level else x)
            skipped.append(x)
        x = self.decoder[-1](x)
        for level in reversed(range(len(self.up))):
            skip = skipped[level]
            x = self.up[level](x)[..., : skip.shape[-2], : skip.shape[-1]]
            x = self.decoder[level](torch.cat([skip, x], 1) if self.skips == "concat" else skip + x)
        logits: Tensor = self.head(x)
        return logits


def _stage(in_channels: int, channels: int, rates: Cascade, block: Block) -> nn.Sequential:
    inputs = [in_channels, *[channels] * len(rates)]
    return nn.Sequential(*(block(before, channels, rate) for before, rate in zip(inputs, rates, strict=False)))


def _initialise(module: nn.Module) -> None:
    """Normal weights of variance 2 / fan-in (He et al., ICCV 2015), and no bias."""
    if next(module.parameters(recurse=False), torch.empty(0)).is_meta:
        return  # shapes alone: drawing nothing would take most of the time
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.ConvTranspose2d):
        # Its 2x2 kernels do not overlap: each output has one term for each input channel.
        nn.init.normal_(module.weight, std=(2 / module.in_channels) ** 0.5)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def convolution(
    in_channels: int, channels: int, size: int, *, rate: int = 1, batch_norm: bool, bias: bool
) -> nn.Sequential:
    """A convolution that keeps height and width, normalisation if asked for, and ReLU."""
    padding = rate * (size // 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(in_channels, channels, size, padding=padding, dilation=rate, bias=bias)
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(channels)
    layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def unet(*, levels: int = 5, base: int = 64, batch_norm: bool = False, bias: bool = False) -> Design:
    """U-Net with zero padding: two 3x3 convolutions on each level, and concatenating skips.

    Args:
        levels: of resolution, one more than there are poolings.
        base: channels of the first level; each level below has twice as many.
        batch_norm: normalise behind each 3x3 convolution.
        bias: of all convolutions.

    Raises:
        InputError: a value that is not allowed.
    """
    base, normed, biased = whole("base", base), flag("batch_norm", batch_norm), flag("bias", bias)

    def block(inputs: int, outputs: int, rate: int) -> nn.Module:
        return convolution(inputs, outputs, 3, rate=rate, batch_norm=normed, bias=biased)

    encoder = ((1, 1),) * resolutions("levels", levels)
    return Design(base, encoder, (*encoder[1:], ()), block, "concat", biased)
