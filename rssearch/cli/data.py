"""Commands for datasets: `rssearch data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rssearch.cli.arguments import AsJson, Assignments, DataRoot, DatasetRoot, Space, load
from rssearch.cli.output import console, print_list
from rssearch.errors import InputError

app = typer.Typer(help="Datasets: list, fetch, verify.", no_args_is_help=True)


@app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """The datasets that a study may name."""
    from rssearch import data

    rows = [(row["name"], row["summary"], row["download"]) for row in data.summary()]
    print_list(("dataset", "what it is", "download"), rows, as_json)


@app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset's name.")],
    data_root: DatasetRoot = Path("data"),
) -> None:
    """Download a dataset into the data root, unless it is there."""
    from rssearch import data

    console.print(f"{name}: {data.fetch(name, data_root)}", soft_wrap=True)


@app.command("check-baseline")
def data_check_baseline(
    space: Space,
    data_root: DataRoot = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Measure the weights that a study begins with, on its validation images. Nothing is trained or written."""
    from rssearch.report import checked
    from rssearch.study.checking import check_baselines

    config = load(space, data_root, None, None, assignments)
    found = check_baselines(config)
    if as_json:
        console.print_json(json.dumps(found))
        return
    for name, weights in dict.fromkeys((row["model"], row["weights"]) for row in found):
        rows = [row for row in found if (row["model"], row["weights"]) == (name, weights)]
        console.print(f"{name} with {weights}", soft_wrap=True)
        console.print(checked.table(rows))
        for text in checked.notes(rows):
            console.print(text, soft_wrap=True)


@app.command("verify")
def data_verify(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A dataset's name, folder:PATH or segmentation_folder:PATH.")
    ],
    data_root: DatasetRoot = Path("data"),
) -> None:
    """Decode every image and mask of a dataset; name those that are corrupt or missing."""
    from rssearch import data

    result = data.verify(name, data_root)
    console.print(result.describe(), soft_wrap=True)
    if not result.ok:
        raise InputError(f"dataset {name!r}: {len(result.corrupt)} of {result.images} {result.kind} cannot be read")
