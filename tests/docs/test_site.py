"""The documentation's site: built in strict mode, complete, and quiet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


class Loads(HTMLParser):
    """What a page loads by itself: scripts, styles, pictures, frames."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source"} and given.get("src"):
            self.addresses.append(str(given["src"]))
        if tag == "link" and given.get("rel") not in {"canonical", "prev", "next"} and given.get("href"):
            self.addresses.append(str(given["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def pages(nav: object) -> list[str]:
    """The pages that a part of the navigation names."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages(part)]  # type: ignore[attr-defined]


def test_every_page_of_the_navigation_is_there(site: Path) -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = pages(nav)
    assert {"index.md", "api.md", "tutorials/prune.md", "repository/CONTRIBUTING.md"} <= set(named)
    for page in named:
        built = page.replace("howto/index.md", "howto/index").removesuffix(".md") + ".html"
        assert (site / built).is_file(), page


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    files = sorted(site.rglob("*.html"))
    assert len(files) > 20
    for file in files:
        loads = Loads()
        loads.feed(file.read_text(encoding="utf-8"))
        assert loads.addresses
        assert [address for address in loads.addresses if re.match(r"(https?:)?//", address)] == [], file


def test_links_out_of_the_folder_of_pages_lead_to_pages(site: Path) -> None:
    clusters = (site / "clusters.html").read_text(encoding="utf-8")
    assert 'href="repository/index.html#where-to-run-it"' in clusters
    ladder = (site / "results" / "micronet.html").read_text(encoding="utf-8")
    assert 'href="../repository/search_spaces/micronet_ladder.yaml.html"' in ladder
    assert "micronet" in (site / "repository" / "search_spaces" / "micronet_ladder.yaml.html").read_text(
        encoding="utf-8"
    )


def test_the_reference_has_the_public_names_with_their_arguments(site: Path) -> None:
    reference = (site / "api.html").read_text(encoding="utf-8")
    for name in (
        "models.create",
        "cost.profile",
        "pruning.prune",
        "pruning.apply_spec",
        "pruning.layer_rates",
        "nas.search.search",
        "data.create",
        "front.non_dominated",
        "front.hypervolume",
        "front.knee",
        "bundle.load",
        "trial.Session",
        "front.seeds.means",
    ):
        assert f'id="rssearch.{name}"' in reference, name
    assert "macs_ratio" in reference
    assert "InputError" in reference
