"""What `rssearch shrink` begins with: how the images of a file of weights were normalised, and whether it fits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rssearch import models
from rssearch.config import plain_yaml
from rssearch.config.loading import override_settings
from rssearch.config.schema import StudyConfig
from rssearch.errors import InputError
from rssearch.study.checking import check_baselines

__all__ = ["Begun", "begin", "choose", "fetch"]

_CLASSES = 2  # of a network that is only fetched

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Begun:
    """A study whose normalisation is settled.

    Attributes:
        config: of the study.
        line: what was chosen, and why; None where there was no choice.
        warning: what is to be said of the baseline, above all at the end; None: nothing.
    """

    config: StudyConfig
    line: str | None = None
    warning: str | None = None


def fetch(config: StudyConfig, model: str) -> None:
    """Fetch the named weights of a network into the cache of this machine, before anything is started.

    Raises:
        InputError: they cannot be fetched.
    """
    models.create(model, _CLASSES, **config.settings.model.given(model))


def begin(config: StudyConfig, weights: str) -> Begun:
    """Measure a file of weights under what its images are often normalised by, and take what measures best.

    A normalisation that the study says stays.

    Raises:
        InputError: its classes are in another order than those of the images, or it is at chance under each.
    """
    found = check_baselines(config)
    if config.settings.normalize is not None:
        _check_order(weights, found[0])
        return Begun(config, warning=found[0]["warning"])
    best = choose(weights, found)
    settings = override_settings(config.settings, {"normalize": plain_yaml.load(best["normalize"])})
    return Begun(config.model_copy(update={"settings": settings}), _line(best, found))


def choose(weights: str, found: Sequence[Row]) -> Row:
    """The row of the normalisation under which weights measure best, whatever order their classes are in.

    Args:
        weights: their name.
        found: of `rssearch.study.checking.check_baselines`.

    Raises:
        InputError: then the classes are in another order than those of the images, or the network is at chance.
    """
    best = max(found, key=lambda row: float(row["best"]))
    _check_order(weights, best)
    if best["at_chance"]:
        why = best["warning"] or f"the weights {weights} are at chance under each normalisation that was tried"
        raise InputError(f"--weights {weights}: {why}. To prune it all the same, name a --normalize")
    return best


def _check_order(weights: str, row: Row) -> None:
    if row["other_order"] is None:
        return
    raise InputError(
        f"--weights {weights}: its classes are in another order than those of the images: with normalize: "
        f"{row['normalize']} {_quality(row)} is {row['quality']:.1%} in their order, and {row['reordered']:.1%} with "
        f"{row['other_order']}. Save it with its last layer in this order: weight = weight[rows], bias = bias[rows]"
    )


def _line(best: Row, found: Sequence[Row]) -> str:
    measured = ", ".join(f"{row['normalize']} {row['quality']:.1%}" for row in found)
    meaning = f" ({best['meaning']})" if best["meaning"] else ""
    what = "mIoU: " if best["metric"] == "miou" else ""
    return f"normalize: {best['normalize']}{meaning}, the best on the validation images ({what}{measured})"


def _quality(row: Row) -> str:
    return {"miou": "mIoU"}.get(row["metric"], str(row["metric"]))
