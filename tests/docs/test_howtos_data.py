"""How-tos about images of one's own, run as they are printed; and the list of all how-tos."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import rasterio

from tests.support.howtos import HOWTOS, PAGES, follow


def test_every_page_is_listed() -> None:
    index = (HOWTOS / "index.md").read_text(encoding="utf-8")
    assert PAGES == ["dataset", "device", "method", "model", "scene", "trial", "weights"]
    assert sorted(re.findall(r"\((\w+)\.md\) \|", index)) == PAGES


@pytest.mark.slow
@pytest.mark.ray
def test_a_dataset(tmp_path: Path, local_ray: str) -> None:
    printed, rows = follow("dataset", tmp_path, local_ray)
    assert "120 images" in printed
    assert {row["method"]: row["status"] for row in rows} == {"l1": "finished", "lfp": "finished"}
    assert all(float(row["val_accuracy"]) > 0.3 for row in rows)


@pytest.mark.slow
@pytest.mark.ray
def test_a_scene(tmp_path: Path, local_ray: str) -> None:
    printed, (row,) = follow("scene", tmp_path, local_ray)
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
