"""Classes of which there are few images: weights in the loss, and epochs in which each class comes equally often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rssearch.config.settings import Recipe
from rssearch.data import AnyDataset
from rssearch.data.sampling import index_classes
from rssearch.errors import InputError, unknown
from rssearch.train import losses, overlap

__all__ = ["LabelLoss", "check_classes", "check_task", "class_weights", "label_loss", "members", "named_loss"]

LabelLoss = Callable[[Tensor, Tensor], Tensor]  # of logits and targets, a mean

_OVERLAP = {"dice": overlap.dice, "lovasz": overlap.lovasz}
_PLUS = "_cross_entropy"


def check_task(recipe: Recipe, task: str) -> None:
    """Refuse a loss that is not defined for a task's targets. Raises InputError."""
    if task == "multilabel":
        if recipe.loss != "cross_entropy":
            raise InputError(
                f"loss: {recipe.loss!r} is for one label; for {task} there is cross_entropy, of each class by itself"
            )
        if recipe.class_weights is not None:
            raise InputError(f"class_weights: is for one label; for {task} it must be null")
        return
    if recipe.loss.removesuffix(_PLUS) in _OVERLAP and task != "segmentation":
        raise InputError(
            f"loss: {recipe.loss!r} compares masks, for segmentation; for {task} there are cross_entropy, "
            "adaptive_mining and focal"
        )


def check_classes(recipe: Recipe, classes: Sequence[str]) -> None:
    """Refuse weights of classes that a dataset does not have. Raises InputError."""
    given = recipe.class_weights
    if isinstance(given, dict):
        for name in given:
            if name not in classes:
                raise InputError(f"class_weights: {unknown('class', name, classes)}")
    elif isinstance(given, tuple) and len(given) != len(classes):
        raise InputError(
            f"class_weights: {len(given)} numbers, but there are {len(classes)} classes: {', '.join(classes)}"
        )


def class_weights(
    recipe: Recipe, classes: Sequence[str], totals: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64] | None:
    """The weight of each class in the loss, scaled so that it is 1 on average over the training samples.

    ``balanced`` is n / (K n_k) for n samples of K classes, n_k of them of class k (King and Zeng, "Logistic regression
    in rare events data", 2001; scikit-learn's formula). Samples are images, or labelled pixels of masks, whose
    weights are those of median frequency balancing up to a factor (Eigen and Fergus, ICCV 2015).

    Args:
        recipe: says which.
        classes: names in the order of the labels.
        totals: how many training samples each class has; one without any weighs 1.

    Returns:
        float64 [K]; None where all classes weigh the same.

    Raises:
        InputError: see `check_classes`.
    """
    check_classes(recipe, classes)
    given = recipe.class_weights
    if given is None:
        return None
    if given == "balanced":
        weights = 1 / np.maximum(totals, 1)
    elif isinstance(given, dict):
        weights = np.array([given.get(name, 1.0) for name in classes])
    else:
        weights = np.array(given, np.float64)
    there = totals > 0
    if not there.any():
        return None
    mean = (weights * totals).sum() / totals.sum()
    return np.where(there, weights / mean, 1.0)


def label_loss(recipe: Recipe, train: AnyDataset, device: torch.device) -> LabelLoss:
    """The loss of a recipe on the labels of a training split.

    Raises:
        InputError: it is not defined for this task, or the weights are not of these classes.
    """
    check_task(recipe, train.task)
    if recipe.class_weights is None:
        return named_loss(recipe)
    check_classes(recipe, train.classes)
    weights = class_weights(recipe, train.classes, index_classes(train).totals)
    return named_loss(recipe, None if weights is None else torch.from_numpy(weights).float().to(device))


def named_loss(recipe: Recipe, weight: Tensor | None = None) -> LabelLoss:
    """The loss that a recipe names, with weights [K] of the classes, float32 on the device."""
    smoothing = recipe.label_smoothing
    if recipe.loss == "adaptive_mining":
        return partial(losses.adaptive_mining, label_smoothing=smoothing, weight=weight)
    if recipe.loss == "focal":
        return partial(losses.focal, label_smoothing=smoothing, weight=weight, gamma=recipe.focal_gamma)
    samples = partial(losses.cross_entropy, label_smoothing=smoothing, weight=weight)
    if recipe.loss == "cross_entropy":
        return samples
    images = partial(_OVERLAP[recipe.loss.removesuffix(_PLUS)], weight=weight)
    # Both with weight 1, as nnU-Net adds them (Isensee et al., Nature Methods 2021).
    return partial(_sum, images, samples) if recipe.loss.endswith(_PLUS) else images


def _sum(first: LabelLoss, second: LabelLoss, logits: Tensor, targets: Tensor) -> Tensor:
    return first(logits, targets) + second(logits, targets)


def members(recipe: Recipe, train: AnyDataset) -> tuple[npt.NDArray[np.int64], ...] | None:
    """The images of each class, where the recipe balances its epochs by them; None: each image comes once."""
    return index_classes(train).members if recipe.sampling == "balanced" else None
