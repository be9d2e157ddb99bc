"""The command that writes a first study."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rssearch.cli.output import console
from rssearch.errors import InputError, cut
from rssearch.storage.location import check_folder, expand


def init(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help="A folder of images for each class, or images/, masks/ and classes.json; or a zip."
        ),
    ],
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The YAML. Default: FOLDER-methods.yaml, here.")
    ] = None,
) -> None:
    """Write the commented YAML of a first study for a folder of images."""
    from rssearch.data.survey import survey
    from rssearch.study import starting

    found = survey(folder)
    path = Path(f"{starting.name_of(found)}.yaml") if out is None else expand(out)
    taken = f"{cut(str(path), 300)}: is there already; name another file with --out"
    if path.exists() or path.is_symlink():
        raise InputError(taken)
    check_folder(path.parent)
    if not path.parent.is_dir():
        raise InputError(f"{cut(str(path.parent), 300)}: there is no such folder")
    text = starting.study_text(found)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(taken) from None
    console.print(f"{path}: {starting.describe(found)}", soft_wrap=True)
    for note in starting.notes(found):
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"next: rssearch plan {shlex.quote(str(path))}", soft_wrap=True)
