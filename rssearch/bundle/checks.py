"""What is measured of a bundle's networks at the export: on real images wherever they are at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rssearch import data
from rssearch.bundle.preprocessing import bands_of, ends_of, normalised
from rssearch.config.settings import Settings
from rssearch.cost.int8 import to_int8
from rssearch.cost.latency import measure
from rssearch.cost.onnx import TOLERANCE, OnnxNetwork, difference
from rssearch.data import AnyDataset, AnySet, PatchDataset
from rssearch.data.imageset import normalise
from rssearch.data.listing import Files
from rssearch.data.reading import asked, chosen
from rssearch.data.registry import listing
from rssearch.data.sceneload import with_bands
from rssearch.data.scenes import SceneListing
from rssearch.errors import InputError
from rssearch.imaging.pixels import DECODE_ERRORS, Array
from rssearch.imaging.tiling import axis
from rssearch.train.evaluation import evaluate
from rssearch.train.segmentation import evaluate_scenes

SAMPLES = 16  # images that the ONNX model is compared on
CALIBRATION = 512  # training images that give the ranges of the activations
CPU = torch.device("cpu")
_QUALITIES = ("accuracy", "miou", "pixel_accuracy", "map", "micro_f1")


@dataclass(frozen=True)
class Images:
    """Where a trial's images are, and what it made of them.

    Attributes:
        name: of the dataset; None: the trial does not say.
        root: the data root.
        settings: of the trial.
        about: what was kept with its weights: task, classes, input_shape, mean, std, tiles.
        split_hash: of its division; None: the trial does not say.
    """

    name: str | None
    root: Path
    settings: Settings
    about: Mapping[str, Any]
    split_hash: str | None


def samples(images: Images) -> tuple[Array, str]:
    """A few images [N, C, H, W] of the dataset in their own type, or noise where it is not found; and what they are."""
    found = _some(images)
    return (np.stack(found), f"images of {images.name}") if found else (noise(images.about), "images of noise")


def parity(model: nn.Module, content: bytes, images: Images) -> dict[str, Any]:
    """Compare an ONNX model with its network on some `samples`.

    Raises:
        InputError: they compute different things.
    """
    pixels, source = samples(images)
    largest, logit = difference(model, content, torch.from_numpy(normalised(pixels, images.about)))
    if not largest <= TOLERANCE * max(1, logit):  # NaN is refused as well
        raise InputError(
            f"the ONNX model is not the network: its logits, up to {logit:.3g}, differ by up to {largest:.2g}"
        )
    return {"images": len(pixels), "source": source, "largest_difference": largest, "largest_logit": logit}


def _some(images: Images) -> list[Array]:
    """A few images [C, H, W] as the network gets them, evenly spaced over the dataset; none without a dataset."""
    if images.name is None:
        return []
    try:
        found = listing(images.name, images.root)
    except InputError:
        return []
    _, height, width = images.about["input_shape"]
    size = height if height == width else None
    if isinstance(found, SceneListing):
        source = with_bands(found, asked(images.settings)).source
        return _readable(lambda i: _patch(source.read(i).image, height), _spread(len(source), SAMPLES // 4))
    if isinstance(found.pixels, Files):
        files = found.pixels
        reader = found.reader.given(asked(images.settings))
        decoded = _readable(lambda i: reader.decode(files.read(i), size), _spread(len(files), SAMPLES))
        return [image for image in decoded if image.shape[1:] == (height, width)]
    drawn = found.pixels(size)[:, chosen(found.bands, asked(images.settings))[0]]
    return [drawn[i] for i in _spread(len(drawn), SAMPLES)]


def _readable(read: Callable[[int], Array], indices: Iterable[int]) -> list[Array]:
    """The images that can be read: a study may skip those that cannot."""
    result = []
    for index in indices:
        with suppress(*DECODE_ERRORS):  # InputError, which names a scene, is a ValueError
            result.append(read(index))
    return result


def _spread(total: int, count: int) -> list[int]:
    indices: list[int] = np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
    return indices


def _patch(scene: Array, size: int) -> Array:
    """The upper left tile [C, size, size] of a scene [H, W, C]."""
    down, across = (axis(length, size, 0).positions[:size] for length in scene.shape[:2])
    return np.ascontiguousarray(scene[down[:, None], across].transpose(2, 0, 1))


def noise(about: Mapping[str, Any], count: int = SAMPLES) -> Array:
    """Images [N, C, H, W] of values that the network may get, in their type."""
    rng, shape = np.random.default_rng(0), (count, *about["input_shape"])
    if bands_of(about).dtype == "uint8":
        return np.asarray(rng.integers(0, 256, shape, dtype=np.uint8))
    low, high = (ends[:, None, None] for ends in ends_of(about, shape[1]))
    return np.asarray((low + (high - low) * rng.random(shape)).astype(bands_of(about).dtype))


def load(images: Images) -> AnySet:
    """The trial's image set, divided as it was.

    Raises:
        InputError: the dataset is not there, or is divided in another way.
    """
    if images.name is None:
        raise InputError("the trial does not say what its dataset was: its images cannot be measured again")
    local = images.settings
    found = data.load(
        images.name,
        images.root,
        input_size=local.input_size,
        split=local.split,
        patches=local.patches,
        bands=asked(local),
        scale=local.scale,
        on_error=local.on_error,
        memory_share=local.memory_share,
    )
    if found.split_hash != images.split_hash:
        raise InputError(
            f"the images of {images.name!r} below {images.root} are not those of the study: they are divided as "
            f"{found.split_hash[:12]}, the study's as {str(images.split_hash)[:12]}"
        )
    # What the network was trained with, which need not be the dataset's own.
    mean, std = (np.asarray(images.about[name], np.float32) for name in ("mean", "std"))
    return replace(found, mean=mean, std=std)


def calibrated(content: bytes, source: AnySet) -> tuple[bytes, int]:
    """The int8 model, and on how many images of the training split it was calibrated."""
    train = source.split("train")
    chosen = train.indices[_spread(len(train), CALIBRATION)]

    def batches() -> Iterator[Tensor]:
        for images in source.stream(np.array_split(chosen, -(-len(chosen) // 32))):
            yield normalise(images, source)

    return to_int8(content, batches())["minmax"], len(chosen)


def counted(split: AnyDataset) -> tuple[int, str]:
    """How many of what a quality on a split is of: a test is of whole scenes, a validation of patches."""
    if not isinstance(split, PatchDataset):
        return len(split), "images"
    if split.name == "test":
        return len(np.unique(split.source.windows[split.indices, 0])), "scenes"
    return len(split), "patches"


def quality(content: bytes, split: AnyDataset, images: Images) -> dict[str, float]:
    """The qualities of an ONNX model on a split, by what measured the network in its trial."""
    network, size = OnnxNetwork(content), images.settings.finetune.batch_size
    if isinstance(split, PatchDataset) and split.name == "test":
        found = evaluate_scenes(network, split, **images.about["tiles"], batch_size=size, device=CPU)
    else:
        found = evaluate(network, split, batch_size=size, device=CPU)
    return {name: found[name] for name in _QUALITIES if name in found}


def latency(model: nn.Module, models: Mapping[str, bytes], shape: tuple[int, int, int]) -> dict[str, Any]:
    """The time of one image in torch and by each ONNX model, one after the other on this machine's CPU."""
    networks = {"torch": model, **{name: OnnxNetwork(content) for name, content in models.items()}}
    found = {name: measure(network, shape) for name, network in networks.items()}
    first = next(iter(found.values()))
    times = {n: {"median_ms": t.median_ms, "iqr_ms": t.iqr_ms, "p95_ms": t.p95_ms} for n, t in found.items()}
    return {"device": first.device, "threads": first.threads, "passes": first.passes, **times}
