"""Commands that read what a study has found: its front, and networks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rssearch.cli.arguments import DataRoot, Selection, StudyName, StudyStorage, TrackingUri, TrialKey
from rssearch.cli.output import console
from rssearch.storage.location import check_folder
from rssearch.study.console import write


def front(
    study: StudyName,
    storage: StudyStorage = "results",
    format: Annotated[  # noqa: A002
        str, typer.Option(metavar="NAME", help="table, csv, json, png, svg, html, tex, md or all.")
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder for files. Default: text is printed, other formats go to the study's folder."
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
        width=console.width,
    )
    if isinstance(result, str):
        write(result)
    elif isinstance(result, list):
        for path in result:
            console.print(str(path), soft_wrap=True)
    else:
        console.print(result)


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
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Write model.fp16.onnx as well, which computes in float16.")
    ] = False,
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end", help="Write model.end_to_end.onnx as well: from raw pixels to probabilities, scaled inside."
        ),
    ] = False,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="The ONNX models take any height and width; for segmentation.")
    ] = False,
    opset: Annotated[
        int | None, typer.Option(metavar="N", help="Write the ONNX models in an older opset: 17 to 20 (the default).")
    ] = None,
) -> None:
    """Export one network of the front: architecture, weights, ONNX, preprocessing, model card."""
    from rssearch import bundle
    from rssearch.bundle.card import summary
    from rssearch.report import recorded

    found = recorded.read(study, storage)
    row = recorded.choose(found, trial=trial, best=best)
    root = None if data_root is None else Path(data_root)
    path = bundle.export(
        found,
        row,
        out,
        data_root=root,
        check=check,
        int8=int8,
        fp16=fp16,
        end_to_end=end_to_end,
        any_size=any_size,
        opset=opset,
    )
    for line in (f"exported to {path}", *summary(path)):
        console.print(line, soft_wrap=True)


def compare(
    studies: Annotated[
        list[str],
        typer.Argument(metavar="STUDY...", help="Two or more; or one, by its methods. The first is compared with."),
    ],
    storage: StudyStorage = "results",
    format: Annotated[str, typer.Option(metavar="NAME", help="table, json, png or all.")] = "table",  # noqa: A002
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder for files. Default: json is printed; png needs one.")
    ] = None,
    by: Annotated[str, typer.Option(metavar="NAME", help="What is compared: study, or method.")] = "study",
) -> None:
    """Compare the fronts of several studies or methods, what they took, and which differ beyond noise."""
    from rssearch.report import compare as comparing
    from rssearch.report import recorded

    if out is not None:
        check_folder(out)
    result = comparing.format_comparison([recorded.read(name, storage) for name in studies], format, out, by)
    if isinstance(result, str):
        write(result)
        return
    for part in result:
        if isinstance(part, Path):
            console.print(str(part), soft_wrap=True)
        else:
            console.print(part)


def register(
    study: StudyName,
    storage: StudyStorage = "results",
    trial: TrialKey = None,
    best: Selection = "knee",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The model's name; default: the study's.")] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Register one network of the front in MLflow's model registry, as an ONNX model."""
    from rssearch.config.loading import load_study
    from rssearch.report import recorded
    from rssearch.tracking import client, model_registry

    found = recorded.read(study, storage)
    row = recorded.choose(found, trial=trial, best=best)
    uri, _ = client.home(found.storage, tracking_uri or load_study(found.folder / "study.yaml").tracking_uri)
    version, new = model_registry.register(found, row, name or study, uri)
    state = "" if new else " (registered before)"
    console.print(f"models:/{name or study}/{version}: trial {row['key']}{state}", soft_wrap=True)
