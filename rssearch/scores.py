"""How well each class is recognised, and means over the classes, from integers that are counted once.

Everything follows from the confusion matrix of the samples (images, or the labelled pixels of masks), and the
calibration from bins of confidence. Conventions are those of scikit-learn and torchmetrics: the recall of a class that
no sample has is not defined, and it is left out of means; the precision of a class that is never predicted is 0 where
samples have it; precision, F1 and IoU of a class that is neither in the labels nor in the predictions are not defined.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError, shown
from rssearch.metrics import KINDS, of_class

__all__ = [
    "BACKGROUND",
    "BINS",
    "CONFIDENCE_UNIT",
    "FOREGROUND",
    "MACRO",
    "PER_CLASS",
    "PerClass",
    "Scores",
    "background",
    "calibration_error",
    "check_name",
    "derived",
    "names_of",
    "pooled",
    "slugs",
]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Task = Literal["classification", "segmentation"]

BINS = 15  # of confidence, of equal width; a confidence of exactly 1 has one of its own, as in torchmetrics
CONFIDENCE_UNIT = 2.0**-30  # confidences are added as multiples of it: integers, in any order the same
BACKGROUND = "background"
FOREGROUND = "miou_foreground"
PER_CLASS = "per_class"  # val_per_class in a record has the counts of `PerClass`
# What every evaluation gives beside the loss; of masks with a background `FOREGROUND`, too.
MACRO: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1", "balanced_accuracy", "kappa", "ece"),
    "segmentation": ("miou", "pixel_accuracy", "macro_f1", "balanced_accuracy", "kappa", "ece"),
    "multilabel": ("map", "macro_f1", "micro_f1"),
}
_LISTED = 60  # classes that a message names


@dataclass(frozen=True)
class PerClass:
    """What is counted of each class: all that a report needs of a confusion matrix, in 3 K integers.

    Attributes:
        classes: K names.
        true: int64 [K], samples of each class.
        predicted: int64 [K], samples that were given it.
        right: int64 [K], samples of it that were given it.
    """

    classes: tuple[str, ...]
    true: Integers
    predicted: Integers
    right: Integers

    @classmethod
    def of(cls, matrix: Integers, classes: Sequence[str]) -> PerClass:
        """From a confusion matrix int64 [K, K], a row for each true class."""
        return cls(tuple(classes), matrix.sum(1), matrix.sum(0), matrix.diagonal().copy())

    @classmethod
    def read(cls, value: Any) -> PerClass | None:
        """From a record; None where it has none, or something else."""
        if not isinstance(value, Mapping):
            return None
        classes, counts = value.get("classes"), [value.get(name) for name in ("true", "predicted", "right")]
        if not isinstance(classes, list) or not all(_are_counts(found, len(classes)) for found in counts):
            return None
        true, predicted, right = (np.array(found, dtype=np.int64) for found in counts)
        return cls(tuple(map(str, classes)), true, predicted, right)

    def to_json(self) -> dict[str, list[Any]]:
        """For a record."""
        counts = {"true": self.true, "predicted": self.predicted, "right": self.right}
        return {"classes": list(self.classes), **{name: found.tolist() for name, found in counts.items()}}

    def rates(self, kind: str) -> Floats:
        """A metric of each class, float64 [K]; NaN where it is not defined.

        Args:
            kind: one of `rssearch.metrics.KINDS`: accuracy is the recall, the share of a class that is found (the
                producer's accuracy of remote sensing, and what torchmetrics calls the accuracy of a class); precision
                the share of what is called so that is it (the user's accuracy); f1 their harmonic mean; iou the
                intersection over union.
        """
        either = self.true + self.predicted - self.right
        match kind:
            case "accuracy" | "recall":
                return _ratio(self.right, self.true, self.true > 0)
            case "precision":
                return _ratio(self.right, np.maximum(self.predicted, 1), either > 0)
            case "f1":
                return _ratio(2 * self.right, self.true + self.predicted, either > 0)
            case "iou":
                return _ratio(self.right, either, either > 0)
        raise ValueError(kind)

    @cached_property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that are in the labels or in the predictions."""
        return _mean(self.rates("f1"))

    @cached_property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that are in the labels."""
        return _mean(self.rates("recall"))

    @cached_property
    def kappa(self) -> float:
        """Cohen's kappa (1960), the agreement beyond chance; NaN where labels and predictions are of one class."""
        count = int(self.true.sum())
        by_chance = sum(t * p for t, p in zip(self.true.tolist(), self.predicted.tolist(), strict=True))
        if by_chance == count**2:
            return float("nan")
        return float(Fraction(int(self.right.sum()) * count - by_chance, count**2 - by_chance))

    @cached_property
    def miou_foreground(self) -> float | None:
        """The mean IoU of all classes but the background; None where no class is the background."""
        place = background(self.classes)
        return None if place is None else _mean(np.delete(self.rates("iou"), place))

    def value(self, kind: str, name: str) -> float | None:
        """A metric of the class with this name as `slugs` writes it; None where there is none, or it is not defined."""
        places = [place for place, slug in enumerate(slugs(self.classes)) if slug == name]
        found = self.rates(kind)[places[0]].item() if len(places) == 1 else float("nan")
        return None if np.isnan(found) else float(found)


@dataclass(frozen=True)
class Scores:
    """What an evaluation has counted.

    Attributes:
        task: of the dataset.
        classes: K names.
        matrix: int64 [K, K], samples of each true class (row) that were given each class (column).
        bins: int64 [3, BINS + 1]: samples, right ones, and the sum of the confidences, in `CONFIDENCE_UNIT`.
        loss: mean cross entropy of the samples.
    """

    task: Task
    classes: tuple[str, ...]
    matrix: Integers
    bins: Integers
    loss: float

    @cached_property
    def per_class(self) -> PerClass:
        """What is counted of each class."""
        return PerClass.of(self.matrix, self.classes)

    def metrics(self, names: Iterable[str] = ()) -> dict[str, float]:
        """The loss, those of `MACRO`, `FOREGROUND` where there is a background, and metrics of single classes.

        Args:
            names: of the metrics of single classes, such as ``recall_water``.
        """
        found, count = self.per_class, int(self.matrix.sum())
        right = int(found.right.sum()) / count if count else float("nan")
        known = {"accuracy": right} if self.task == "classification" else self._of_masks(right)
        macro = {"macro_f1": found.macro_f1, "balanced_accuracy": found.balanced_accuracy, "kappa": found.kappa}
        single = {}
        for name in names:
            kind, _, of = name.partition("_")
            value = found.value(kind, of)
            single[name] = float("nan") if value is None else value
        return {"loss": self.loss, **known, **macro, "ece": calibration_error(self.bins), **single}

    def _of_masks(self, right: float) -> dict[str, float]:
        foreground = self.per_class.miou_foreground
        known = {"miou": _mean(self.per_class.rates("iou")), "pixel_accuracy": right}
        return known if foreground is None else {**known, FOREGROUND: foreground}


def calibration_error(bins: Integers) -> float:
    """Expected calibration error: how far the confidence is from the share of right answers, mean of the samples.

    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning"; Guo et al. 2017, with 15 bins.

    Args:
        bins: as in `Scores`.
    """
    count, right, confidence = bins
    total = int(count.sum())
    return float(np.abs(right - confidence * CONFIDENCE_UNIT).sum() / total) if total else float("nan")


def slugs(classes: Iterable[str]) -> list[str]:
    """The names of classes as they are part of the names of metrics: a to z, digits and ``_``.

    Letters lose their accents, and whatever else stands between them becomes ``_``; a name without any such letter is
    ``class_<number>``, counted from 0.
    """
    found = []
    for number, name in enumerate(classes):
        plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
        found.append(re.sub(r"[^a-z0-9]+", "_", plain).strip("_") or f"class_{number}")
    return found


def background(classes: Iterable[str]) -> int | None:
    """The number of the class that is called background, in whatever case; None where there is none."""
    return next((number for number, slug in enumerate(slugs(classes)) if slug == BACKGROUND), None)


def names_of(classes: Iterable[str], split: str = "val") -> list[str]:
    """The names of all metrics of single classes."""
    found = slugs(classes)
    return [f"{split}_{kind}_{slug}" for kind in KINDS for slug in found]


def check_name(name: str, classes: Sequence[str], dataset: str) -> None:
    """Refuse a metric of one class, or of the foreground, that a dataset has not. Other names are not looked at.

    Raises:
        InputError: no class is called so, or two are; or none is the background.
    """
    if name.endswith(FOREGROUND):
        if background(classes) is None:
            raise InputError(f"{dataset!r} has no class called {BACKGROUND!r}. {_listed(classes)}")
        return
    if (one := of_class(name)) is None:
        return
    prefix, kind, wanted = one
    fits = [label for label, slug in zip(classes, slugs(classes), strict=True) if slug == wanted]
    if len(fits) > 1:
        raise InputError(
            f"{dataset!r} has {len(fits)} classes that are written {wanted} in names of metrics "
            f"({', '.join(map(shown, fits))}): give them names that differ in letters or digits"
        )
    if not fits:
        near = difflib.get_close_matches(wanted, slugs(classes), n=1, cutoff=0.6)
        hint = f" Did you mean {f'{prefix}{kind}_{near[0]}'!r}?" if near else ""
        raise InputError(f"{dataset!r} has no class {wanted!r}.{hint} {_listed(classes)}")


def derived(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """Metrics of single classes that a record does not have by name, but can tell from what it counted.

    Args:
        values: of the record, with ``val_per_class`` and the like.
        names: of metrics; others, and what is not defined, are left out.
    """
    found = {}
    for name in names:
        if name in values or (one := of_class(name)) is None:
            continue
        prefix, kind, of = one
        counted = PerClass.read(values.get(prefix + PER_CLASS))
        value = None if counted is None else counted.value(kind, of)
        if value is not None:
            found[name] = value
    return found


def pooled(values: Iterable[Any]) -> dict[str, list[Any]] | None:
    """The counts of several records together, such as those of several seeds; None where they cannot be added."""
    found = [PerClass.read(value) for value in values]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found) or len({one.classes for one in known}) > 1:
        return None
    true, predicted, right = (sum(getattr(one, n) for one in known) for n in ("true", "predicted", "right"))
    return PerClass(known[0].classes, true, predicted, right).to_json()


def _listed(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - _LISTED} more" if len(classes) > _LISTED else ""
    return f"Its classes: {', '.join(slugs(classes)[:_LISTED])}{more}."


def _are_counts(value: Any, length: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**63 for item in value)
    )


def _ratio(above: Integers, below: Integers, defined: npt.NDArray[np.bool_]) -> Floats:
    found = np.full(len(above), np.nan)
    np.divide(above, below, out=found, where=defined)
    return found


def _mean(values: Floats) -> float:
    """The mean of what is defined; NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
