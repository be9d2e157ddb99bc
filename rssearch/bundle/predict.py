"""What a bundle's network says of an image, by onnxruntime, NumPy and Pillow alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from rssearch.bundle.files import INT8, ONNX, PREPROCESSING, read
from rssearch.bundle.files import decode as decode_json
from rssearch.errors import InputError, cut, shown
from rssearch.imaging.pixels import DECODE_ERRORS, Floats, Pixels, check_length, decode, factors, reason
from rssearch.imaging.tiling import axis
from rssearch.storage.location import expand

__all__ = ["TILES", "Network", "labels", "normalised", "open_network", "probabilities", "strips"]

_LARGEST = 1 << 15  # pixels of a side, and more than any mean or deviation
TILES = 8  # of a scene that go through the network together


@dataclass(frozen=True)
class Network:
    """A network in onnxruntime, and what it needs to know of its images.

    Attributes:
        session: float32 [B, C, H, W] to logits [B, K], or [B, K, H, W] for segmentation.
        about: the content of ``preprocessing.json``.
    """

    session: onnxruntime.InferenceSession
    about: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        """The K names."""
        return list(self.about["classes"])

    @property
    def segments(self) -> bool:
        """Whether it gives each pixel a class, rather than each image."""
        return bool(self.about["task"] == "segmentation")


def open_network(folder: str | Path, *, int8: bool = False, threads: int = 0) -> Network:
    """Open the network of a bundle on the CPU.

    Args:
        folder: the bundle. Of its files only the ONNX model, ``preprocessing.json`` and the manifest are needed.
        int8: the quantised model.
        threads: 0 for as many as there are cores.

    Raises:
        InputError: the folder is no bundle, has no such model, or a file of it is missing or has been changed.
    """
    name, path = INT8 if int8 else ONNX, expand(folder)
    files = read(path, (PREPROCESSING, name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        about = decode_json(files, PREPROCESSING)
        # Its fallback to the same provider would print lines.
        session = onnxruntime.InferenceSession(
            files[name], options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        _check(about, session)
    except Exception as error:  # the boundary: onnxruntime has an error of its own for each kind of damage
        why = cut(" ".join(str(error).split()) or type(error).__name__, 500)
        raise InputError(f"{path}: {name} or {PREPROCESSING} is damaged: {why}") from error
    return Network(session, about)


def _check(about: Mapping[str, Any], session: onnxruntime.InferenceSession) -> None:
    """Refuse a preprocessing.json that is not the model's, or not whole. Raises ValueError, KeyError or TypeError."""
    shape, classes, names = about["input_shape"], about["classes"], about["onnx"]
    segments = about["task"] == "segmentation"
    if not segments and about["task"] != "classification":
        raise ValueError(f"the task is {shown(about['task'])}")
    named = isinstance(classes, list) and classes and all(isinstance(name, str) and name.strip() for name in classes)
    if not named or len(set(classes)) < len(classes):
        raise ValueError("classes is no list of different names")
    if len(shape) != 3 or not all(_is_whole(size, 1) for size in shape) or shape[0] != 3:
        raise ValueError(f"input_shape is {shown(shape)}, not [3, height, width]")
    for name, least in (("mean", None), ("std", 1e-30)):
        if len(about[name]) != 3 or not all(_is_number(value, least) for value in about[name]):
            raise ValueError(f"{name} is {shown(about[name])}, no number for each band")
    if segments:
        size, overlap = about["tiles"]["size"], about["tiles"]["overlap"]
        if not _is_whole(size, 1) or not _is_whole(overlap, 0) or overlap >= size or shape[1:] != [size, size]:
            raise ValueError(f"tiles is {shown(about['tiles'])}")
        colours = about["colours"]
        if len(classes) > 256 or len(colours) != len(classes):
            raise ValueError(f"there are {len(colours)} colours for {len(classes)} classes")
        if not all(len(colour) == 3 and all(_is_whole(v, 0) and v < 256 for v in colour) for colour in colours):
            raise ValueError("colours are no three numbers below 256 for each class")
    (found,), (given,) = session.get_inputs(), session.get_outputs()
    if (found.name, given.name) != (names["input"], names["output"]) or found.type != "tensor(float)":
        raise ValueError(f"the model turns {shown(found.name)} into {shown(given.name)}")
    for what, here, said in (("images", found.shape[1:], shape), ("logits", given.shape[1:2], [len(classes)])):
        if len(here) != len(said) or any(isinstance(a, int) and a != b for a, b in zip(here, said, strict=True)):
            raise ValueError(f"the model's {what} are {shown(here)}, not {shown(said)}")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST


