"""How a study is shown in the MLflow UI: its description and two saved views, all of them tags of the experiment.

MLflow's own view of an experiment shows no metric, a chart for every number, and the summary among the trials. A saved
view is what its "Share" button writes: the tag ``mlflow.sharedViewState.<name>`` with the filter, the order, the
columns and the charts as JSON. A UI that does not understand it says so and shows its own view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rssearch.config.space import Dimension
from rssearch.front.pareto import Direction

TRIALS, FRONT = "rssearch-trials", "rssearch-front"  # names in the address: ...?viewStateShareKey=rssearch-front
_CREATED = 1_750_000_000_000  # MLflow wants a time; a fixed one makes equal studies have equal tags
_SECTION = "rssearch"
_NAME, _NAME_WIDTH = "attributes.`Run Name`", 340  # pixels

_DESCRIPTION = """\
A study of **rssearch**; objectives: {objectives}. A run is a trial, one configuration.

* **Views > Trials** (above on the right): all of them, the best first. **Views > Front**: the Pareto front alone.
  The button with the curve shows them as a scatter plot, in parallel coordinates, and by epoch.
* The run **study {study}** has the hypervolume as it grew, and under *Artifacts* the front: `front.html`, `front.png`.
* Filters: `tags.rssearch.pareto = 'true'`, `tags.rssearch.status = 'failed'`, `{filter}`.
"""


def experiment_tags(study: str, objectives: Mapping[str, Direction], space: Mapping[str, Dimension]) -> dict[str, str]:
    """Description, kind and saved views of a study's experiment.

    Args:
        study: its name.
        objectives: metrics and directions. Trials are ordered by the first to maximise, or by the first of all.
        space: its dimensions; those with more than one value get a column and an axis.
    """
    dimensions = [name for name, dimension in space.items() if (cells := dimension.cells()) is None or len(cells) > 1]
    quality = _quality(objectives)
    example = f"metrics.{quality} > 0.8" if objectives[quality] == "max" else f"metrics.{quality} < 1"
    directions = ", ".join(f"`{name}` ({direction})" for name, direction in objectives.items())
    columns = _columns(objectives, dimensions)
    trials = {
        "searchFilter": "tags.`rssearch.kind` = 'trial' and tags.`rssearch.pareto` != 'superseded'",
        "orderByKey": f"metrics.`{quality}`",
        "orderByAsc": objectives[quality] == "min",
        "selectedColumns": columns,
        "columnOrder": [_NAME, *columns],
        "columnWidths": {_NAME: _NAME_WIDTH},
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,  # the sections stand as they are listed, not by name
        "compareRunSections": [
            _section(_SECTION, study, shown=True),
            _section("best", "best", shown=False),  # MLflow makes these two of all other metrics
            _section("rest", "Model metrics", shown=False),
        ],
        "compareRunCharts": _charts(objectives, dimensions),
    }
    front = trials | {"searchFilter": "tags.`rssearch.pareto` = 'true'"}
    return {
        "mlflow.note.content": _DESCRIPTION.format(study=study, objectives=directions, filter=example),
        "mlflow.experimentKind": "custom_model_development",  # opened among the trained models, not among the agents
        f"mlflow.sharedViewState.{TRIALS}": _saved("Trials", trials),
        f"mlflow.sharedViewState.{FRONT}": _saved("Front", front),
    }


def address(server: str, experiment: str, view: str = TRIALS, *, charts: bool = False) -> str:
    """Where a saved view of an experiment is in the UI of a server."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}{mode}"


def _quality(objectives: Mapping[str, Direction]) -> str:
    return next((name for name, direction in objectives.items() if direction == "max"), next(iter(objectives)))


def _columns(objectives: Mapping[str, Direction], dimensions: Sequence[str]) -> list[str]:
    metrics = dict.fromkeys(n for name in objectives for n in (name, name.replace("val_", "test_", 1)))
    return [
        *(f"metrics.`{name}`" for name in metrics),
        *(f"params.`{name}`" for name in dimensions),
        "attributes.`Duration`",
    ]


def _charts(objectives: Mapping[str, Direction], dimensions: Sequence[str]) -> list[dict[str, Any]]:
    """Quality against cost, parallel coordinates, and quality by epoch."""
    quality = _quality(objectives)
    costs = [name for name in objectives if name != quality]
    plots = [
        _chart(f"{quality} against {cost}", "SCATTER", xaxis=_metric(cost), yaxis=_metric(quality)) for cost in costs
    ]
    parallel = _chart(
        "Parallel coordinates",
        "PARALLEL",
        selectedParams=[*dimensions],
        selectedMetrics=[*costs, quality],  # the last one gives the colours
        showAllRuns=True,
    )
    curves = _chart(f"{quality} by epoch", "LINE", metricKey=quality, selectedMetricKeys=[quality], xAxisKey="step")
    return [*plots, parallel, curves]


def _metric(name: str) -> dict[str, str]:
    return {"key": name, "type": "METRIC"}


def _chart(name: str, kind: str, **more: Any) -> dict[str, Any]:
    about = {"uuid": f"rssearch {name}", "type": kind, "displayName": name, "metricSectionId": _SECTION}
    return {"runsCountToCompare": 100, "deleted": False, "isGenerated": False} | about | more


def _section(identity: str, name: str, *, shown: bool) -> dict[str, Any]:
    about = {"uuid": identity, "name": name, "display": shown}
    return about | {"isReordered": False, "deleted": False, "isGenerated": False}


def _saved(name: str, state: Mapping[str, Any]) -> str:
    return json.dumps({"name": name, "createdAt": _CREATED, "updatedAt": _CREATED, "state": json.dumps(state)})
