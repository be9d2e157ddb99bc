"""The command that makes one network smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rssearch.cli.arguments import Assignments
from rssearch.cli.output import console
from rssearch.study.shrink_defaults import EPOCHS, METHOD


def shrink(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A network's name, see `rssearch models`.")],
    data: Annotated[str, typer.Option(metavar="DATASET", help="A dataset's name, or folder:PATH.")],
    macs: Annotated[float | None, typer.Option(metavar="RATIO", help="The share of the MACs to be left.")] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="At most so long for an image here, instead of --macs."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Trained weights, a file or a name; else it is trained first.")
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="dataset, imagenet, weights, none, or '{mean: [0.5], std: [0.5]}'; for a file: what measures best.",
        ),
    ] = None,
    method: Annotated[str, typer.Option(metavar="NAME", help="Of the pruning, see `rssearch methods`.")] = METHOD,
    epochs: Annotated[int, typer.Option(metavar="N", help="Of the fine-tuning.")] = EPOCHS,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the bundle; new or empty.")] = Path("net"),
    data_root: Annotated[str | None, typer.Option(metavar="DIR", help="Where the datasets are; default: data.")] = None,
    storage: Annotated[str | None, typer.Option(metavar="PLACE", help="Of the study; default: results.")] = None,
    assignments: Assignments = None,
) -> None:
    """Make one network smaller: prune, fine-tune, export, and a table of what was lost and gained."""
    from rssearch.config.loading import parse_assignment, value_of
    from rssearch.study import shrinking

    request = shrinking.Request(
        model=model,
        data=data,
        macs_ratio=macs,
        latency_ms=latency_ms,
        weights=weights,
        normalize=None if normalize is None else value_of("--normalize", normalize),
        method=method,
        epochs=epochs,
        more=dict(parse_assignment(text) for text in assignments or []),
    )
    places = {name: value for name, value in {"data_root": data_root, "storage": storage}.items() if value is not None}
    shrinking.check(request, out, places)
    # Ray, torch and MLflow take seconds to import and to start.
    console.print(f"shrink {model}: getting ready; the network goes to {out}", soft_wrap=True)
    raise typer.Exit(shrinking.shrink(request, out, places, console))
