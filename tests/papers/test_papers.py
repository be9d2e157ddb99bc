"""rssearch.papers: the published tables, and what is recomputed of them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from rssearch import models, papers, pruning
from rssearch.cost import counting
from rssearch.papers import PAPERS, Cell, Paper, Row, Table, compute
from rssearch.papers.counters import older_thop
from rssearch.papers.table import Listed, Network, Trained, Unpublished, read
from tests.support.apart import apart
from tests.support.commands import refused, run

# Row -> parameters, plain MACs, MACs as thop 0.1.1 counts; from the definitions of the networks and of the lists.
CIFAR = {
    "ResNet-56": (853018, 125485696, 127619776),
    "ResNet-56 lfp-1": (485413, 65168128, 66707776),
    "ResNet-56 lfp-2": (240793, 34197184, 35370496),
    "ResNet-110": (1727962, 252887680, 257086144),
    "ResNet-110 lfp-1": (1045951, 139006144, 142084864),
    "ResNet-110 lfp-2": (543742, 70554880, 72827200),
    "VGG-16": (14991946, 313463808, 314572288),
    "VGG-16 lfp-1": (2505793, 104242752, 104962368),
    "VGG-16 lfp-2": (1901836, 66521088, 67094528),
    "ResNet-20": (278324, 40818944, 41625920),
    "ResNet-20 lfp-1": (203360, 28311808, 28991808),
    "ResNet-20 lfp-2": (135956, 19399168, 19977792),
    "VGG-16 UCM": (14997589, 313469440, 314577920),
}
IMAGENET = {
    "ResNet-50": (25557032, 4089184256, 4133742592),
    "ResNet-50 lfp-1": (15091575, 2240373880, 2277587704),
    "ResNet-50 lfp-2": (8017755, 943231376, 966597408),
}
NOT_REPRODUCIBLE = {
    ("ResNet-56 lfp-1", "params"),
    ("ResNet-56 lfp-1", "thop-0.1.1"),
    ("ResNet-110 lfp-1", "thop-0.1.1"),
    ("ResNet-20 lfp-1", "params"),
    ("ResNet-20 lfp-1", "thop-0.1.1"),
    ("ResNet-20 lfp-2", "params"),
    ("ResNet-20 lfp-2", "thop-0.1.1"),
    ("ResNet-50 lfp-1", "thop-0.1.1"),
    *((f"VGG-16 UCM {row}", count) for row in (1, 2) for count in ("params", "thop-0.1.1")),
}


def _recomputed(paper: str) -> Table:
    return papers.recompute(PAPERS[paper])


def _rows(paper: str, size: int) -> Paper:
    """A paper's table, but only the networks for images of one size."""
    found = PAPERS[paper]
    return dataclasses.replace(found, rows=tuple(row for row in found.rows if row.network.size == size))


@pytest.fixture(scope="module")
def cifar() -> Table:
    return papers.recompute(_rows("lfp", 32))


def _counts(table: Table) -> dict[str, tuple[int, ...]]:
    """Row -> its counts, where each is known."""
    pairs = zip(table.paper.rows, table.cells, strict=True)
    return {row.name: tuple(cell.ours[0] for cell in cells) for row, cells in pairs if all(c.ours for c in cells)}


def _with_status(table: Table, status: str) -> set[tuple[str, str]]:
    return {(cell.row, cell.count) for cells in table.cells for cell in cells if cell.status == status}


# LFP


def test_every_row_of_lfp_for_small_images(cifar: Table) -> None:
    assert _counts(cifar) == CIFAR


def test_what_of_lfp_is_reproduced(cifar: Table) -> None:
    """Never more than what agrees within 1 % or to every printed digit."""
    missed = {figure for figure in NOT_REPRODUCIBLE if not figure[0].startswith("ResNet-50")}
    judged = {(cell.row, cell.count) for cells in cifar.cells for cell in cells if cell.compared}
    assert _with_status(cifar, "not reproducible") == missed
    assert _with_status(cifar, "reproduced") == judged - missed
    assert len(judged) == 2 * len(cifar.paper.rows)


def test_five_pruned_rows_agree_to_every_printed_digit(cifar: Table) -> None:
    found = _counts(cifar)
    for row, printed in (("ResNet-56 lfp-2", 35.37), ("ResNet-110 lfp-2", 72.83), ("VGG-16 lfp-1", 104.96),
                         ("VGG-16 lfp-2", 67.09)):  # fmt: skip
        assert round(found[row][2] / 1e6, 2) == printed
    assert round(IMAGENET["ResNet-50 lfp-2"][2] / 1e9, 2) == 0.97


