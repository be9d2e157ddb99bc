"""The tables of Micro-Net's paper, recomputed."""

from __future__ import annotations

import json

import pytest

from rssearch import papers
from rssearch.papers import PAPERS, Table
from rssearch.papers.table import read
from tests.support.commands import run

# Row -> parameters, plain MACs, MACs as thop 0.1.1 counts, at 500 x 500 pixels.
NETWORKS = {
    "U-Net": (31024960, 185230103552, 210203251712),
    "Miniaturized-Net (BM1)": (5358744, 22436263296, 47409411456),
    "4x U-Net (BM2)": (926896, 31276000000, 43564000000),
    "(1,2,3) x 3 (BM3)": (926896, 31276000000, 43564000000),
    "(1,2,5) (1,2,3) (1,1,2)": (926896, 31276000000, 43564000000),
    "(1,1,2,3), Micro-Net": (1055920, 35884000000, 48172000000),
    "(1,1,1,2,3)": (1184944, 40492000000, 52780000000),
}
# How often each layer of table 3 stands in the network.
TIMES = {
    "fm 1": 1, "fm 2~4": 3, "fm 5": 1, "fm 6~8": 3, "fm 9": 1, "fm 10~12": 3, "dfm 9~7": 3, "dec 1": 1, "dfm 6~4": 3,
    "dec 2": 1, "dfm 3~1": 3, "conv": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def table() -> Table:
    return papers.recompute(PAPERS["micronet"])


def _ours(table: Table) -> dict[str, tuple[int, ...]]:
    return {cells[0].row: tuple(cell.ours[0] for cell in cells) for cells in table.cells}


def test_every_network(table: Table) -> None:
    found = _ours(table)
    assert {row: counts for row, counts in found.items() if len(counts) == 3} == NETWORKS
    assert {cell.status for cells in table.cells for cell in cells if cell.count == "params"} == {"reproduced"}
    assert {cell.status for cells in table.cells for cell in cells if cell.count == "MAC"} == {"recomputed"}
    assert table.reasons() == []


def test_rounded_counts_are_the_printed_ones(table: Table) -> None:
    for cells in table.cells[: len(NETWORKS)]:
        assert f"{cells[0].ours[0] / 1e6:.2f}M" == cells[0].printed


def test_every_layer_and_their_sum(table: Table) -> None:
    layers = {cells[0].row: cells for cells in table.cells[len(NETWORKS) :]}
    assert list(layers) == list(TIMES)
    assert all(len(cells) == 1 for cells in layers.values())
    wrong = {row: cells[0] for row, cells in layers.items() if cells[0].ours[0] != read(cells[0].printed)[0]}
    assert {row: (cell.printed, cell.ours) for row, cell in wrong.items()} == {"fm 1": ("5158", (5168,))}
    assert sum(TIMES[row] * cells[0].ours[0] for row, cells in layers.items()) == 1055920


def test_ratios_of_compression() -> None:
    unet, small, micro = (NETWORKS[row][0] for row in ("U-Net", "Miniaturized-Net (BM1)", "(1,1,2,3), Micro-Net"))
    assert (round(unet / small, 2), round(unet / micro, 2)) == (5.79, 29.38)
    assert (int(100 * 31.02 / 5.36), int(100 * 31.02 / 1.06)) == (578, 2926)
    assert round(31.02 / 5.36, 2) == 5.79


def test_figures_without_a_unit() -> None:
    assert read("5158") == (5158, 0.5)


def test_the_table_as_text_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run("papers", "micronet")
    assert (result.status, result.err) == (0, "")
    lines = [line.rstrip() for line in result.out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "(1,1,2,3), Micro-Net     params      1.06M   1055920       -0.38%  reproduced" in lines
    assert "  mIoU 76.81 %           MAC                 35884000000           recomputed" in lines
    assert "fm 1                     params      5158    5168          +0.19%  reproduced" in lines
    rows = {row["row"]: row for row in json.loads(run("papers", "micronet", "--json").out)["rows"]}
    micro, layer = rows["(1,1,2,3), Micro-Net"], rows["fm 5"]
    assert (micro["model"], micro["options"], micro["part"]) == ("micronet", {"rates": [1, 1, 2, 3]}, None)
    assert micro["printed_miou"] == "76.81"
    assert (layer["part"], layer["printed_miou"], len(layer["cells"])) == ("encoder.1.0", None, 1)
