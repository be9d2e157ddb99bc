"""What the hypervolumes of a study are measured from: fixed once, kept in ``reference.json`` beside its journal.

A reference has a value for each objective of each dataset: a quality begins at chance, a cost at the largest of the
study's unpruned networks. It is written before the first trial of a study, as far as it can be known by then, and
completed at the end of the first session. Networks that come into the space later do not move it; nor do trials.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rssearch.front.pareto import Direction
from rssearch.front.trials import References, Row, by_dataset, fronts, known_reference
from rssearch.metrics import number
from rssearch.storage.artifacts import Store
from rssearch.storage.location import Location, write_atomic

if TYPE_CHECKING:
    from rssearch.config.schema import Bound, StudyConfig

Fixed = dict[str | None, dict[str, float]]  # the `References` that a study keeps

FILE = "reference.json"
SCHEMA = "rssearch.reference/1"
_COSTLY = ("input_size", "patches", "model")  # settings that change what every network costs: another scale

_log = logging.getLogger(__name__)


def read(folder: Location, objectives: Mapping[str, Direction], settings: Any = None) -> Fixed:
    """What a study's folder says of the objectives; empty where nothing is fixed yet.

    Args:
        folder: of the study.
        objectives: those that are asked for. A value that was fixed for the other direction is left out.
        settings: `scale` of the study; what was fixed for others is left out. None takes any.
    """
    try:
        document = json.loads((folder / FILE).read_text())
        if settings is not None and document["settings"] != settings:
            return {}
        wanted = [name for name, direction in objectives.items() if document["objectives"].get(name) == direction]
        listed = {entry["dataset"]: entry["reference"] for entry in document["datasets"]}
        return {
            dataset: {name: value for name in wanted if (value := number(values.get(name))) is not None}
            for dataset, values in listed.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _log.warning("%s is damaged and left out (%s: %s)", folder / FILE, type(error).__name__, error)
        return {}


def write(
    folder: Location, references: References, objectives: Mapping[str, Direction], settings: Mapping[str, Any]
) -> None:
    """Keep what is fixed. Raises OSError, as where the disk is full."""
    document = {
        "schema": SCHEMA,
        "settings": settings,
        "objectives": dict(objectives),
        "datasets": [{"dataset": name, "reference": dict(values)} for name, values in references.items()],
    }
    write_atomic(folder / FILE, json.dumps(document, indent=2, allow_nan=False) + "\n")


def scale(config: StudyConfig) -> dict[str, Any]:
    """The settings that a reference goes with, as JSON, without defaults: a later release may have more settings."""
    settings = config.settings.model_dump(mode="json", exclude_defaults=True)
    return {name: settings[name] for name in _COSTLY if name in settings}


def fixed(
    references: References,
    rows: Sequence[Row],
    objectives: Mapping[str, Direction],
    constraints: Mapping[str, Bound],
    unpruned: Iterable[Row] = (),
) -> Fixed:
    """The references of a study with what can be added to them; what they hold already stays.

    Args:
        references: what is fixed already.
        rows: the study's trials. They come before `unpruned`, because those may have come into the space later; what
            neither knows is fixed by the trials' front, see `rssearch.front.reference_point`.
        objectives: metrics and their directions.
        constraints: limits of metrics.
        unpruned: what is known of the networks before pruning and of their data: rows with ``dataset``, ``classes``
            and ``baseline_<cost>``.
    """
    groups, more = by_dataset(rows), by_dataset(unpruned)
    found = {
        dataset: known_reference(more.get(dataset, []), objectives)
        | known_reference(groups.get(dataset, []), objectives)
        | dict(references.get(dataset, {}))
        for dataset in (*references, *groups, *more)
    }
    for front in fronts(rows, objectives, constraints, found):
        if front.reference is not None:
            found[front.dataset] = front.reference
    return {dataset: values for dataset, values in found.items() if values}


def from_store(store: Store, rows: Sequence[Row], objectives: Mapping[str, Direction]) -> Fixed:
    """The qualities' part for a study that fixed nothing, from what networks in the store say of their classes."""
    found: Fixed = {}
    for dataset, group in by_dataset(rows).items():
        for row in group:
            files = store.get("models", str(row["key"]), names=["about.json"]) or {}
            if "about.json" in files:
                classes = json.loads(files["about.json"]).get("classes", ())
                found[dataset] = known_reference([{"classes": len(classes)}], objectives)
                break
    return found
