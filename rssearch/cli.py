"""The command line. No logic: each command reads its arguments and calls the part that does the work."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.table import Table

from rssearch.config import plain_yaml, shipped
from rssearch.config.schema import StudyConfig, load_study, parse_assignment
from rssearch.errors import InputError, cut
from rssearch.escaping import printable
from rssearch.storage import uris
from rssearch.storage.location import FULL, check_folder
from rssearch.study.console import PlainConsole, plain_logs, write

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Datasets: list, fetch, verify.", no_args_is_help=True)
app.add_typer(data_app, name="data")

_MOST = 4000  # characters of a message
# A path that the system does not let us use.
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ETXTBSY, errno.EBUSY),
)

console = PlainConsole()
_errors = PlainConsole(stderr=True)

Space = Annotated[str, typer.Argument(metavar="SPACE", help="A YAML file, or the name of a shipped space.")]
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
    str | None, typer.Option(metavar="KEY", help="The trial with this key, or with the only key that begins so.")
]
Selection = Annotated[str, typer.Option(metavar="WISH", help="knee, accuracy, or macs<=X with X such as 20e6 or 20M.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DatasetRoot = Annotated[Path, typer.Option("--data-root", metavar="DIR", help="Where the datasets are.")]


def _load(
    space: str, data_root: str | None, storage: str | None, tracking_uri: str | None, assignments: list[str] | None
) -> StudyConfig:
    overrides: dict[str, Any] = dict(parse_assignment(text) for text in assignments or [])
    options = {"data_root": data_root, "storage": storage, "tracking_uri": tracking_uri}
    overrides |= {name: value for name, value in options.items() if value is not None}
    return load_study(shipped.find(space), overrides)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        console.print(f"rssearch {metadata.version('rssearch')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Pruning-rate and architecture search for remote-sensing CNNs.

    Start with `rssearch search quickstart`.
    """


@app.command()
def plan(
    space: Space,
    data_root: DataRoot = None,
    storage: Storage = None,
    assignments: Assignments = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every default of the YAML.")] = False,
) -> None:
    """Show what would run and what it would cost. Nothing is trained."""
    from rssearch.study import run

    result = run.plan(_load(space, data_root, storage, None, assignments))
    if as_json:
        console.print_json(json.dumps(result.to_json()))
        return
    print(plain_yaml.dump(result.resolved, width=120))  # noqa: T201  # valid YAML: never wrapped
    for line in result.lines():
        console.print(line, soft_wrap=True)


@app.command()
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
        bool, typer.Option("--fresh", help="Begin anew; the old record is put away, not deleted.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs of Ray and Optuna.")] = False,
) -> None:
    """Run a study, or go on with it: what has finished is never run again."""
    from rssearch.study import run

    config = _load(space, data_root, storage, tracking_uri, assignments)
    raise typer.Exit(run.search(config, address=address, fresh=fresh, verbose=verbose, console=console))


@app.command()
def front(
    study: StudyName,
    storage: StudyStorage = "results",
    format: Annotated[  # noqa: A002
        str, typer.Option(metavar="NAME", help="table, csv, json, png, svg, html, tex, md or all.")
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder for files. Default: text is printed, all else goes to the study's own."
        ),
    ] = None,
) -> None:
    """The Pareto front of a study."""
    from rssearch.report import files, recorded

    found = recorded.read(study, storage)
    if out is not None:
        check_folder(out)
    target = out if out is not None or format in ("table", *files.TEXTS) else found.folder
    result = files.format_front(
        found.rows,
        found.objectives,
        format,
        study=study,
        constraints=found.constraints,
        dimensions=found.dimensions,
        references=found.references,
        folder=found.folder,
        out=target,
    )
    if isinstance(result, str):
        write(result)
    elif isinstance(result, list):
        for path in result:
            console.print(str(path), soft_wrap=True)
    else:
        console.print(result)


