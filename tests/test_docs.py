"""The documentation runs, and names what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rssearch import pruning
from rssearch.pruning.allocate import ALLOCATIONS

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


def test_there_are_tutorials() -> None:
    assert TUTORIALS


@pytest.mark.slow
@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    accuracies = re.findall(r"accuracy ([\d.]+)%", done.stdout)
    if script.stem == "prune":
        trained, tuned, loaded = (float(accuracy) for accuracy in accuracies)
        assert trained > 30  # twelve classes
        assert tuned == loaded
    if script.stem == "channel_search":
        ratios = [float(share) / 100 for share in re.findall(r"([\d.]+)% of the MACs: accuracy", done.stdout)]
        assert ratios == pytest.approx([0.7, 0.5, 0.3], rel=0.011)
        assert min(map(float, accuracies)) > 30
        assert {path.name for path in tmp_path.glob("*.png")} == {"ratios.png", "channels.png"}


def test_the_page_of_methods_names_all_of_them_with_their_allocation_and_options() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = {
        name: [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.split("## From scores")[0].splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert rows.keys() == pruning.METHODS.keys()
    for name, method in pruning.METHODS.items():
        assert rows[name][3] == method.allocation
        if rows[name][5].startswith("`") and method.options:
            for option, values in method.options.items():
                assert f"`{option}: {values[0]}`" in rows[name][5]
                assert all(f"`{value}`" in rows[name][5] for value in values[1:])
    assert all(f"`{allocation}`" in page for allocation in ALLOCATIONS)


def test_the_page_on_reliability_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    commands = re.findall(r"`(?:-s )?(tests/\w+\.py) -k (\w+)`", page)
    assert len(commands) == page.count(" -k ") > 10
    for file, part in commands:
        names = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert any(part in name for name in names), f"{file}: {part}"


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"
