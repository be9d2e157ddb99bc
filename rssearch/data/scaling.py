"""What the values of pixels mean, and their moments: from the training split alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rssearch.config.settings import Scale
from rssearch.imaging.pixels import EIGHT_BITS, Array, Scaling
from rssearch.imaging.rasters import missing

__all__ = ["PERCENTILES", "SAMPLE", "image_sums", "moments", "percentiles", "said", "scaled_by", "sums_dtype"]

ROWS = 64  # summed at once: 64-bit copies of a whole large image would need many times its memory
PERCENTILES = Scale(low=2, high=98)  # where nothing says what the values mean
SAMPLE = 2**24  # values of a band that percentiles are taken from


def image_sums(image: Array, nodata: float | None = None) -> npt.NDArray[Any]:
    """Sum, sum of squares and number of the pixels with data, of each band.

    Args:
        image: [C, H, W].
        nodata: the value of pixels without data.

    Returns:
        [3, C]; int64 and exact for whole numbers of at most 16 bits, so that order never matters, else float64.
    """
    wide = sums_dtype(image.dtype)
    sums = np.zeros((3, image.shape[0]), wide)
    for row in range(0, image.shape[1], ROWS):
        part = image[:, row : row + ROWS]
        flat = part.reshape(image.shape[0], -1).astype(wide)
        lost = missing(part, nodata)
        counts = np.full(image.shape[0], flat.shape[1])
        if lost is not None and lost.any():
            flat[lost.reshape(flat.shape)] = 0
            counts = counts - lost.reshape(flat.shape).sum(1)
        sums += np.stack([flat.sum(1), (flat * flat).sum(1), counts])
    return sums


def sums_dtype(dtype: npt.DTypeLike) -> type[np.int64] | type[np.float64]:
    """What sums of such pixels are kept in."""
    own = np.dtype(dtype)
    return np.int64 if own.kind in "iu" and own.itemsize <= 2 else np.float64


def moments(sums: npt.NDArray[Any], scaling: Scaling) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation, float32 [C], of each band's scaled pixels.

    Args:
        sums: [N, 3, C] of N images, see `image_sums`.
        scaling: of the pixels.
    """
    # Squares of 16 bits outgrow int64 after two billion pixels; a long double still holds them.
    total = sums.sum(0) if scaling == EIGHT_BITS else sums.astype(np.longdouble).sum(0).astype(np.float64)
    first, second = total[:2] / np.maximum(total[2], 1)
    low, high = (np.asarray(ends, np.float64) for ends in (scaling.low, scaling.high))
    span = high - low
    mean = (first - low) / span
    variance = second / span**2 - (first / span) ** 2
    # A constant band has no deviation; half a grey level, or the rounding of float32, keeps the division finite.
    whole = 0.5 / span if np.issubdtype(sums.dtype, np.integer) else 1e-6 * np.maximum(np.abs(first / span), 1)
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, whole**2)).astype(np.float32)


def scaled_by(asked: Scale | None, known: Scale | None, dtype: np.dtype[np.generic]) -> Scale | None:
    """How values are scaled: as a study asks, else as is known of the dataset, else by percentiles.

    None: values of 8 bits are divided by 255.
    """
    return asked or known or (None if dtype == np.uint8 else PERCENTILES)


def percentiles(
    scale: Scale | None, bands: int, nodata: float | None, sample: Callable[[], npt.NDArray[np.generic]]
) -> Scaling:
    """The scaling of some images.

    Args:
        scale: see `scaled_by`.
        bands: how many there are.
        nodata: the value of pixels without data.
        sample: gives images [N, C, H, W] of the training split, as many as `SAMPLE` allows; called for percentiles.
    """
    if scale is None:
        return Scaling(nodata=nodata) if nodata is not None else EIGHT_BITS
    if scale.divide is not None:
        return Scaling((0.0,) * bands, (float(scale.divide),) * bands, nodata)
    low, high = [], []
    for band in sample().swapaxes(0, 1):
        lost = missing(band, nodata)
        values = band.reshape(-1) if lost is None else band[~lost]
        ends = np.percentile(values, [scale.low, scale.high]) if len(values) else np.array([0.0, 1.0])
        first, last = float(np.float32(ends[0])), float(np.float32(ends[1]))
        low.append(first)
        high.append(last if last > first else first + 1)  # a constant band
    return Scaling(tuple(low), tuple(high), nodata)


def said(scale: Scale | None) -> str:
    """How values are scaled, as a plan says it."""
    if scale is None:
        return "divided by 255"
    if scale.divide is not None:
        return f"divided by {scale.divide:g}"
    return f"from percentile {scale.low:g} to {scale.high:g} of each band in the training split"
