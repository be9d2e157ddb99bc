"""What an export measures: the ONNX models on the images of the study, beside what the study recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from rssearch import bundle, pruning
from rssearch.bundle import checks, exporting
from rssearch.cost.onnx import OnnxNetwork
from rssearch.data import ImageSet
from rssearch.errors import InputError
from rssearch.report.recorded import Recorded
from rssearch.train.loop import evaluate
from tests.support import bundles
from tests.support.commands import refused, run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    bundles.pictures(folder)
    return folder


@pytest.fixture(scope="module")
def images(root: Path) -> ImageSet:
    return bundles.image_set(root)


@pytest.fixture(scope="module")
def pruned() -> pruning.PrunedModel:
    return bundles.pruned_network()


@pytest.fixture
def row(pruned: pruning.PrunedModel, images: ImageSet) -> dict[str, Any]:
    return bundles.trial(pruned, images)[1]


@pytest.fixture
def found(
    tmp_path: Path,
    root: Path,
    pruned: pruning.PrunedModel,
    images: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
) -> Recorded:
    """A study of one trial; its network is made an ONNX model once for all tests."""
    monkeypatch.setattr(exporting, "to_onnx", lambda model, shape: bundles.onnx_model())
    return bundles.study(tmp_path, pruned, bundles.trial(pruned, images)[0], root)


def measured(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "measured.json").read_text())
    return found


def test_the_quality_of_the_onnx_models_is_that_of_the_same_images(
    tmp_path: Path, found: Recorded, row: dict[str, Any], images: ImageSet
) -> None:
    path = bundle.export(found, row, tmp_path / "m", int8=True)
    result = measured(path)
    assert result["parity"]["images"] == 16
    assert result["parity"]["source"] == "images of folder:tiles"
    assert 0 <= result["parity"]["largest_difference"] < 1e-4
    assert 0.01 < result["parity"]["largest_logit"] < 1e3
    assert (result["split"], result["images"], result["calibration_images"]) == ("test", 18, 30)
    quality = result["quality"]
    assert quality["recorded"] == quality["model.onnx"] == {"accuracy": row["test_accuracy"]}
    content = (path / "model.int8.onnx").read_bytes()
    assert len(content) < len((path / "model.onnx").read_bytes()) / 1.5
    by_hand = evaluate(OnnxNetwork(content), images.split("test"), batch_size=5, device=torch.device("cpu"))
    assert quality["model.int8.onnx"] == {"accuracy": by_hand["accuracy"]}
    assert set(result["latency"]) == {"device", "threads", "passes", "torch", "model.onnx", "model.int8.onnx"}
    times = result["latency"]["model.int8.onnx"]
    assert 0 < times["median_ms"] <= times["p95_ms"]
    card = (path / "model_card.md").read_text()
    for text in (
        "calibrated on 30 images of the training split",
        "On the 18 test images of the study:",
        f"| recorded by the study, in torch | {100 * row['test_accuracy']:.2f} % (",
        f"| `model.int8.onnx` | {100 * by_hand['accuracy']:.2f} % (",
        ", 18 images) |",
    ):
        assert text in card


def test_int8_keeps_the_network(pruned: pruning.PrunedModel, images: ImageSet) -> None:
    content, count = checks.calibrated(bundles.onnx_model(), images)
    assert count == 30
    x = torch.stack([images.split("val")[i][0] for i in range(12)])
    with torch.inference_mode():
        expected = pruned.model(x)
    for batch in (x, x[:1]):
        error = OnnxNetwork(content)(batch) - expected[: len(batch)]
        assert 0 < error.square().mean() < 0.01 * expected.square().mean()  # 8 bits, and not the network itself


def test_a_trial_that_never_saw_the_test_images_is_measured_on_the_validation_split(
    tmp_path: Path, found: Recorded, row: dict[str, Any]
) -> None:
    result = measured(bundle.export(found, row | {"test_accuracy": None}, tmp_path / "m", check=True))
    assert (result["split"], result["images"]) == ("val", 12)
    assert result["quality"] == {
        "recorded": {"accuracy": row["val_accuracy"]},
        "model.onnx": {"accuracy": row["val_accuracy"]},
    }


def test_the_command(tmp_path: Path, found: Recorded, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rssearch.report.recorded.choose", lambda *_args, **_more: row)
    storage, out = str(tmp_path / "results"), tmp_path / "m"
    result = run("export", "scenes", "--storage", storage, "--out", str(out), "--check")
    assert result.status == 0, result.err
    accuracy = f"test accuracy {row['test_accuracy']:.6f} (18 images)"
    first, parity, *lines = result.out.splitlines()
    assert first == f"exported to {out}"
    assert parity.startswith("model.onnx: the network's logits within ")
    assert lines == [f"recorded: {accuracy}", f"model.onnx: {accuracy}"]
    assert not (out / "model.int8.onnx").exists()
    nowhere = run(
        "export", "scenes", "--storage", storage, "--out", str(tmp_path / "n"), "--int8", "--data-root", str(tmp_path)
    )
    refused(nowhere, "tiles", str(tmp_path))
    assert not (tmp_path / "n").exists()


def test_images_that_are_not_the_studys_are_refused(
    tmp_path: Path, found: Recorded, row: dict[str, Any], images: ImageSet
) -> None:
    message = rf"the images of 'folder:tiles' below .* are not those of the study: .* {images.split_hash[:12]}, the"
    with pytest.raises(InputError, match=message):
        bundle.export(found, row | {"split_hash": "feed"}, tmp_path / "m", check=True)
    with pytest.raises(InputError, match="does not say what its dataset was"):
        bundle.export(found, row | {"dataset": None}, tmp_path / "m", check=True)
    assert not (tmp_path / "m").exists()


def test_without_the_dataset_the_comparison_is_on_noise(tmp_path: Path, found: Recorded, row: dict[str, Any]) -> None:
    path = bundle.export(found, row, tmp_path / "m", data_root=tmp_path)
    assert measured(path)["parity"]["source"] == "images of noise"
    assert "on 16 images of noise." in (path / "model_card.md").read_text()


def test_images_that_cannot_be_read_are_left_out_of_the_comparison(
    tmp_path: Path, root: Path, found: Recorded, row: dict[str, Any]
) -> None:
    for name in bundles.CLASSES:
        (tmp_path / "tiles" / name).mkdir(parents=True)
        (tmp_path / "tiles" / name / "0.png").write_bytes((root / "tiles" / name / "0.png").read_bytes())
    (tmp_path / "tiles" / "lake" / "1.png").write_bytes(b"no image")
    path = bundle.export(found, row, tmp_path / "m", data_root=tmp_path)
    assert measured(path)["parity"]["images"] == 3


def test_an_onnx_network_is_run_with_so_many_threads() -> None:
    network = OnnxNetwork(bundles.onnx_model(), threads=2)
    assert isinstance(network.session, onnxruntime.InferenceSession)
    assert network.session.get_session_options().intra_op_num_threads == 2
