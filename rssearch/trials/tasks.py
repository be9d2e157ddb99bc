"""What classification and segmentation do not have in common: metrics, the test split, what a deployment needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rssearch.config.schema import Search
from rssearch.data import AnySet, ImageSet, SceneSet
from rssearch.data.imageset import fill
from rssearch.errors import InputError
from rssearch.imaging.pixels import EIGHT_BITS
from rssearch.imaging.rasters import Layout
from rssearch.metrics import KINDS
from rssearch.report import members, predictions
from rssearch.scores import FOREGROUND, MACRO, Scores
from rssearch.scores import PER_CLASS as COUNTS
from rssearch.storage.artifacts import Files
from rssearch.train.evaluation import measured as measured_images
from rssearch.train.multilabel import THRESHOLD, LabelScores
from rssearch.train.segmentation import measured_scenes
from rssearch.trials import latency
from rssearch.trials.point import PruningPoint

Metrics = dict[str, Any]

# The first of a task is the objective; what is not defined for a dataset is left out of the others.
QUALITIES: Mapping[str, tuple[str, ...]] = {**MACRO, "segmentation": (*MACRO["segmentation"], FOREGROUND)}
PER_CLASS = tuple(f"val_{kind}_" for kind in KINDS)  # beginnings of names that end with a class
COST_METRICS = ("macs", "params", "conv_linear_macs", "macs_ratio", "params_ratio", "removed_fraction")
DEVICE_METRICS = ("bytes", "weight_bytes", "peak_activation_bytes", "bops")


def measured(task: str) -> tuple[str, ...]:
    """The qualities on the validation split, the first objective first."""
    return (*(f"val_{name}" for name in QUALITIES[task]), "val_loss")


def per_class(names: Iterable[str]) -> tuple[str, ...]:
    """The metrics of single classes among some names, without their split: recall_water."""
    return tuple(name.removeprefix("val_") for name in names if name.startswith(PER_CLASS))


def metrics(task: str) -> tuple[str, ...]:
    """What objectives and constraints may name in a pruning study of one task."""
    return (*measured(task), *COST_METRICS, *DEVICE_METRICS, "train_seconds")


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
            if name not in reported and not name.startswith(PER_CLASS) and "@" not in name:  # of a device: checked
                raise InputError(
                    f"search.{section}.{name}: {point.dataset!r} is a dataset for {task}, whose trials report "
                    f"{', '.join(reported)}, and of each class {'CLASS, '.join(PER_CLASS)}CLASS; set "
                    f"search.objectives: {{{reported[0]}: max, macs: min}}"
                )


class Tiles(TypedDict):
    """Pixels: height and width of a tile, and what neighbours share."""

    size: int
    overlap: int


def tiles(images: SceneSet) -> Tiles:
    """How whole scenes are predicted: in tiles of the patches' size that share a quarter of it."""
    size = images.input_shape[1]
    return {"size": size, "overlap": size // 4}


def tested(model: nn.Module, images: AnySet, batch_size: int, device: torch.device) -> tuple[Metrics, Files]:
    """What a network reaches on the test split, of images or of whole scenes, and the files that say it in detail.

    Where there is no test split, there are no files, and no metric but what is counted of each class: None.
    """
    split = images.split("test")
    if not len(split):
        return {f"test_{COUNTS}": None}, {}
    if isinstance(images, SceneSet):
        scores: Scores | LabelScores
        scores, files = _tested_scenes(model, images, batch_size, device)
        count = len(np.unique(images.windows[split.indices, 0]))  # of scenes
    else:
        scores, files = _tested_images(model, images, batch_size, device)
        count = len(split)
    found = scores.metrics()
    result = {f"test_{name}": found[name] for name in QUALITIES[images.task] if name in found}
    return result | {"test_images": count, f"test_{COUNTS}": scores.per_class.to_json()}, files


def _tested_images(
    model: nn.Module, images: ImageSet, batch_size: int, device: torch.device
) -> tuple[Scores | LabelScores, Files]:
    split, probabilities = images.split("test"), list[Tensor]()

    def keep(logits: Tensor) -> None:
        chances = logits.float().sigmoid() if split.task == "multilabel" else logits.float().softmax(1)
        probabilities.append(chances.cpu())

    scores = measured_images(model, split, batch_size=batch_size, device=device, on_logits=keep)
    if isinstance(scores, LabelScores):
        chances = torch.cat(probabilities).numpy()
        return scores, members.files_of_labels(
            scores.per_class, members.labels_csv(images.test_names, split.labels, chances, scores.classes)
        )
    table = members.predictions_csv(images.test_names, split.labels, torch.cat(probabilities).numpy(), scores.classes)
    return scores, members.files(scores, table)


def _tested_scenes(model: nn.Module, images: SceneSet, batch_size: int, device: torch.device) -> tuple[Scores, Files]:
    scenes: dict[str, npt.NDArray[np.int64]] = {}
    scores = measured_scenes(
        model,
        images.split("test"),
        **tiles(images),
        batch_size=batch_size,
        device=device,
        on_scene=lambda name, matrix: scenes.update({name: matrix}),
    )
    return scores, members.files(scores, members.scenes_csv(scenes, scores.classes))


def picture(model: nn.Module, images: AnySet, batch_size: int, device: torch.device) -> bytes | None:
    """What a network predicts on a few scenes of the test split, or of the validation split, as a PNG.

    None for images.
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
        **({"threshold": THRESHOLD} if images.task == "multilabel" else {}),
    }
