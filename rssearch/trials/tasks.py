"""What classification and segmentation do not have in common: metrics, the test split, what a deployment needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from torch import nn

from rssearch.config.schema import Search
from rssearch.data import AnySet, SceneSet
from rssearch.data.imageset import fill
from rssearch.errors import InputError
from rssearch.imaging.pixels import EIGHT_BITS
from rssearch.imaging.rasters import Layout
from rssearch.report import predictions
from rssearch.train.loop import evaluate
from rssearch.train.segmentation import evaluate_scenes
from rssearch.trials import latency
from rssearch.trials.point import PruningPoint

Metrics = dict[str, Any]

QUALITIES = {"classification": ("accuracy",), "segmentation": ("miou", "pixel_accuracy")}  # the first is the objective
COST_METRICS = ("macs", "params", "conv_linear_macs", "macs_ratio", "params_ratio", "removed_fraction")


def measured(task: str) -> tuple[str, ...]:
    """The qualities on the validation split, the first objective first."""
    return (*(f"val_{name}" for name in QUALITIES[task]), "val_loss")


def metrics(task: str) -> tuple[str, ...]:
    """What objectives and constraints may name in a pruning study of one task."""
    return (*measured(task), *COST_METRICS, "train_seconds")


def check_search(point: PruningPoint, search: Search, reported: Sequence[str] | None = None) -> None:
    """Refuse objectives and constraints that no trial on a dataset reports.

    Args:
        point: has the dataset.
        search: has the objectives and constraints.
        reported: what trials report; None for those of a pruning study.

    Raises:
        InputError: something else is named.
    """
    task = point.task
    reported = reported or (*metrics(task), *latency.METRICS)
    for section in ("objectives", "constraints"):
        for name in getattr(search, section):
            if name not in reported:
                raise InputError(
                    f"search.{section}.{name}: {point.dataset!r} is a dataset for {task}, whose trials report "
                    f"{', '.join(reported)}; set search.objectives: {{{reported[0]}: max, macs: min}}"
                )


class Tiles(TypedDict):
    """Pixels: height and width of a tile, and what neighbours share."""

    size: int
    overlap: int


def tiles(images: SceneSet) -> Tiles:
    """How whole scenes are predicted: in tiles of the patches' size that share a quarter of it."""
    size = images.input_shape[1]
    return {"size": size, "overlap": size // 4}


def tested(model: nn.Module, images: AnySet, batch_size: int, device: torch.device) -> Metrics:
    """The qualities on the test split: of images, or of whole scenes. Empty where there is none."""
    split = images.split("test")
    if not len(split):
        return {}
    if isinstance(images, SceneSet):
        found = evaluate_scenes(model, images.split("test"), **tiles(images), batch_size=batch_size, device=device)
        count = len(np.unique(images.windows[split.indices, 0]))  # of scenes
    else:
        found, count = evaluate(model, split, batch_size=batch_size, device=device), len(split)
    return {f"test_{name}": found[name] for name in QUALITIES[images.task]} | {"test_images": count}


def picture(model: nn.Module, images: AnySet, batch_size: int, device: torch.device) -> bytes | None:
    """What a network predicts on a few scenes of the test split, or of the validation split, as a PNG.

    None for classification.
    """
    if not isinstance(images, SceneSet):
        return None
    split = images.split("test" if len(images.indices["test"]) else "val")
    found = predictions.examples(model, split, **tiles(images), batch_size=batch_size, device=device)
    return predictions.png(found, images.classes) if found else None


def pixels(images: AnySet) -> Metrics:
    """What the values of pixels are, where they are not 8-bit RGB: type, bands, scaling, what stands for no data."""
    if images.layout is None and images.scaling == EIGHT_BITS:
        return {}
    layout = images.layout or Layout(*images.input_shape, images.dtype.name)
    low, high = (ends.reshape(-1).tolist() for ends in images.scaling.ends(len(images.mean)))
    return {
        "bands": images.bands,
        "file": {"bands": layout.total or layout.bands, "numbers": layout.numbers},
        "dtype": images.dtype.name,
        "scale": {"low": low, "high": high},
        "nodata": images.scaling.nodata,
        "fill": fill(images).reshape(-1).tolist(),
    }


def deployment(images: AnySet) -> Metrics:
    """What a deployed network needs to know of its task and its images."""
    return {
        "task": images.task,
        "classes": images.classes,
        "input_shape": images.input_shape,
        "mean": images.mean.tolist(),
        "std": images.std.tolist(),
        **pixels(images),
        **({"tiles": tiles(images)} if isinstance(images, SceneSet) else {}),
    }
