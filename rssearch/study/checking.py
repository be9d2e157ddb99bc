"""What the weights that a study begins with reach before anything is spent."""

from __future__ import annotations

from typing import Any

from rssearch.config.schema import StudyConfig
from rssearch.errors import InputError
from rssearch.study.definition import StudyDefinition
from rssearch.trial.session import Session

__all__ = ["check_baselines"]


def check_baselines(config: StudyConfig) -> list[dict[str, Any]]:
    """Measure each of a study's baselines that begins with given weights, in this process; nothing is written.

    Returns:
        A row for each baseline and normalisation, the study's own normalisation first: ``model``, ``weights``,
        ``normalize``, and on the validation images ``metric`` (accuracy or miou), ``quality`` by it, ``reordered`` (the
        quality with the order of the classes that fits best) and ``order`` (for each class, the output that fits it),
        ``other_order`` (that order in words, where the classes plainly are in another one, or None), ``best``
        (``reordered`` there, else ``quality``), ``at_chance``, ``accuracy`` (of images or pixels), ``certainty`` (the
        mean of the largest probability); ``meaning`` of the normalisation and ``warning``, sentences or None.

    Raises:
        InputError: the study cannot be run, its trial cannot check, or it names no weights.
    """
    definition = StudyDefinition(config)
    hook = definition.hook("check_baseline")
    if hook is None:
        raise InputError(f"trial {config.trial}: its module has no check_baseline")
    points = [dict(needed.point) for needed in definition.preparations(definition.points)]
    found = [row for point in points for row in hook(point, Session(definition.context(), "", point))]
    if not found:
        raise InputError("settings.model.weights: no network of the study begins with trained weights")
    return found
