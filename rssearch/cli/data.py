"""Commands for datasets: `rssearch data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rssearch.cli.arguments import AsJson, DatasetRoot
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
