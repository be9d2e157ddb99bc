"""Commands that plan and run a study."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rssearch.cli.arguments import Assignments, DataRoot, Space, Storage, TrackingUri, load
from rssearch.cli.output import console
from rssearch.config import plain_yaml
from rssearch.storage import uris


def plan(
    space: Space,
    data_root: DataRoot = None,
    storage: Storage = None,
    assignments: Assignments = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every default of the YAML.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the whole YAML, too, with every default.")] = False,
) -> None:
    """Show what would run and what it would cost. Nothing is trained."""
    from rssearch.study import run

    result = run.plan(load(space, data_root, storage, None, assignments))
    if as_json:
        console.print_json(json.dumps(result.to_json()))
        return
    for line in result.lines():
        console.print(line, soft_wrap=True)
    if verbose:
        print(f"\n{plain_yaml.dump(result.resolved, width=120)}", end="")  # noqa: T201  # valid YAML: never wrapped


def search(
    space: Space,
    data_root: DataRoot = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDR", help="A Ray cluster; 'local' starts one here. Default: one that runs here, or a new one."
        ),
    ] = None,
    assignments: Assignments = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start from scratch; the old journal is renamed, not deleted.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs of Ray and Optuna.")] = False,
) -> None:
    """Run a study, or resume it: finished trials are never run again."""
    config = load(space, data_root, storage, tracking_uri, assignments)
    # Ray, torch and MLflow take seconds to import and to start.
    console.print(
        f"study {config.study}: getting ready; results go to {uris.masked(config.storage)}/{config.study}",
        soft_wrap=True,
    )
    from rssearch.study import run

    raise typer.Exit(run.search(config, address=address, fresh=fresh, verbose=verbose, console=console))
