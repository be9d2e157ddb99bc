"""What ``preprocessing.json`` says of a network's input, and the way from pixels to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from rssearch.errors import shown
from rssearch.imaging.georaster import Bands
from rssearch.imaging.pixels import Floats, Scaling, factors
from rssearch.imaging.rasters import TYPES

__all__ = ["bands_of", "check", "ends_of", "factors_of", "normalised"]

_LARGEST = 1 << 15  # pixels of a side, and more than any mean or deviation
_FINITE = 1e30  # more than any value of a pixel


def bands_of(about: Mapping[str, Any]) -> Bands:
    """The bands that a network takes; 8-bit RGB where `about` does not say."""
    names, fill = about.get("bands"), about.get("fill")
    count = about["input_shape"][0]
    low, _ = ends_of(about, count)
    file = about.get("file") or {}
    numbers = file.get("numbers")
    return Bands(
        count=count,
        dtype=about.get("dtype") or "uint8",
        names=None if names is None else tuple(names),
        fill=tuple(low.tolist() if fill is None else fill),
        nodata=about.get("nodata"),
        total=file.get("bands"),
        numbers=None if numbers is None else tuple(numbers),
    )


def factors_of(about: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """Factor and offset, float32 [C, 1, 1], that turn the values of pixels to the network's input.

    That is ((x - low) / (high - low) - mean) / std, in one multiplication and one addition.
    """
    mean, std = (np.array(about[name], dtype=np.float32) for name in ("mean", "std"))
    low, high = ends_of(about, len(mean))
    return factors(mean, std, Scaling(tuple(low.tolist()), tuple(high.tolist())))


def normalised(pixels: npt.NDArray[Any], about: Mapping[str, Any]) -> Floats:
    """Pixels [..., C, H, W] as the network's input, float32 of the same shape.

    Args:
        pixels: in the order of the network's bands, all with data.
        about: the content of ``preprocessing.json``: mean and std, and scale where it is not that of 8 bits.
    """
    factor, offset = factors_of(about)
    return pixels.astype(np.float32) * factor + offset


def ends_of(about: Mapping[str, Any], count: int) -> tuple[Floats, Floats]:
    """The values that become 0 and 1, float32 [C]."""
    scale = about.get("scale")
    # Bundles of 8-bit RGB describe their scale in words.
    ends = scale if isinstance(scale, Mapping) else {"low": [0.0] * count, "high": [255.0] * count}
    return np.array(ends["low"], dtype=np.float32), np.array(ends["high"], dtype=np.float32)


def check(about: Mapping[str, Any], session: onnxruntime.InferenceSession) -> None:
    """Refuse a preprocessing.json that is not the model's, or not whole. Raises ValueError, KeyError or TypeError."""
    shape, classes, names = about["input_shape"], about["classes"], about["onnx"]
    segments = about["task"] == "segmentation"
    if about["task"] not in ("classification", "multilabel", "segmentation"):
        raise ValueError(f"the task is {shown(about['task'])}")
    named = isinstance(classes, list) and classes and all(isinstance(name, str) and name.strip() for name in classes)
    if not named or len(set(classes)) < len(classes):
        raise ValueError("classes is no list of different names")
    if len(shape) != 3 or not all(_is_whole(size, 1) for size in shape):
        raise ValueError(f"input_shape is {shown(shape)}, not [bands, height, width]")
    _check_bands(about, shape[0])
    if segments:
        _check_segmentation(about, shape, classes)
    if about["task"] == "multilabel" and not (_is_number(about["threshold"], 0) and about["threshold"] < 1):
        raise ValueError(f"threshold is {shown(about['threshold'])}, no number between 0 and 1")
    (found,), (given,) = session.get_inputs(), session.get_outputs()
    if (found.name, given.name) != (names["input"], names["output"]) or found.type != "tensor(float)":
        raise ValueError(f"the model turns {shown(found.name)} into {shown(given.name)}")
    for what, here, said in (("images", found.shape[1:], shape), ("logits", given.shape[1:2], [len(classes)])):
        if len(here) != len(said) or any(isinstance(a, int) and a != b for a, b in zip(here, said, strict=True)):
            raise ValueError(f"the model's {what} are {shown(here)}, not {shown(said)}")


def _check_bands(about: Mapping[str, Any], count: int) -> None:
    """Numbers and names of the bands."""
    for name, least in (("mean", None), ("std", 1e-30)):
        if len(about[name]) != count or not all(_is_number(value, least) for value in about[name]):
            raise ValueError(f"{name} is {shown(about[name])}, no number for each band")
    if about.get("dtype", "uint8") not in TYPES:
        raise ValueError(f"dtype is {shown(about['dtype'])}; known are {', '.join(TYPES)}")
    bands = about.get("bands")
    if bands is not None:
        texts = isinstance(bands, list) and all(isinstance(name, str) and name.strip() for name in bands)
        if not texts or len(bands) != count or len(set(bands)) < count:
            raise ValueError(f"bands is {shown(bands)}, no different names for {count} bands")
    file = about.get("file") or {}
    numbers = file.get("numbers")
    whole = [*(numbers or []), *([file["bands"]] if file else [])]
    if not all(_is_whole(number, 1) for number in whole) or (numbers is not None and len(numbers) != count):
        raise ValueError(f"file is {shown(file)}, no numbers of {count} bands")
    if about.get("nodata") is not None and not _is_number(about["nodata"], None, largest=_FINITE):
        raise ValueError(f"nodata is {shown(about['nodata'])}, no number")
    scale = about.get("scale")
    ends = [] if scale is None or isinstance(scale, str) else [("low", scale["low"]), ("high", scale["high"])]
    if about.get("fill") is not None:
        ends.append(("fill", about["fill"]))
    for name, values in ends:
        if not isinstance(values, list) or len(values) != count:
            raise ValueError(f"{name} is {shown(values)}, no number for each band")
        if not all(_is_number(value, None, largest=_FINITE) for value in values):
            raise ValueError(f"{name} is {shown(values)}, no number for each band")
    with np.errstate(all="ignore"):
        low, high = ends_of(about, count)
        if not (low < high).all() or not all(np.isfinite(values).all() for values in factors_of(about)):
            raise ValueError(f"scale is {shown(scale)}: low must be less than high in each band")


def _check_segmentation(about: Mapping[str, Any], shape: list[int], classes: list[str]) -> None:
    size, overlap = about["tiles"]["size"], about["tiles"]["overlap"]
    if not _is_whole(size, 1) or not _is_whole(overlap, 0) or overlap >= size or shape[1:] != [size, size]:
        raise ValueError(f"tiles is {shown(about['tiles'])}")
    colours = about["colours"]
    if len(classes) > 256 or len(colours) != len(classes):
        raise ValueError(f"there are {len(colours)} colours for {len(classes)} classes")
    if not all(len(colour) == 3 and all(_is_whole(v, 0) and v < 256 for v in colour) for colour in colours):
        raise ValueError("colours are no three numbers below 256 for each class")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST


def _is_number(value: Any, above: float | None, *, largest: float = _LARGEST) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > largest:
        return False
    return above is None or value > above
