"""The how-tos are run as they are printed: files by their titles, commands in their order."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
import yaml

HOWTOS = Path(__file__).parents[2] / "docs" / "howto"
PAGES = sorted(page.stem for page in HOWTOS.glob("*.md") if page.stem != "index")
BLOCK = re.compile(r'^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)


def follow(page: str, folder: Path) -> tuple[str, list[dict[str, str]]]:
    """Do what a page says in an empty folder; what it printed, and the rows of its study."""
    blocks = list(BLOCK.finditer((HOWTOS / f"{page}.md").read_text(encoding="utf-8")))
    for block in blocks:
        if block["title"]:
            (folder / block["title"]).write_text(block["text"])
    commands = "".join(block["text"] for block in blocks if block["kind"] == "sh")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PATH": path, "RAY_ADDRESS": "local"}
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    study = yaml.safe_load(next(block["text"] for block in blocks if block["kind"] == "yaml"))["study"]
    with (folder / "results" / study / "trials.csv").open() as file:
        return done.stdout, list(csv.DictReader(file))


def test_every_page_is_listed() -> None:
    index = (HOWTOS / "index.md").read_text(encoding="utf-8")
    assert PAGES == ["dataset", "method", "model", "scene", "trial", "weights"]
    assert sorted(re.findall(r"\((\w+)\.md\) \|", index)) == PAGES


@pytest.mark.slow
@pytest.mark.ray
def test_a_dataset(tmp_path: Path) -> None:
    printed, rows = follow("dataset", tmp_path)
    assert "120 images" in printed
    assert {row["method"]: row["status"] for row in rows} == {"l1": "finished", "lfp": "finished"}
    assert all(float(row["val_accuracy"]) > 0.3 for row in rows)


@pytest.mark.slow
@pytest.mark.ray
def test_a_network(tmp_path: Path) -> None:
    _, rows = follow("model", tmp_path)
    assert [(row["model"], row["status"]) for row in rows] == [("mymodels:tiny", "finished")] * 2
    assert [float(row["macs_ratio"]) for row in rows] == pytest.approx([0.5, 0.5], rel=0.01)
    assert (tmp_path / "net" / "manifest.json").is_file()
    code = "from rssearch import models; print(models.task_of(name := 'mysegmenters:PLAIN'), models.options_of(name))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "segmentation ['width']\n"


@pytest.mark.slow
@pytest.mark.ray
def test_a_method(tmp_path: Path) -> None:
    _, rows = follow("method", tmp_path)
    assert {row["method"]: row["status"] for row in rows} == dict.fromkeys(
        ("l1", "mymethods:spread", "mymethods:SPARSE"), "finished"
    )
    assert len({row["val_loss"] for row in rows}) == 3


@pytest.mark.slow
@pytest.mark.ray
def test_a_trial(tmp_path: Path) -> None:
    _, rows = follow("trial", tmp_path)
    assert sorted((row["size"], row["shortcut"], row["status"]) for row in rows) == [
        (size, shortcut, "finished") for size in ("16", "24") for shortcut in ("A", "B")
    ]
    assert len({row["macs"] for row in rows}) == 4


@pytest.mark.slow
@pytest.mark.ray
def test_a_scene(tmp_path: Path) -> None:
    printed, (row,) = follow("scene", tmp_path)
    assert float(row["val_miou"]) > 0.5
    *_, line, counts = printed.splitlines()
    assert line.split("\t")[:3] == ["scene.tif", "map/scene.mask.tif", "map/scene.probabilities.tif"]
    assert line.split("\t")[-2:] == ["without data", "0.1000"]
    assert sum(map(int, re.findall(r"[0-9]+", counts))) == 64 * 96
    with rasterio.open(tmp_path / "scene.tif") as scene, rasterio.open(tmp_path / "map" / "scene.mask.tif") as mask:
        assert (mask.crs, mask.transform, mask.shape) == (scene.crs, scene.transform, scene.shape)
        assert (mask.read(1)[:, :90] == 255).all()
        assert mask.read(1)[:, 90:].max() < 3
    models = json.loads((tmp_path / "net" / "measured.json").read_text())["models"]
    assert set(models["model.end_to_end.fp16.onnx"]["largest_difference"]) == {"onnxruntime", "openvino"}


@pytest.mark.slow
@pytest.mark.ray
def test_given_weights(tmp_path: Path) -> None:
    printed, (row,) = follow("weights", tmp_path)
    found = re.search(r"^accuracy on val: (\S+)$", printed, re.MULTILINE)
    assert found is not None
    assert float(row["baseline_val_accuracy"]) == float(found[1]) > 0.5  # the script's own number, to the digit
    assert "resnet18 with my.pt" in printed
    assert re.search(rf"^imagenet +{100 * float(found[1]):.1f} % ", printed, re.MULTILINE)
    for bundle in ("small", "net"):
        about = json.loads((tmp_path / bundle / "preprocessing.json").read_text())
        assert (about["normalize"], about["mean"]) == ("imagenet", pytest.approx([0.485, 0.456, 0.406]))
    assert "normalize: imagenet, the best on the validation images" in printed
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    start = lines.index("before after lost and gained")
    assert lines[start + 1].startswith(f"Validation accuracy {100 * float(found[1]):.1f} %")
    for title in ("Test accuracy", "MACs", "Parameters", "Latency (ms)"):
        assert any(line.startswith(title) for line in lines[start:]), title
