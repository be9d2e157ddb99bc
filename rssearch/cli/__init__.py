"""The command line. No logic: each command reads its arguments and calls the part that does the work."""

from rssearch.cli.application import app, main

__all__ = ["app", "main"]
