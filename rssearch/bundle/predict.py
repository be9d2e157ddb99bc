"""What a bundle's network says of an image, by onnxruntime, NumPy and Pillow alone; GeoTIFFs need rasterio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from rssearch.bundle.files import BF16, FP16, INT8, ONNX, PREPROCESSING, read
from rssearch.bundle.files import decode as decode_json
from rssearch.bundle.preprocessing import bands_of, check, normalised
from rssearch.errors import InputError, cut, shown
from rssearch.imaging import rasters
from rssearch.imaging.blending import Tiles, blended
from rssearch.imaging.georaster import Bands, Window
from rssearch.imaging.pixels import DECODE_ERRORS, Floats, Pixels, check_length, decode, reason
from rssearch.storage.location import expand

__all__ = [
    "Network", "decoded", "labels", "logits_of", "normalised", "open_network", "pixels", "probabilities", "regular",
    "sigmoid", "softmax", "strips",
]  # fmt: skip


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

    @property
    def threshold(self) -> float | None:
        """From which probability on an image has a class, where it may have several; None: it has one."""
        return float(self.about["threshold"]) if self.about["task"] == "multilabel" else None

    @property
    def bands(self) -> Bands:
        """What it takes of an image."""
        return bands_of(self.about)

    @property
    def tiles(self) -> Tiles:
        """How scenes are cut for it, where it is for segmentation."""
        tiles = self.about["tiles"]
        return Tiles(tiles["size"], tiles["overlap"], len(self.classes))


def open_network(
    folder: str | Path, *, int8: bool = False, fp16: bool = False, bf16: bool = False, threads: int = 0
) -> Network:
    """Open the network of a bundle on the CPU.

    Args:
        folder: the bundle. Of its files only the ONNX model, ``preprocessing.json`` and the manifest are needed.
        int8: the quantised model.
        fp16: the model that computes in float16, where `int8` is not set.
        bf16: the model whose products are of bfloat16, where neither is set.
        threads: 0 for as many as there are cores.

    Raises:
        InputError: the folder is no bundle, has no such model, or a file of it is missing or has been changed.
    """
    name, path = INT8 if int8 else FP16 if fp16 else BF16 if bf16 else ONNX, expand(folder)
    files = read(path, (PREPROCESSING, name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        about = decode_json(files, PREPROCESSING)
        # Its fallback to the same provider would print lines.
        session = onnxruntime.InferenceSession(
            files[name], options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        check(about, session)
    except Exception as error:  # the boundary: onnxruntime has an error of its own for each kind of damage
        why = cut(" ".join(str(error).split()) or type(error).__name__, 500)
        raise InputError(f"{path}: {name} or {PREPROCESSING} is damaged: {why}") from error
    return Network(session, about)


def probabilities(network: Network, path: str | Path) -> Floats:
    """The probability of each class, float32 [K], of an image. Where it may have several, they do not add up to 1.

    Raises:
        InputError: the image cannot be read, or has a shape or bands that the network does not take.
    """
    _, height, width = network.about["input_shape"]
    image = pixels(network, path, height if height == width else None)
    if image.shape[1:] != (height, width):
        size = f"{image.shape[2]}x{image.shape[1]}"
        raise InputError(f"{path}: is {size}; this network takes images of {width}x{height} alone")
    logits = logits_of(network, image[None])
    return np.asarray((softmax(logits) if network.threshold is None else sigmoid(logits))[0])


def softmax(logits: Floats) -> Floats:
    """Probabilities of logits [B, K, ...]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def sigmoid(logits: Floats) -> Floats:
    """Probabilities of the classes of images that may have several, each by itself."""
    with np.errstate(over="ignore"):  # of a logit far below 0 it is 0
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)


def labels(network: Network, path: str | Path) -> Pixels:
    """The class of each pixel, uint8 [H, W], of a scene of any size.

    Pixels without data have a class as well, that of what stands for them. `rssearch.bundle.scenes.segment` writes a
    mask in which they have none.

    Raises:
        InputError: the image cannot be read.
    """
    scene = pixels(network, path, None)
    return np.concatenate([strip.argmax(0).astype(np.uint8) for strip in strips(network, scene)])


def strips(network: Network, pixels: npt.NDArray[Any]) -> Iterator[Floats]:
    """The logits of a scene from top to bottom, as `rssearch.train.segmentation.predict_scene` blends them.

    Args:
        network: for segmentation.
        pixels: [C, H, W], of any size, in the type that the network takes.

    Yields:
        float32 [K, h, W], each strip as soon as no other tile reaches into it; together they have the height H.
    """
    _, height, width = pixels.shape
    found = blended(
        lambda rows, columns: Window(pixels[:, rows, columns], None),
        lambda tiles: logits_of(network, tiles),
        (height, width),
        network.tiles,
    )
    return (strip.logits for strip in found)


def logits_of(network: Network, pixels: npt.NDArray[Any]) -> Floats:
    """Logits of some images [B, C, H, W].

    Raises:
        InputError: the model cannot be run, or gives what are no logits.
    """
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


def decoded(path: str | Path, size: int | None) -> Pixels:
    """An image of 8 bits as RGB, uint8 [3, H, W], see `rssearch.imaging.pixels.decode`.

    Raises:
        InputError: it cannot be read.
    """
    return _read(path, lambda data: decode(data, size))


def pixels(network: Network, path: str | Path, size: int | None) -> npt.NDArray[Any]:
    """An image as the network takes it [C, H, W]: its bands, in their own type unless some pixels have no data.

    Args:
        network: that takes it.
        path: the image.
        size: height and width that its central square is scaled to; None: it is left as it is.

    Raises:
        InputError: it cannot be read, or has other bands.
    """
    bands = network.bands
    return decoded(path, size) if bands.pictures else _read(path, lambda data: _raster(data, bands, size))


def _raster(data: bytes, bands: Bands, size: int | None) -> npt.NDArray[Any]:
    about = rasters.layout(data)
    numbers = bands.found_in(about.bands, about.names)
    if numbers is None or about.dtype != bands.dtype:
        named = f" called {', '.join(map(shown, about.names))}" if about.names else ""
        raise ValueError(f"it has {about}{named}, but the network takes {bands}")
    found = rasters.resampled(rasters.read(data, rasters.Options(numbers)), size)
    lost = rasters.missing(found.pixels, bands.nodata if found.nodata is None else found.nodata)
    if lost is None or not lost.any():
        return found.pixels
    return np.where(lost, np.array(bands.fill, np.float32)[:, None, None], found.pixels).astype(np.float32)


def _read(path: str | Path, decode_it: Callable[[bytes], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    file = regular(path)
    try:
        about = file.stat()
        check_length(about.st_size, 512 * about.st_blocks)
        return decode_it(file.read_bytes())
    except InputError:
        raise
    except (*DECODE_ERRORS, MemoryError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        raise InputError(f"{cut(str(path), 300)}: cannot be read: {why}") from None


def regular(path: str | Path) -> Path:
    """A path to read from. Raises InputError for a pipe or a device, which might never end."""
    file = expand(path)
    if file.exists() and not file.is_file() and not file.is_dir():
        raise InputError(f"{path}: is no regular file")
    return file
