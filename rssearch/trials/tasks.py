"""What classification and segmentation do not have in common: metrics, settings, and the test split."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypedDict

import numpy as np
import torch
from torch import nn

from rssearch import data, models
from rssearch.config.schema import Patches, Search, Settings
from rssearch.data import AnySet, SceneSet
from rssearch.data.registry import check_input_size
from rssearch.errors import InputError
from rssearch.report import predictions
from rssearch.train.loop import evaluate
from rssearch.train.segmentation import evaluate_scenes
from rssearch.trials import latency

Config = dict[str, Any]
Metrics = dict[str, Any]

QUALITIES = {"classification": ("accuracy",), "segmentation": ("miou", "pixel_accuracy")}  # the first is the objective
COST_METRICS = ("macs", "params", "conv_linear_macs", "macs_ratio", "params_ratio", "removed_fraction")


@contextmanager
def named(place: str) -> Iterator[None]:
    """Put the key that is wrong before the message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def measured(task: str) -> tuple[str, ...]:
    """The qualities on the validation split, the first objective first."""
    return (*(f"val_{name}" for name in QUALITIES[task]), "val_loss")


def metrics(task: str) -> tuple[str, ...]:
    """What objectives and constraints may name in a pruning study of one task."""
    return (*measured(task), *COST_METRICS, "train_seconds")


def check(point: Config, local: Settings) -> None:
    """Refuse a network, its options, or settings that do not go with the dataset. Raises InputError."""
    dataset, model, patches = point["dataset"], point["model"], local.patches
    with named("space.dataset"):
        task = data.task(dataset)
    with named("space.model"):
        _check_options(model, json.dumps(local.model.given(model)))
        if (own := models.task_of(model)) != task:
            fit = ", ".join(name for name in models.list_models() if models.task_of(name) == task)
            raise InputError(f"{model!r} is a network for {own}, but {dataset!r} needs one for {task}: {fit}")
    with named("settings.model.networks"):
        for name, options in local.model.model_dump(mode="json")["networks"].items():
            _check_options(name, json.dumps(options))
    if task == "classification":
        if patches != Patches():
            raise InputError(f"settings.patches: {dataset!r} is a dataset for {task}, which is not cut into patches")
        return
    try:
        check_input_size(dataset, local.input_size)
    except InputError as error:
        raise InputError(f"settings.{error}") from None
    if local.augment.crop >= patches.size:
        raise InputError(
            f"settings.augment.crop: {local.augment.crop} must be less than settings.patches.size, {patches.size}"
        )


@lru_cache(maxsize=256)
def _check_options(model: str, options: str) -> None:
    """`rssearch.models.check_options`, once for the many points of a study: it may build the network."""
    models.check_options(model, json.loads(options))


def check_search(point: Config, search: Search, known: Sequence[str] | None = None) -> None:
    """Refuse objectives and constraints that no trial on the point's dataset reports.

    Args:
        point: names the dataset.
        search: has the objectives and constraints.
        known: what trials report; None for those of a pruning study.

    Raises:
        InputError: something else is named.
    """
    task = data.task(point["dataset"])
    known = known or (*metrics(task), *latency.METRICS)
    for section in ("objectives", "constraints"):
        for name in getattr(search, section):
            if name not in known:
                raise InputError(
                    f"search.{section}.{name}: {point['dataset']!r} is a dataset for {task}, whose trials report "
                    f"{', '.join(known)}; set search.objectives: {{{known[0]}: max, macs: min}}"
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


def about(images: AnySet) -> Config:
    """What a deployed network needs to know of its task and its images."""
    return {
        "task": images.task,
        "classes": images.classes,
        "input_shape": images.input_shape,
        "mean": images.mean.tolist(),
        "std": images.std.tolist(),
        **({"tiles": tiles(images)} if isinstance(images, SceneSet) else {}),
    }
