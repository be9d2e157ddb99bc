"""What a network reaches under one normalisation, and why it may measure too low, in words.

What explains it comes first, and nothing that was tried in vain is called a cause.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, zeros_like

from rssearch.errors import cut
from rssearch.train.segmentation import miou

_OVERCONFIDENT = 0.2  # more certain than right by so much: no network is that on images like those it was trained on
_BETTER = 0.1  # what another normalisation or order has to gain to be named
_SURE = 4.5  # minus the logarithm of a probability: three standard deviations
_MOST = 300  # letters of an order
QUANTITIES = {"accuracy": "of the validation images", "miou": "mIoU on the validation images"}


class Reached(NamedTuple):
    """What a network reaches on a split, or on images spread over a large one, under one normalisation.

    Attributes:
        normalize: as a study says it.
        metric: the quality that a study compares by: accuracy or miou.
        quality: that, in the order that the classes have here.
        reordered: likewise, in the order of the classes that fits best.
        order: that order: for each class here, which of the network's outputs fits it best.
        accuracy: of images, or of labelled pixels.
        reordered_accuracy: likewise, in the order that fits best.
        confidence: mean of the largest probability.
        at_least: the quality of naming the most frequent class alone.
        chance: the accuracy of that.
        measured: images, or labelled pixels.
    """

    normalize: str
    metric: str
    quality: float
    reordered: float
    order: tuple[int, ...]
    accuracy: float
    reordered_accuracy: float
    confidence: float
    at_least: float
    chance: float
    measured: int

    @property
    def at_chance(self) -> bool:
        """Whether it is no better than three standard deviations above naming the most frequent class."""
        return self.quality <= self.at_least + 3 * math.sqrt(self.chance * (1 - self.chance) / self.measured)

    @property
    def is_reordered(self) -> bool:
        """Whether its classes are in another order: that order gains much, and more than the best of all by chance."""
        return self.reordered >= self.quality + _BETTER and self._surprise > _SURE + math.lgamma(len(self.order) + 1)

    @property
    def _surprise(self) -> float:
        """Minus the logarithm of a bound (Chernoff's) on the probability that one order reaches this by chance."""
        hit, chance = self.reordered_accuracy, self.chance
        if hit <= chance:
            return 0.0
        missed = (1 - hit) * math.log((1 - hit) / (1 - chance)) if hit < 1 else 0.0
        return self.measured * (hit * math.log(hit / chance) + missed)

    @property
    def best(self) -> float:
        """The quality, in the order of the classes that the network has."""
        return self.reordered if self.is_reordered else self.quality

    @property
    def is_suspicious(self) -> bool:
        """Whether it is at chance, in another order, or far below what its own certainty suggests."""
        return self.at_chance or self.is_reordered or self.accuracy < self.confidence - _OVERCONFIDENT


def of_matrix(matrix: Tensor, confidence: float, normalize: str, metric: str) -> Reached:
    """What a confusion matrix says: int64 [K, K], its rows the labels."""
    count, frequent = int(matrix.sum()), int(matrix.sum(1).argmax())
    order = _best_order(matrix.numpy(), metric)
    naming_one = zeros_like(matrix)
    naming_one[:, frequent] = matrix.sum(1)

    def quality(of: Tensor) -> float:
        return miou(of) if metric == "miou" else float(of.trace()) / count

    return Reached(
        normalize=normalize,
        metric=metric,
        quality=quality(matrix),
        reordered=quality(matrix[:, order]),
        order=tuple(order),
        accuracy=float(matrix.trace()) / count,
        reordered_accuracy=float(matrix[:, order].trace()) / count,
        confidence=confidence,
        at_least=quality(naming_one),
        chance=float(matrix.sum(1).max()) / count,
        measured=count,
    )


def _best_order(table: npt.NDArray[np.int64], metric: str) -> list[int]:
    """For each class the output that fits it best, no two the same; of equal orders one that moves few classes."""
    from scipy.optimize import linear_sum_assignment  # only here: it takes long to import

    gains = table.astype(np.float64)
    if metric == "miou":
        gains /= np.maximum(table.sum(1)[:, None] + table.sum(0)[None] - table, 1)
    own = 1e-9 * max(float(gains.max()), 1.0)
    _, columns = linear_sum_assignment(-(gains + own * np.eye(len(table))))
    return [int(column) for column in columns]


def said(weights: str, found: Sequence[Reached], classes: Sequence[str]) -> str:
    """What is to be said of weights that measure too low.

    Args:
        weights: their name.
        found: what they reach, first as the study normalises.
        classes: their names, in the order that they have here.
    """
    first = found[0]
    quantity = QUANTITIES[first.metric]
    state = ", at chance" if first.at_chance else f", and are {first.confidence:.0%} certain of them"
    begin = f"the weights {weights} reach {first.quality:.1%} {quantity}{'' if first.is_reordered else state}"
    causes = sorted(_causes(found, classes), reverse=True)
    if causes:
        # What reaches much less than another cause explains nothing beside it.
        texts = [text for reached, text in causes if reached > causes[0][0] - _BETTER]
        return f"{begin}. What explains it: {'; or '.join(texts)}"
    tried = "no other normalisation that was tried and no other order of the classes gives clearly more"
    if first.at_chance:
        names = ", ".join(row.normalize for row in found)
        return f"{begin}; {tried} ({names}). Their images may have had another depth or unit, or other classes"
    return f"{begin}; {tried}: networks that were trained for long are often too certain"


def _causes(found: Sequence[Reached], classes: Sequence[str]) -> Iterator[tuple[float, str]]:
    """What would be reached, and by what."""
    first = found[0]
    other = max(found, key=lambda row: row.quality)
    if other.quality >= first.quality + _BETTER:
        yield other.quality, f"normalisation: with settings.normalize: {other.normalize} it is {other.quality:.1%}"
    reordered = [row for row in found if row.is_reordered]
    if reordered:
        best = max(reordered, key=lambda row: row.reordered)
        also = "" if best.normalize == first.normalize else f"settings.normalize: {best.normalize} and "
        yield best.reordered, f"class order: with {also}{order_text(best.order, classes)} it is {best.reordered:.1%}"


def order_text(order: Sequence[int], classes: Sequence[str]) -> str:
    """An order of the classes: the rows of the last layer to take, and what the network's outputs are."""
    outputs = sorted(range(len(order)), key=lambda label: order[label])
    names = cut(", ".join(classes[label] for label in outputs), _MOST)
    return f"rows {cut(str(list(order)), _MOST)} of the last layer (its classes seem to be {names})"