@app.command()
def export(
    study: StudyName,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the bundle; it must be new or empty.")],
    storage: StudyStorage = "results",
    trial: TrialKey = None,
    best: Selection = "knee",
    data_root: DataRoot = None,
    check: Annotated[
        bool, typer.Option("--check", help="Measure model.onnx on the test images, beside the study's own number.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write model.int8.onnx, calibrated on training images; includes --check.")
    ] = False,
) -> None:
    """Export one network of the front: architecture, weights, ONNX, preprocessing, model card."""
    from rssearch import bundle
    from rssearch.bundle.card import summary
    from rssearch.report import recorded

    found = recorded.read(study, storage)
    row = recorded.choose(found, trial=trial, best=best)
    root = None if data_root is None else Path(data_root)
    path = bundle.export(found, row, out, data_root=root, check=check, int8=int8)
    for line in (f"exported to {path}", *summary(path)):
        console.print(line, soft_wrap=True)


@app.command()
def compare(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="At least two; the first is the measure.")],
    storage: StudyStorage = "results",
    format: Annotated[str, typer.Option(metavar="NAME", help="table, json, png or all.")] = "table",  # noqa: A002
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder for files. Default: json is printed; png needs one.")
    ] = None,
) -> None:
    """Several studies: whose front is better, by how much, for how much computing."""
    from rssearch.report import compare as comparing
    from rssearch.report import recorded

    if out is not None:
        check_folder(out)
    result = comparing.format_comparison([recorded.read(name, storage) for name in studies], format, out)
    if isinstance(result, str):
        write(result)
        return
    for part in result:
        if isinstance(part, Path):
            console.print(str(part), soft_wrap=True)
        else:
            console.print(part)


