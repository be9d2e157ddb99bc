"""The command line. No logic: each command reads its arguments and calls the part that does the work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rssearch import spaces
from rssearch.config import StudyConfig, load_study, parse_assignment
from rssearch.errors import InputError

app = typer.Typer(
    help="Pruning-rate and architecture search for remote-sensing CNNs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Datasets: list, fetch, verify.", no_args_is_help=True)
app.add_typer(data_app, name="data")

console = Console()
_errors = Console(stderr=True)

Space = Annotated[str, typer.Argument(metavar="SPACE", help="A YAML file, or the name of a shipped space.")]
DataRoot = Annotated[str | None, typer.Option("--data-root", help="Where the datasets are.")]
Storage = Annotated[str | None, typer.Option("--storage", help="Where results, baselines and checkpoints go.")]
TrackingUri = Annotated[str | None, typer.Option("--tracking-uri", help="An MLflow server or database.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Replace a value of the YAML; repeatable.")
]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")]
StudyStorage = Annotated[Path, typer.Option("--storage", help="Where the study's results are.")]


def _load(
    space: str, data_root: str | None, storage: str | None, tracking_uri: str | None, assignments: list[str] | None
) -> StudyConfig:
    overrides: dict[str, Any] = dict(parse_assignment(text) for text in assignments or [])
    options = {"data_root": data_root, "storage": storage, "tracking_uri": tracking_uri}
    overrides |= {name: value for name, value in options.items() if value is not None}
    return load_study(spaces.find(space), overrides)


@app.command()
def plan(
    space: Space,
    data_root: DataRoot = None,
    storage: Storage = None,
    assignments: Assignments = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every default of the YAML.")] = False,
) -> None:
    """Show what would run and what it would cost. Nothing is trained."""
    from rssearch import study

    result = study.plan(_load(space, data_root, storage, None, assignments))
    if as_json:
        console.print_json(json.dumps(result.to_json()))
        return
    import yaml

    console.print(yaml.safe_dump(result.resolved, sort_keys=False).rstrip(), highlight=False, markup=False)
    console.print()
    for line in result.lines():
        console.print(line, highlight=False, soft_wrap=True)


@app.command()
def search(
    space: Space,
    data_root: DataRoot = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; 'local' starts one here.")] = None,
    assignments: Assignments = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; the old record is put away, not deleted.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs of Ray and Optuna.")] = False,
) -> None:
    """Run a study, or go on with it: what has finished is never run again."""
    from rssearch import study

    config = _load(space, data_root, storage, tracking_uri, assignments)
    raise typer.Exit(study.search(config, address=address, fresh=fresh, verbose=verbose, console=console))


@app.command()
def front(
    study: StudyName,
    storage: StudyStorage = Path("results"),
    format: Annotated[str, typer.Option(help="table, csv, json, png, html or all.")] = "table",  # noqa: A002
    out: Annotated[Path | None, typer.Option("--out", help="A folder for files; default: the study's own.")] = None,
) -> None:
    """The Pareto front of a study."""
    from rssearch import record, report

    found = record.read(study, storage)
    target = out if out is not None or format in ("table", "csv", "json") else found.folder
    result = report.format_front(
        found.rows, found.objectives, format, study=study, constraints=found.constraints, out=target
    )
    if isinstance(result, str):
        sys.stdout.write(result)
    elif isinstance(result, list):
        for path in result:
            console.print(str(path), highlight=False, soft_wrap=True)
    else:
        console.print(result)


@app.command()
def export(
    study: StudyName,
    out: Annotated[Path, typer.Option("--out", help="The folder of the bundle.")],
    storage: StudyStorage = Path("results"),
    trial: Annotated[str | None, typer.Option("--trial", metavar="KEY", help="Content key, or its beginning.")] = None,
    best: Annotated[str, typer.Option("--best", help="knee, accuracy, or macs<=X with X such as 20e6 or 20M.")] = "knee",
) -> None:
    """Export one network of the front: architecture spec, weights, preprocessing, model card."""
    from rssearch import bundle, record

    found = record.read(study, storage)
    path = bundle.export(found, record.choose(found, trial=trial, best=best), out)
    console.print(f"exported to {path}", highlight=False, soft_wrap=True)


@app.command()
def ui(
    storage: StudyStorage = Path("results"),
    tracking_uri: TrackingUri = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """The MLflow UI on the store of a storage folder."""
    from rssearch import tracking

    raise typer.Exit(tracking.serve(tracking_uri or tracking.default_uri(storage), storage, host, port))


@app.command()
def models() -> None:
    """The networks that a study may name."""
    from rssearch import models as registry

    for name in registry.list_models():
        console.print(name, highlight=False)
    console.print("torchvision:<name>  any classifier of torchvision", highlight=False)


@app.command()
def methods() -> None:
    """The pruning methods that a study may name."""
    from rssearch.pruning.methods import METHODS

    table = Table("method", "what it keeps", "allocation", "needs data", "source")
    for method in METHODS.values():
        needs = "yes" if method.needs_data else "no"
        table.add_row(method.name, method.summary, method.allocation, needs, method.source)
    console.print(table)


@app.command()
def samplers() -> None:
    """The samplers, and what each can do."""
    from rssearch.searcher import CAPABILITIES

    table = Table("sampler", "what it is", "several objectives", "learns constraints", "choices", "continuous ranges")
    for name, can in CAPABILITIES.items():
        flags = (can.many_objectives, can.constraints, can.choices, can.continuous)
        table.add_row(name, can.summary, *("yes" if flag else "no" for flag in flags))
    console.print(table)


@data_app.command("list")
def data_list() -> None:
    """The datasets that a study may name."""
    from rssearch import data

    rows = data.summary()
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A dataset's name.")], data_root: DataRoot = "data"
) -> None:
    """Download a dataset into the data root."""
    from rssearch import data

    console.print(f"{name}: {data.fetch(name, data_root or 'data')}", highlight=False, soft_wrap=True)


@data_app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="A dataset's name, or folder:PATH.")], data_root: DataRoot = "data"
) -> None:
    """Decode every image of a dataset; name those that are corrupt or missing."""
    from rssearch import data

    result = data.verify(name, data_root or "data")
    console.print(str(result), highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(0 if result.ok else 2)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status: see `rssearch --help`."""
    try:
        app(args=arguments, prog_name="rssearch")
    except InputError as error:
        _errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