def _is_number(value: Any, above: float | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST:
        return False
    return above is None or value > above


def probabilities(network: Network, path: str | Path) -> Floats:
    """The probability of each class, float32 [K], of an image.

    Raises:
        InputError: the image cannot be read, or has a shape that the network does not take.
    """
    _, height, width = network.about["input_shape"]
    pixels = _decoded(path, height if height == width else None)
    if pixels.shape[1:] != (height, width):
        size = f"{pixels.shape[2]}x{pixels.shape[1]}"
        raise InputError(f"{path}: is {size}; this network takes images of {width}x{height} alone")
    logits = _run(network, pixels[None])[0]
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum(), dtype=np.float32)


def labels(network: Network, path: str | Path) -> Pixels:
    """The class of each pixel, uint8 [H, W], of a scene of any size.

    Raises:
        InputError: the image cannot be read.
    """
    pixels = _decoded(path, None)
    return np.concatenate([strip.argmax(0).astype(np.uint8) for strip in strips(network, pixels)])


def strips(network: Network, pixels: Pixels) -> Iterator[Floats]:
    """The logits of a scene from top to bottom, as `rssearch.train.segmentation.predict_scene` blends them.

    Args:
        network: for segmentation.
        pixels: uint8 [C, H, W], of any size.

    Yields:
        float32 [K, h, W], each strip as soon as no other tile reaches into it; together they have the height H.
    """
    size, overlap = network.about["tiles"]["size"], network.about["tiles"]["overlap"]
    height, width = pixels.shape[1:]
    vertical, horizontal = axis(height, size, overlap), axis(width, size, overlap)
    down, across = vertical.positions, horizontal.positions
    window = vertical.ramp[:, None] * vertical.ramp
    carried: Floats | None = None  # of the tiles above, what lies in the rows of this one
    for row, following in pairwise([*vertical.firsts, len(down)]):
        total = np.zeros((len(network.classes), size, len(across)), dtype=np.float32)
        if carried is not None:
            total[:, : carried.shape[1]] = carried
        for begin in range(0, len(horizontal.firsts), TILES):
            columns = horizontal.firsts[begin : begin + TILES]
            tiles = [pixels[:, down[row : row + size, None], across[c : c + size]] for c in columns]
            for column, logits in zip(columns, _run(network, np.stack(tiles)), strict=True):
                total[:, :, column : column + size] += logits * window
        done = following - row
        carried = total[:, done:]
        strip = total[:, :done] / vertical.sums[row:following, None] / horizontal.sums
        yield np.asarray(strip[:, : max(0, height - row), :width], dtype=np.float32)


def normalised(pixels: Pixels, about: Mapping[str, Any]) -> Floats:
    """Pixels uint8 [..., C, H, W] as the network's input, float32 of the same shape.

    Args:
        pixels: in the order of red, green, blue.
        about: the content of ``preprocessing.json``: mean and std.
    """
    mean, std = (np.array(about[name], dtype=np.float32) for name in ("mean", "std"))
    factor, offset = factors(mean, std)
    return pixels.astype(np.float32) * factor + offset


def _run(network: Network, pixels: Pixels) -> Floats:
    """Logits of some images uint8 [B, C, H, W]."""
    names, classes = network.about["onnx"], len(network.classes)
    try:
        (logits,) = network.session.run([names["output"]], {names["input"]: normalised(pixels, network.about)})
    except Exception as error:  # the boundary: onnxruntime has an error of its own for each kind of damage
        raise InputError(f"the ONNX model cannot be run: {cut(' '.join(str(error).split()), 500)}") from error
    expected = (len(pixels), classes, *(pixels.shape[2:] if network.segments else ()))
    if logits.shape != expected:
        raise InputError(f"the ONNX model gives logits {list(logits.shape)}, not {list(expected)}")
    if logits.dtype != np.float32 or not np.isfinite(logits).all():
        raise InputError("the ONNX model gives logits that are no finite float32 numbers")
    return np.asarray(logits, dtype=np.float32)


def _decoded(path: str | Path, size: int | None) -> Pixels:
    file = expand(path)
    if file.exists() and not file.is_file() and not file.is_dir():
        raise InputError(f"{path}: is no regular file")  # a pipe or a device might never end
    try:
        about = file.stat()
        check_length(about.st_size, 512 * about.st_blocks)
        return decode(file.read_bytes(), size)
    except (*DECODE_ERRORS, MemoryError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        raise InputError(f"{cut(str(path), 300)}: cannot be read: {why}") from None