@app.command()
def register(
    study: StudyName,
    storage: StudyStorage = "results",
    trial: TrialKey = None,
    best: Selection = "knee",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The model's name; default: the study's.")] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Put one network of the front into MLflow's model registry, as an ONNX model."""
    from rssearch.report import recorded
    from rssearch.tracking import client, model_registry

    found = recorded.read(study, storage)
    row = recorded.choose(found, trial=trial, best=best)
    uri, _ = client.home(found.storage, tracking_uri or load_study(found.folder / "study.yaml").tracking_uri)
    version, new = model_registry.register(found, row, name or study, uri)
    state = "" if new else " (registered before)"
    console.print(f"models:/{name or study}/{version}: trial {row['key']}{state}", soft_wrap=True)


@app.command()
def studies(storage: StudyStorage = "results", as_json: AsJson = False) -> None:
    """The studies of a storage."""
    from rssearch.report import recorded

    rows = []
    for found in recorded.all_of(storage):
        statuses = [row["status"] for row in found.rows]
        members = sum(len(front.members) for front in found.front())
        rows.append((found.study, len(statuses), statuses.count("finished"), statuses.count("failed"), members))
    _list(("study", "trials", "finished", "failed", "front"), rows, as_json)


@app.command()
def ui(
    storage: StudyStorage = "results",
    tracking_uri: TrackingUri = None,
    host: Annotated[str, typer.Option(metavar="ADDR", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """The MLflow UI on the record of a storage folder, until Ctrl-C."""
    from rssearch.storage.location import locate
    from rssearch.tracking import client

    place = locate(storage)
    uri, _ = client.home(place, tracking_uri)
    if uri.startswith(("http://", "https://")):
        console.print(f"a server is its own UI: open {uris.masked(uri)}", soft_wrap=True)
        return
    raise typer.Exit(client.serve(uri, place, host, port))


@app.command()
def models(as_json: AsJson = False) -> None:
    """The networks that a study may name."""
    from rssearch import models as registry

    rows = [(name, ", ".join(registry.MODELS[name].options) or "none") for name in registry.list_models()]
    more = [("torchvision:NAME", "any other classifier of torchvision"), ("MODULE:NAME", "what your function takes")]
    _list(("model", "options"), [*rows, *more], as_json)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """The pruning methods that a study may name."""
    from rssearch.pruning.methods import METHODS

    rows: list[tuple[str, ...]] = [
        (m.name, f"{m.summary}; {m.source}", m.allocation, "yes" if m.needs_data else "no") for m in METHODS.values()
    ]
    rows.append(("channel_nas", "lowest score of a differentiable channel search", "global", "yes"))
    rows.append(("none", "nothing; the network is fine-tuned like the others", "", "no"))
    rows.append(("MODULE:NAME", "what your function scores lowest", "uniform", "yes"))
    _list(("method", "what it removes first", "allocation", "sees data"), rows, as_json)


@app.command()
def samplers(as_json: AsJson = False) -> None:
    """The samplers, and what each can do."""
    from rssearch.sampling.sampler import CAPABILITIES

    rows = []
    for name, can in CAPABILITIES.items():
        lacks = {
            "several objectives": can.many_objectives,
            "choices": can.choices,
            "continuous ranges": can.continuous,
            "learning from constraints": can.constraints,
        }
        rows.append((name, can.summary, ", ".join(what for what, has in lacks.items() if not has)))
    _list(("sampler", "what it is", "what it cannot do"), rows, as_json)


@app.command()
def papers(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A paper; without it they are listed.")] = None,
    as_json: AsJson = False,
) -> None:
    """The papers' tables beside recomputed parameters and MACs."""
    from rssearch import papers as published

    if name is None:
        rows = [(paper.name, paper.title, paper.summary) for paper in published.PAPERS.values()]
        titles = ("paper", "title", "summary" if as_json else "what can be reproduced")
        _list(titles, rows, as_json)
        return
    table = published.recompute(published.get(name))
    if as_json:
        console.print_json(json.dumps(table.to_json()))
        return
    console.print(table.paper.title)
    _print_table(("row", "count", "paper", "recomputed", "error", "status"), table.lines())
    for text in (*table.reasons(), *table.paper.notes):
        console.print(f"\n{text}")


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """The datasets that a study may name."""
    from rssearch import data

    rows = [(row["name"], row["summary"], row["download"]) for row in data.summary()]
    _list(("dataset", "what it is", "download"), rows, as_json)


def _list(titles: Sequence[str], rows: Iterable[Sequence[Any]], as_json: bool) -> None:
    """A table, or the same as JSON: a list of objects whose keys are the titles."""
    if as_json:
        console.print_json(json.dumps([dict(zip(titles, row, strict=True)) for row in rows]))
    else:
        _print_table(titles, [[str(cell) for cell in row] for row in rows])


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns without a frame; the second one takes what room there is, and is broken between words."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, title in enumerate(titles):
        table.add_column(title, no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    console.print(table)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset's name.")],
    data_root: DatasetRoot = Path("data"),
) -> None:
    """Download a dataset into the data root, unless it is there."""
    from rssearch import data

    console.print(f"{name}: {data.fetch(name, data_root)}", soft_wrap=True)


@data_app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset's name, or [segmentation_]folder:PATH.")],
    data_root: DatasetRoot = Path("data"),
) -> None:
    """Decode every image and mask of a dataset; name those that are corrupt or missing."""
    from rssearch import data

    result = data.verify(name, data_root)
    console.print(result.describe(), soft_wrap=True)
    if not result.ok:
        raise InputError(f"dataset {name!r}: {len(result.corrupt)} of {result.images} {result.kind} cannot be read")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status: see `rssearch --help`."""
    plain_logs()
    try:
        sys.exit(app(args=arguments, prog_name="rssearch", standalone_mode=False))
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in FULL:
            _fail(f"{error.filename}: {error.strerror}; what is there is whole, and the same command goes on from it")
        if error.errno not in _REFUSED:
            raise
        _fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # of Typer, whose releases do not agree where their classes are
        if not hasattr(error, "format_message"):
            raise
        _misused(error)


def _misused(error: Any) -> NoReturn:
    """Tell a mistake in the arguments as Typer does, with short and harmless values."""
    from typer.rich_utils import rich_format_error

    error.message = cut(printable(error.message), 300)
    rich_format_error(error)
    sys.exit(error.exit_code)


def _fail(message: str) -> NoReturn:
    _errors.print(f"error: {cut(uris.hidden(message), _MOST)}", style="red", soft_wrap=True)
    sys.exit(2)
