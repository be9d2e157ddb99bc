"""The command that measures a study's networks on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rssearch.agent import protocol


def agent(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the study, such as https://host:8765.")],
    name: Annotated[str, typer.Option(help="Of this device, as in the study's YAML.")],
    token_file: Annotated[
        Path | None, typer.Option(help=f"Holds the token; otherwise it is in {protocol.TOKEN}.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="Certificates to trust, where the study's is not signed publicly.")
    ] = None,
    provider: Annotated[str, typer.Option(help="Of onnxruntime.")] = "CPUExecutionProvider",
) -> None:
    """Measure the networks of a study on this machine; `python -m rssearch.agent` does the same with less installed."""
    from rssearch.agent.__main__ import start

    start(url, name, token_file, ca, provider)
