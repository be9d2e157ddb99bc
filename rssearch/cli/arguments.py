"""The arguments and options that several commands share, and the study that they give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rssearch.config import shipped

if TYPE_CHECKING:
    from rssearch.config.schema import StudyConfig

Space = Annotated[str, typer.Argument(metavar="SPACE", help="A YAML file, or the name of a shipped study.")]
DataRoot = Annotated[
    str | None,
    typer.Option("--data-root", metavar="DIR", help="Where the datasets are, instead of what the YAML says."),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PLACE",
        help="Where results, baselines and checkpoints go, instead of what the YAML says: a folder, or s3://...",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        envvar="RSSEARCH_TRACKING_URI",  # other users see arguments, not the environment
        help="An MLflow server or database; default: one in the storage.",
    ),
]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Replace a value of the YAML; repeatable.")
]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")]
StudyStorage = Annotated[str, typer.Option("--storage", metavar="PLACE", help="Where the study's results are.")]
TrialKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="The key of a trial, or its beginning if no other key begins so.")
]
Selection = Annotated[
    str, typer.Option(metavar="CRITERION", help="knee, accuracy, or a bound of a metric: 'macs<=20M', 'val_miou>=0.6'.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DatasetRoot = Annotated[Path, typer.Option("--data-root", metavar="DIR", help="Where the datasets are.")]


def load(
    space: str, data_root: str | None, storage: str | None, tracking_uri: str | None, assignments: list[str] | None
) -> StudyConfig:
    """The study of a YAML file, or a shipped one, with the values that the options replace."""
    from rssearch.config.loading import load_study, parse_assignment

    overrides: dict[str, Any] = dict(parse_assignment(text) for text in assignments or [])
    options = {"data_root": data_root, "storage": storage, "tracking_uri": tracking_uri}
    overrides |= {name: value for name, value in options.items() if value is not None}
    return load_study(shipped.find(space), overrides)
