"""What is known of a study's networks before pruning, and of their data, without training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from rssearch.config.space import content_key
from rssearch.errors import InputError, TrialFailed
from rssearch.front.trials import References, dataset_of

_SAME_NETWORK = ("seed", "methods")  # a dimension, and what preparations add, that change no cost
_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from rssearch.study.definition import StudyDefinition


def unpruned(definition: StudyDefinition, known: References) -> list[dict[str, Any]]:
    """A row for each network of a study before pruning, as far as its trial's module knows them without training.

    Nothing is looked at where all references are `known`.
    """
    from rssearch.study.definition import LOOKED_AT, spread
    from rssearch.trial.session import Session

    hook, objectives = definition.hook("unpruned"), definition.config.search.objectives
    if hook is None or all(known.get(dataset_of(p), {}).keys() >= objectives.keys() for p in definition.points):
        return []
    points = [dict(needed.point) for needed in definition.sure_preparations()] or definition.points
    plain = [{name: value for name, value in point.items() if name not in _SAME_NETWORK} for point in points]
    distinct = list({content_key(few): point for few, point in zip(plain, points, strict=True)}.values())
    rows = []
    for point in spread(distinct, LOOKED_AT):
        try:
            rows.append({"dataset": dataset_of(point), **hook(point, Session(definition.context(), "", point))})
        except (TrialFailed, InputError) as error:  # the trial will say so
            _log.info("%s: %s", definition.title(point), error)
    return rows
