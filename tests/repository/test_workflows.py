"""The workflows keep to GitHub's schema, and call what there is. That they run can be seen on GitHub alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize(
    ("schema", "files"),
    [("vendor.github-workflows", WORKFLOWS), ("vendor.dependabot", [ROOT / ".github" / "dependabot.yml"])],
)
def test_files_keep_to_the_schema(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_calls_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"run: make ([\w-]+)", text)) <= targets
    assert all((ROOT / script).is_file() for script in re.findall(r"run: (\.ci/\S+)", text))


def test_the_versions_of_python_are_those_that_the_project_takes() -> None:
    asked = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    matrix = re.search(
        r"matrix: \{python: \[(.*)\]\}", (ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8")
    )
    assert asked is not None
    assert matrix is not None
    assert re.findall(r"3\.(\d+)", matrix[1]) == [str(minor) for minor in range(int(asked[1]), int(asked[2]))]