def test_resnet50_of_lfp() -> None:
    table = papers.recompute(_rows("lfp", 224))
    assert _counts(table) == IMAGENET
    assert _with_status(table, "not reproducible") == {("ResNet-50 lfp-1", "thop-0.1.1")}
    assert len(_with_status(table, "reproduced")) == 5


def test_the_reasons_stand_where_figures_disagree(cifar: Table) -> None:
    for cells in cifar.cells:
        for cell in cells:
            assert bool(cell.why) == (cell.status == "not reproducible"), cell
    assert len(cifar.reasons()) == 6  # each once, with all its figures
    assert "ResNet-56 lfp-1 (params): The printed list leaves 3.28 % more. The reason is not known." in cifar.reasons()


def test_figures_named_in_the_reasons(cifar: Table) -> None:
    found = _counts(cifar)
    assert round(100 * (found["ResNet-56 lfp-1"][0] / 470000 - 1), 2) == 3.28
    assert f"{found['ResNet-56 lfp-1'][2] / 1e6:.2f}" == "66.71"
    assert f"{found['ResNet-110 lfp-1'][2] / 1e6:.2f}" == "142.08"
    assert f"{IMAGENET['ResNet-50 lfp-1'][2] / 1e9:.2f}" == "2.28"
    plain, thop = (100 * (value / 19.65e6 - 1) for value in found["ResNet-20 lfp-2"][1:])
    assert (round(plain, 2), round(thop, 2)) == (-1.28, 1.67)


@pytest.mark.parametrize(("shortcut", "release"), [("B", "thop-0.0.31"), ("A", None)])
def test_other_conventions_come_within_a_per_cent_for_the_second_list_of_resnet20(shortcut, release) -> None:
    model = models.create("resnet20", 100, shortcut=shortcut)
    rates = pruning.ratios.ratios_of("lfp-2", "resnet20")
    pruned = pruning.prune(model, torch.zeros(1, 3, 32, 32), "l1", rates=rates).model
    found = older_thop(pruned, (3, 32, 32), release) if release else counting.profile(pruned, (3, 32, 32)).macs
    assert found == pytest.approx(19.65e6, rel=0.01)


# Compound pruning


@pytest.mark.slow
def test_compound() -> None:
    table = apart(_recomputed, "compound")
    found = _counts(table)
    assert found["ResNet-50"] == (23600237, 4087228416, 4131878912)
    assert found["VGG16-BN"] == (134453357, 15466352640, 15653862400)
    judged = {(row, count) for row in ("ResNet-50", "VGG16-BN") for count in ("params", "thop-2019")}
    assert _with_status(table, "reproduced") == judged
    assert _with_status(table, "not reproducible") == set()
    assert len(_with_status(table, "needs training")) == 16
    ranges = {cells[0].row: [[round(n / 1e6, 2) for n in c.ours] for c in cells] for cells in table.cells}
    assert ranges["ResNet-50 0.6, 20 %"] == [[2.94, 23.6], [520.66, 4131.88]]
    assert ranges["VGG16-BN 0.7, 10 %"] == [[119.74, 134.45], [243.73, 15653.86]]


def test_the_last_convolution_of_vgg() -> None:
    """How many of its filters can be gone, by the parameters that are left (and half a unit of the last digit)."""
    columns = 49 * 4096
    for printed, most in (("126.81M", 38), ("126.78M", 38), ("122.25M", 60), ("122.33M", 60)):
        value, half_digit = read(printed)
        assert (134453357 - value + half_digit) // columns == most


@pytest.mark.parametrize(("model", "size"), [("resnet50", 64), pytest.param("vgg16_bn", 32, marks=pytest.mark.slow)])
def test_what_compound_may_cut_is_what_the_method_cuts(model: str, size: int) -> None:
    call = partial(apart, _cut_by_compound) if model == "vgg16_bn" else _cut_by_compound
    may_be_cut, scored = call(model, size)
    assert may_be_cut == scored


