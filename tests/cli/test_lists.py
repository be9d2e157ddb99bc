"""Lists of the command line: the same as a table and as JSON, and the studies of a storage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rssearch import pruning
from rssearch.cli import main
from rssearch.models import list_models
from rssearch.sampling import CAPABILITIES

RECORDED = Path(__file__).parents[1] / "support" / "recorded"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "column", "names"),
    [
        ("models", "model", set(list_models())),
        ("methods", "method", set(pruning.METHODS)),
        ("samplers", "sampler", set(CAPABILITIES)),
        ("data list", "dataset", {"eurosat", "synthetic_scenes"}),
        ("papers", "paper", {"lfp", "compound"}),
    ],
)
def test_a_list_is_json_as_well(capsys: pytest.CaptureFixture[str], command: str, column: str, names: set[str]) -> None:
    listed = json.loads(said(capsys, *command.split(), "--json"))
    assert {row[column] for row in listed} >= names
    assert len({tuple(row) for row in listed}) == 1
    table = said(capsys, *command.split())
    assert all(name in table for name in names)


def test_a_search_lists_the_networks_of_all_zoos(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(said(capsys, "models", "--search", "EfficientNet-B0", "--json"))
    names = {row["model"] for row in listed}
    assert {"torchvision:efficientnet_b0", "timm:efficientnet_b0", "smp:unet/efficientnet-b0"} <= names
    assert all(name in said(capsys, "models", "--search", "EfficientNet-B0") for name in names)


def test_the_studies_of_a_storage_are_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert json.loads(said(capsys, "studies", "--storage", str(tmp_path), "--json")) == []
    shutil.copytree(RECORDED, tmp_path / "recorded")
    (row,) = json.loads(said(capsys, "studies", "--storage", str(tmp_path), "--json"))
    assert row["study"] == "recorded"
    assert (row["trials"], row["finished"], row["failed"]) == (4, 4, 0)
    assert 1 <= row["front"] <= row["finished"]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "study.yaml").write_text("study: [")
    assert "recorded" in said(capsys, "studies", "--storage", str(tmp_path))
