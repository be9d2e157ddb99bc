"""The tables of the pruning papers beside what can be recomputed of them.

``PAPERS`` is the registry. ``recompute(get("lfp"))`` builds the networks of a table, cuts them as the paper says, and
counts parameters and multiply-accumulates. Nothing heavy is imported before that.
"""

from __future__ import annotations

from rssearch.errors import unknown
from rssearch.papers.channel_nas import CHANNEL_NAS
from rssearch.papers.compound import COMPOUND
from rssearch.papers.lfp import LFP
from rssearch.papers.micronet import MICRONET
from rssearch.papers.remotetrimmer import REMOTETRIMMER
from rssearch.papers.table import Cell, Paper, Row, Table

__all__ = ["PAPERS", "Cell", "Paper", "Row", "Table", "get", "recompute"]

PAPERS = {paper.name: paper for paper in (LFP, COMPOUND, REMOTETRIMMER, CHANNEL_NAS, MICRONET)}


def get(name: str) -> Paper:
    """A paper by name. Raises InputError if there is none."""
    if name not in PAPERS:
        raise unknown("paper", name, PAPERS)
    return PAPERS[name]


def recompute(paper: Paper) -> Table:
    """Build, trace and cut the networks of a paper's table, and count them."""
    from rssearch.papers import compute

    return compute.recompute(paper)