def _cut_by_compound(model: str, size: int) -> tuple[set[str], set[str]]:
    """The groups that the paper's rule may cut, and those that the method scores."""
    network = models.create(model, 45, input_size=size)
    graph = pruning.trace(network, torch.zeros(1, 3, size, size))
    record = {name: torch.ones(m.out_channels) for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    scores = pruning.score(network, graph, "compound", elasticity=record)
    cut = next(row.cut for row in PAPERS["compound"].rows if isinstance(row.cut, Trained))
    return {name for name, group in graph.groups.items() if cut.may_be_cut(group)}, set(scores)


# RemoteTrimmer


@pytest.mark.slow
def test_remotetrimmer() -> None:
    table = apart(_recomputed, "remotetrimmer")
    found = {row: tuple(round(n / 1e6, 3) for n in counts) for row, counts in _counts(table).items()}
    assert _counts(table)["ResNet-18 EuroSAT"][0] == 11181642
    assert len(found) == 20
    for row, expected in {
        "ResNet-18 EuroSAT 0.3": (5.465, 73.458),
        "ResNet-18 EuroSAT 0.7": (1.0, 15.096),
        "VGG16-BN EuroSAT": (134.31, 1372.365),
        "VGG16-BN EuroSAT 0.5": (71.891, 383.164),
        "ResNet-18 UCM 0.9": (0.112, 34.877),
        "VGG16-BN UCM 0.7": (48.894, 1846.265),
    }.items():
        assert found[row] == expected
    assert {cell.status for cells in table.cells for cell in cells} == {"recomputed"}
    assert table.reasons() == []


@pytest.mark.slow
def test_channel_nas_has_what_is_known_before_a_search() -> None:
    table = papers.recompute(PAPERS["channel_nas"])
    assert _counts(table) == {
        "ResNet-34 NWPU-RESISC45": (21307757, 3663272448),
        "VGG16-BN NWPU-RESISC45": (134453357, 15466352640),
        "ResNet-34 UCM": (21295445, 3663260160),
        "VGG16-BN UCM": (134355029, 15466254336),
    }
    assert {cell.status for cells in table.cells for cell in cells} == {"recomputed"}


def test_remotetrimmer_cuts_as_the_method_does() -> None:
    """The groups and widths of the registered method's recipe, on the network of the table."""
    network = models.create("resnet18", 10)
    pruned = pruning.prune(network, torch.zeros(1, 3, 64, 64), "bn_scale", rate=0.7, allocation="uniform")
    found = compute.recompute(_one(_row("remotetrimmer", "ResNet-18 EuroSAT 0.7"), counters=("MAC",)))
    assert _counts(found) == {
        "ResNet-18 EuroSAT 0.7": (pruned.report["params"], pruned.report["conv_linear_macs"]),
    }
    assert pruned.report["params"] == 999552


def _row(paper: str, name: str) -> Row:
    return next(row for row in PAPERS[paper].rows if row.name == name)


def _one(row: Row, counters: tuple[str, ...]) -> Paper:
    return Paper("one", "One row", "a test", counters, (row,), ())


# The parts


@pytest.mark.parametrize(
    ("printed", "value", "half_digit"),
    [("0.85M", 850e3, 5e3), ("278.3k", 278300, 50), ("4.09B", 4.09e9, 5e6), ("15.65G", 15.65e9, 5e6), ("3M", 3e6, 5e5)],
)
def test_printed_figures(printed: str, value: float, half_digit: float) -> None:
    assert read(printed) == (value, pytest.approx(half_digit))


@pytest.mark.parametrize(
    ("printed", "ours", "status"),
    [
        ("0.24M", (244999,), "reproduced"),  # 2.1 % off, but every printed digit is right
        ("0.24M", (245001,), "not reproducible"),
        ("35.37M", (35720000,), "reproduced"),  # another digit, within 1 %
        ("35.37M", (35730000,), "not reproducible"),
        ("35.37M", (), "not reproducible"),
        ("35.37M", (35374999, 40000000), "needs training"),
        ("35.37M", (35376000, 40000000), "not reproducible"),  # cannot be attained
        ("35.37M", (1000000, 35364000), "not reproducible"),
        ("", (1,), "recomputed"),
    ],
)
def test_statuses(printed: str, ours: tuple[int, ...], status: str) -> None:
    assert Cell("row", "params", printed, ours, compared=True).status == status
    assert Cell("row", "params", printed, ours, compared=False).status is None


def test_the_error_is_relative_to_the_printed_figure() -> None:
    assert Cell("row", "params", "2M", (2100000,), compared=True).error == pytest.approx(0.05)
    assert Cell("row", "params", "2M", (1, 3000000), compared=True).error is None
    assert Cell("row", "params", "", (5,), compared=True).error is None


def test_an_unpublished_cut_builds_nothing() -> None:
    table = compute.recompute(_one(Row("x", Network("no-such-network", 2, 32), Unpublished(), "1M", "1M"), ("MAC",)))
    assert [cell.ours for cell in table.cells[0]] == [(), ()]


def test_recomputing_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    papers.recompute(_one(Row("x", Network("resnet20", 7, 32), Listed("lfp-1")), ("MAC",)))
    assert torch.equal(torch.get_rng_state(), before)


def test_older_counters_on_a_network_that_is_counted_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 5),
    ).train()  # fmt: skip
    state = {name: value.clone() for name, value in model.state_dict().items()}
    conv, outputs, pooling, linear = 3 * 9 * 4 * 64, 4 * 64, (4 * 4 + 1) * 16, 16 * 5
    assert older_thop(model, (3, 8, 8), "thop-2019") == conv + outputs + 4 * outputs + pooling + 2 * linear
    assert older_thop(model, (3, 8, 8), "thop-0.0.31") == conv + outputs + 2 * outputs + pooling + linear
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_whole_resnet34_that_nas_channel_pruning_starts_from() -> None:
    """45 classes, 224 x 224 pixels: 3.663272 G multiply-accumulates of the convolutions and the linear layer."""
    profile = counting.profile(models.create("resnet34", 45), (3, 224, 224))
    assert round(profile.conv_linear_macs / 1e9, 6) == 3.663272


