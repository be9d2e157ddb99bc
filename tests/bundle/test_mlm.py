"""mlm.json of a bundle is a STAC item of the extension for machine learning models, and says what the files say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft7Validator

from rssearch import bundle
from rssearch.bundle import exporting, mlm, predict
from tests.support import bundles, geo
from tests.support.stac import ITEM

FILES = {"model.onnx": b"onnx", "model.end_to_end.onnx": b"raw", "preprocessing.json": b"{}", "model_card.md": b"#"}
ROW: dict[str, Any] = {"key": "0123", "params": 270, "macs": 10, "bytes": 15, "test_accuracy": 0.9, "method": "l1"}


def item(about: dict[str, Any], *, any_size: bool = False) -> dict[str, Any]:
    found = mlm.item("my.study", ROW, about | {"model": "resnet20", "resize": "never"}, FILES, any_size=any_size)
    return dict(json.loads(json.dumps(found)))  # as it lies in the file


def errors(found: dict[str, Any]) -> list[str]:
    return [f"{list(error.absolute_path)}: {error.message}" for error in Draft7Validator(ITEM).iter_errors(found)]


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("bands", [None, 3, 4])
def test_the_item_keeps_to_the_schema(segments: bool, bands: int | None) -> None:
    about = geo.about(bands or 5, segments=segments) | ({} if bands else {"bands": None})
    found = item(about, any_size=segments)
    assert errors(found) == []
    (given,), (result,) = found["properties"]["mlm:input"], found["properties"]["mlm:output"]
    assert given["bands"] == {None: [], 3: ["red", "green", "blue"], 4: ["B00", "B01", "B02", "B03"]}[bands]
    assert given["input"]["shape"] == [-1, bands or 5, *([-1, -1] if segments else [16, 16])]
    assert result["result"]["shape"] == [-1, 3, *([-1, -1] if segments else [])]
    assert [found["name"] for found in result["classification:classes"]] == geo.CLASSES
    assert found["properties"]["mlm:tasks"] == ["semantic-segmentation" if segments else "scene-classification"]
    if bands:
        (types,) = {band["data_type"] for band in found["properties"]["bands"]}
        assert types == ("uint8" if bands == 3 else "uint16")


def test_its_scaling_is_that_of_the_bundle() -> None:
    about = geo.about(2) | {"scale": {"low": [100, 0], "high": [300, 50]}, "mean": [0.5, 0.25], "std": [0.5, 2.0]}
    (given,) = item(about)["properties"]["mlm:input"]
    pixels = np.array([[[100, 300]], [[50, 200]]], np.float32)
    by_hand = [(x - s["mean"]) / s["stddev"] for x, s in zip(pixels, given["value_scaling"], strict=True)]
    np.testing.assert_allclose(by_hand, predict.normalised(pixels, about), rtol=1e-6)


def test_it_says_what_the_network_costs_and_reaches() -> None:
    properties = item(geo.about(3))["properties"]
    assert properties["mlm:total_parameters"] == 270
    assert {name: value for name, value in properties.items() if name.startswith("rssearch:")} == {
        "rssearch:macs": 10, "rssearch:params": 270, "rssearch:bytes": 15, "rssearch:test_accuracy": 0.9,
    }  # fmt: skip
    assert properties["mlm:hyperparameters"] == {"method": "l1"}


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no extension": lambda i: i.update(stac_extensions=[]),
    "a place": lambda i: i.update(geometry={"type": "Point", "coordinates": [0, 0]}),
    "no model": lambda i: i["assets"].pop("model.onnx"),
    "no kind of model": lambda i: i["assets"]["model.onnx"].pop("mlm:artifact_type"),
    "a card that is a model": lambda i: i["assets"]["model_card.md"].update({"mlm:artifact_type": "x"}),
    "no bands in properties": lambda i: i["properties"].pop("bands"),
    "no bands in assets": lambda i: i["assets"]["model.onnx"].pop("bands"),
    "no bands of the axis": lambda i: i["properties"]["mlm:input"][0]["input"]["dim_order"].__setitem__(1, "channel"),
    "a name of signs": lambda i: i["properties"].update({"mlm:name": "?"}),
    "another task": lambda i: i["properties"].update({"mlm:tasks": ["guessing"]}),
    "an unknown field": lambda i: i["properties"].update({"mlm:price": 3}),
    "no output": lambda i: i["properties"].pop("mlm:output"),
    "a scaling without a mean": lambda i: i["properties"]["mlm:input"][0]["value_scaling"][0].pop("mean"),
    "a class without a value": lambda i: i["properties"]["mlm:output"][0]["classification:classes"][0].pop("value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_schema_refuses(name: str) -> None:
    found = item(geo.about(4))
    WRONG[name](found)
    assert errors(found)


def test_a_bundle_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "to_onnx", lambda model, shape: bundles.onnx_model())
    found = bundles.study(tmp_path, bundles.pruned_network(), bundles.ABOUT, tmp_path / "data")
    path = bundle.export(found, ROW | {"key": bundles.KEY}, tmp_path / "net")
    described = json.loads((path / "mlm.json").read_text())
    assert errors(described) == []
    assert described["id"] == f"scenes-{bundles.KEY}"
    assert set(described["assets"]) == {"model.onnx", "model.safetensors", "preprocessing.json", "model_card.md"}
    for name, asset in described["assets"].items():
        content = (path / name).read_bytes()
        assert asset["href"] == f"./{name}"
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert described["properties"]["mlm:input"][0]["name"] == "image"
    # Bundles of earlier versions have none.
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]["mlm.json"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "mlm.json").unlink()
    assert not bundle.load(path).training


def test_names_that_the_pattern_does_not_have() -> None:
    found = mlm.item(
        "ä/b", ROW | {"key": "k."}, geo.about(3) | {"model": "my:net", "resize": "x"}, FILES, any_size=False
    )
    assert errors(json.loads(json.dumps(found))) == []
    assert found["properties"]["mlm:name"] == "rssearch---b-k"
