"""CITATION.cff: what the format asks for, and the facts of this package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import rssearch

CITATION: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))


def test_it_is_of_the_format_and_of_this_version() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= CITATION.keys()
    assert (CITATION["version"], CITATION["license"]) == (rssearch.__version__, "Apache-2.0")
    assert CITATION["authors"] == [{"name": "The rssearch developers"}]


@pytest.mark.parametrize("paper", CITATION["references"], ids=lambda paper: paper["notes"])
def test_each_paper_can_be_found(paper: dict[str, Any]) -> None:
    assert {"type", "title", "authors", "year"} <= paper.keys()
    assert paper["type"] in {"article", "conference-paper"}
    assert all({"family-names", "given-names"} == author.keys() for author in paper["authors"])
    if "doi" in paper:
        assert re.fullmatch(r"10\.\d{4,}/\S+", paper["doi"])
    else:
        assert re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", paper["url"])


def test_all_five_papers_are_there() -> None:
    assert len(CITATION["references"]) == 5