def test_older_counters_on_resnet20() -> None:
    model = models.create("resnet20", 100, shortcut="B")
    assert older_thop(model, (3, 32, 32), "thop-0.0.31") == 41224512  # 41.20M within 0.1 %


# The command


def test_the_papers_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run("papers")
    assert (result.status, result.err) == (0, "")
    first = [line.split()[0] for line in result.out.splitlines()[1:] if not line.startswith(" ")]
    assert first == list(PAPERS)
    assert [entry["paper"] for entry in json.loads(run("papers", "--json").out)] == list(PAPERS)


def test_a_table_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    kept = tuple(row for row in _rows("lfp", 32).rows if row.network.model == "resnet56")
    monkeypatch.setitem(PAPERS, "lfp", dataclasses.replace(PAPERS["lfp"], rows=kept))
    result = run("papers", "lfp")
    assert (result.status, result.err) == (0, "")
    lines = [line.rstrip() for line in result.out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "ResNet-56 lfp-2  params      0.24M    240793      +0.33%  reproduced" in lines
    assert "  top-1 92.70 %  MAC         35.37M   34197184    -3.32%" in lines
    assert "                 thop-0.1.1  35.37M   35370496    +0.00%  reproduced" in lines
    assert "66.71M here, 64.71M in" in result.out
    assert result.out.count("not reproducible") == 2


def test_a_table_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tuple(row for row in PAPERS["lfp"].rows if row.network.model == "resnet20" or "UCM 1" in row.name)
    monkeypatch.setitem(PAPERS, "lfp", dataclasses.replace(PAPERS["lfp"], rows=kept))
    document = json.loads(run("papers", "lfp", "--json").out)
    first = document["rows"][1]
    assert {key: first[key] for key in ("row", "model", "classes", "shortcut", "ratios", "printed_top1")} == {
        "row": "ResNet-20 lfp-1", "model": "resnet20", "classes": 100, "shortcut": "B", "ratios": "lfp-1",
        "printed_top1": "67.43",
    }  # fmt: skip
    params = first["cells"][0]
    assert (params["printed"], params["ours"], params["status"]) == ("175.8k", 203360, "not reproducible")
    assert params["error"] == pytest.approx(0.1568, abs=1e-4)
    assert [cell["ours"] for cell in document["rows"][-1]["cells"]] == [None, None]


def test_an_unknown_paper() -> None:
    known = "channel_nas, compound, lfp, micronet, remotetrimmer"
    refused(run("papers", "lpf"), f"unknown paper 'lpf'. Did you mean 'lfp'? Known: {known}.")


def test_listing_imports_nothing_heavy() -> None:
    code = "import sys; from rssearch import papers; sys.exit(bool({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
