"""The command that shows the record of a storage folder."""

from __future__ import annotations

from typing import Annotated

import typer

from rssearch.cli.arguments import StudyStorage, TrackingUri
from rssearch.cli.output import console
from rssearch.storage import uris


def ui(
    storage: StudyStorage = "results",
    tracking_uri: TrackingUri = None,
    host: Annotated[str, typer.Option(metavar="ADDR", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Serve the MLflow UI for the studies of a storage, until Ctrl-C."""
    from rssearch.storage.location import locate
    from rssearch.tracking import client

    place = locate(storage)
    uri, _ = client.home(place, tracking_uri)
    if uri.startswith(("http://", "https://")):
        console.print(f"a server is its own UI: open {uris.masked(uri)}", soft_wrap=True)
        return
    raise typer.Exit(client.serve(uri, place, host, port))
