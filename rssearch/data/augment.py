"""Random changes of a batch on its device, each image with its own.

The draws are made on the CPU for a whole epoch, so that an epoch is the same on every device and for every batch size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rssearch.config.settings import Augment
from rssearch.errors import InputError

Floats = npt.NDArray[np.float32]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and torchvision weigh the channels for a grey image


@dataclass
class Draws:
    """What happens to each of N images.

    Attributes:
        shift: int64 [N, 2], rows and columns from the corner of the bordered image to that of the crop.
        flips: bool [N, 2], of the rows (vertical) and of the columns (horizontal).
        turns: int64 [N], quarter turns counter-clockwise.
        jitter: factors: float32 [N, 3] of brightness, contrast and saturation, or of bands that are not RGB [N, 2, C]
            of brightness and contrast; None: off.
        border: pixels of the reflected border.
        lost: int64 [N], the band that an image loses; -1 for none.
    """

    shift: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]
    turns: npt.NDArray[np.int64]
    jitter: Floats | None
    border: int
    lost: npt.NDArray[np.int64]


def draw(
    count: int, augment: Augment, shape: tuple[int, int, int], rng: np.random.Generator, *, rgb: bool | None = None
) -> Draws:
    """Draw the changes of an epoch.

    Args:
        count: N, how many images it has.
        augment: what may change.
        shape: (C, H, W) of the images.
        rng: the draws of RGB images are the same in every release.
        rgb: whether the bands are red, green and blue; None: three bands are.

    Raises:
        InputError: the border is as large as the image, rotations are asked for images that are not square, or the only
            band would be lost.
    """
    C, H, W = shape
    if augment.crop >= min(H, W):
        raise InputError(f"augment.crop: {augment.crop} must be less than the image's size, {min(H, W)}")
    if augment.rotate90 and H != W:
        raise InputError(f"augment.rotate90: needs square images, not {H}x{W}; set input_size, or rotate90: false")
    if augment.band_dropout > 0 and C < 2:
        raise InputError("augment.band_dropout: needs two bands or more: these images would lose their only one")
    # Everything is drawn, used or not, so that switching one change on or off leaves the others as they were.
    shift = rng.integers(0, 2 * augment.crop + 1, (count, 2))
    flips = rng.random((count, 2)) < 0.5
    turns = rng.integers(0, 4, count)
    factors = rng.uniform(1 - augment.jitter, 1 + augment.jitter, (count, 3))
    losing, lost = rng.random(count), rng.integers(0, C, count)
    if not (C == 3 if rgb is None else rgb):
        factors = rng.uniform(1 - augment.jitter, 1 + augment.jitter, (count, 2, C))
    return Draws(
        shift=shift,
        flips=flips & np.array([augment.vflip, augment.hflip]),
        turns=turns if augment.rotate90 else np.zeros_like(turns),
        jitter=factors.astype(np.float32) if augment.jitter > 0 else None,
        border=augment.crop,
        lost=np.where(losing < augment.band_dropout, lost, -1),
    )


def apply(images: Tensor, draws: Draws, rows: slice, black: Floats | None = None) -> Tensor:
    """Change a batch; bands are lost later, by `drop_bands`.

    Args:
        images: [B, C, H, W] of any dtype, on any device.
        draws: of the epoch.
        rows: which of them belong to the batch.
        black: float32 [C], the value of each band that brightness does not change; None: 0.

    Returns:
        [B, C, H, W]: of the same dtype, or with jitter float32, whole numbers within what their dtype holds. The input
        itself where nothing changes.
    """
    images = move(images, draws, rows)
    if draws.jitter is None:
        return images
    factors = torch.from_numpy(draws.jitter[rows]).to(images.device)
    if factors.dim() == 2:
        return _jitter(images.to(torch.float32), factors)
    dark = torch.zeros(images.shape[1]) if black is None else torch.from_numpy(black)
    changed = _jitter_bands(images.to(torch.float32), factors, dark.to(images.device)[:, None, None])
    if images.is_floating_point():
        return changed
    limits = torch.iinfo(images.dtype)
    return changed.clamp_(limits.min, limits.max)


def drop_bands(images: Tensor, draws: Draws, rows: slice) -> Tensor:
    """Set the band that an image loses to 0, in place: to its mean, as the images [B, C, H, W] are normalised."""
    lost = draws.lost[rows]
    without = np.flatnonzero(lost >= 0)
    if len(without):
        images[torch.from_numpy(without).to(images.device), torch.from_numpy(lost[without]).to(images.device)] = 0
    return images


def move(images: Tensor, draws: Draws, rows: slice) -> Tensor:
    """Crop, flip and turn a batch [B, C, H, W] of any dtype, such as masks, by the draws that `apply` takes.

    One gather: every output pixel names the input pixel it comes from, so that no value is invented.
    """
    shift, flips, turns = draws.shift[rows], draws.flips[rows], draws.turns[rows]
    if draws.border == 0 and not flips.any() and not turns.any():
        return images
    B, C, H, W = images.shape
    device = images.device
    row = _reflected(H, shift[:, 0] - draws.border, flips[:, 0]).to(device)
    column = _reflected(W, shift[:, 1] - draws.border, flips[:, 1]).to(device)
    source = row[:, :, None] * W + column[:, None, :]
    quarter = torch.from_numpy(turns).to(device)[:, None, None]
    if turns.any():
        source = torch.where(quarter % 2 == 1, source.transpose(1, 2).flip(1), source)
        source = torch.where(quarter >= 2, source.flip(1, 2), source)
    flat = source.reshape(B, 1, H * W).expand(-1, C, -1)
    # PyTorch 2.11 cannot gather unsigned numbers of 16 bits; as signed ones they are the same bits.
    values = images.view(torch.int16) if images.dtype == torch.uint16 else images
    return values.reshape(B, C, H * W).gather(2, flat).reshape(B, C, H, W).view(images.dtype)


def _reflected(size: int, start: npt.NDArray[np.int64], flip: npt.NDArray[np.bool_]) -> Tensor:
    """Input positions [B, size] along one axis of a crop that begins at `start` (negative: in the border)."""
    position = np.arange(size)
    position = np.where(flip[:, None], size - 1 - position, position) + start[:, None]
    position = np.abs(position)  # the border mirrors the image without repeating its edge
    return torch.from_numpy(np.minimum(position, 2 * (size - 1) - position))


def _jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, then contrast, then saturation, as blends with black, with the mean grey and with the grey image."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    luma = images.new_tensor(LUMA)[:, None, None]
    images = (images * brightness).clamp_(0, 255)
    mean = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast).clamp_(0, 255)
    grey = (images * luma).sum(1, keepdim=True)
    return torch.lerp(grey, images, saturation).clamp_(0, 255)


def _jitter_bands(images: Tensor, factors: Tensor, black: Tensor) -> Tensor:
    """Brightness, then contrast of each band, as blends with its black and with its mean."""
    brightness, contrast = factors[..., None, None].unbind(1)
    images = (images - black) * brightness + black
    return torch.lerp(images.mean((2, 3), keepdim=True), images, contrast)
