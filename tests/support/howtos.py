"""The how-tos are run as they are printed: files by their titles, commands in their order."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.support import forked

HOWTOS = Path(__file__).parents[2] / "docs" / "howto"
PAGES = sorted(page.stem for page in HOWTOS.glob("*.md") if page.stem != "index")
BLOCK = re.compile(r'^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)


def follow(page: str, folder: Path, ray: str) -> tuple[str, list[dict[str, str]]]:
    """Do what a page says in an empty folder, with a Ray that runs; what it printed, and the rows of its study."""
    blocks = list(BLOCK.finditer((HOWTOS / f"{page}.md").read_text(encoding="utf-8")))
    for block in blocks:
        if block["title"]:
            (folder / block["title"]).write_text(block["text"])
    commands = "".join(block["text"] for block in blocks if block["kind"] == "sh")
    with tempfile.TemporaryDirectory() as place:
        variables, descriptors = forked.script(Path(place))
        path = f"{place}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PATH": path, "RAY_ADDRESS": ray}
        done = subprocess.run(
            ["bash", "-euc", commands],
            cwd=folder,
            env=environment | variables,
            pass_fds=descriptors,
            capture_output=True,
            text=True,
            timeout=1100,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    study = yaml.safe_load(next(block["text"] for block in blocks if block["kind"] == "yaml"))["study"]
    with (folder / "results" / study / "trials.csv").open() as file:
        return done.stdout, list(csv.DictReader(file))
