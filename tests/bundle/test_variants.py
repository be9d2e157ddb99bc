"""ONNX models beside model.onnx: each gives what the network gives, by onnxruntime and by OpenVINO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from rssearch import bundle, pruning
from rssearch.bundle import checks, exporting, predict, variants
from rssearch.bundle.__main__ import main
from rssearch.bundle.preprocessing import bands_of, factors_of, normalised
from rssearch.bundle.variants import Wanted
from rssearch.config.settings import Settings
from rssearch.cost import openvino_runtime
from rssearch.cost.onnx import to_onnx, to_onnx_of_any_size
from rssearch.cost.onnx_variants import FP16_TOLERANCE, end_to_end, to_fp16
from rssearch.errors import InputError
from rssearch.report.recorded import Recorded
from tests.support import bundles, geo
from tests.support.commands import run
from tests.support.scenes import tiny

NAMES = ("model.onnx", "model.fp16.onnx", "model.end_to_end.onnx", "model.end_to_end.fp16.onnx")
RUNTIMES = {"onnxruntime", "openvino"}


def computed(content: bytes, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return {
        "onnxruntime": session.run(None, {given.name: images})[0],
        "openvino": openvino_runtime.computed(content, images),
    }


@pytest.fixture(scope="module")
def pruned() -> pruning.PrunedModel:
    return bundles.pruned_network()


@pytest.fixture
def found(tmp_path: Path, pruned: pruning.PrunedModel, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setattr(exporting, "to_onnx", lambda model, shape: bundles.onnx_model())
    return bundles.study(tmp_path, pruned, bundles.ABOUT, tmp_path / "data")


def test_each_model_gives_what_the_network_gives(
    tmp_path: Path, found: Recorded, pruned: pruning.PrunedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle.export(found, {"key": bundles.KEY}, tmp_path / "net", fp16=True, end_to_end=True)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    inputs = torch.from_numpy(predict.normalised(pixels, bundles.ABOUT))
    with torch.inference_mode():
        logits = pruned.model(inputs)
    measured = json.loads((path / "measured.json").read_text())["models"]
    assert tuple(measured) == NAMES
    for name in NAMES:
        raw, half = "end_to_end" in name, "fp16" in name
        expected = logits.softmax(1) if raw else logits
        bound = (1e-2 if half else 1e-4) * (0.5 if raw else 1) * max(1, logits.abs().max().item())
        for result in computed((path / name).read_bytes(), pixels if raw else inputs.numpy()).values():
            np.testing.assert_allclose(result, expected, atol=bound, rtol=0)
        about = measured[name]
        assert about["output"] == ("probabilities" if raw else "logits")
        extra = {"torch in float16"} if name == "model.fp16.onnx" else set()
        assert set(about["largest_difference"]) == RUNTIMES | extra
        assert all(0 <= value <= about["bound"] for value in about["largest_difference"].values())
    assert measured["model.fp16.onnx"]["largest_difference"]["torch in float16"] > 1e-5
    assert (path / NAMES[1]).stat().st_size < 0.65 * (path / NAMES[0]).stat().st_size
    card = (path / "model_card.md").read_text()
    assert "`model.end_to_end.onnx` gives the network's probabilities within 5e-05: onnxruntime " in card
    assert bundle.load(path)(inputs).shape == (3, 3)  # the manifest holds them all
    _check_prediction(path, tmp_path, logits, pixels, capsys)
    (path / NAMES[1]).write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.fp16\.onnx changed after the export"):
        bundle.load(path)


def _check_prediction(
    path: Path, folder: Path, logits: torch.Tensor, pixels: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the command says by the model in 16 bits."""
    from PIL import Image

    Image.fromarray(pixels[0].transpose(1, 2, 0)).save(folder / "a.png")
    assert main([str(path), str(folder / "a.png"), "--fp16", "--json", "--top", "3"]) == 0
    classes = json.loads(capsys.readouterr().out)["classes"]
    expected = logits.softmax(1)[0].tolist()
    assert [classes[name] for name in bundles.CLASSES] == pytest.approx(expected, abs=1e-2)
    with pytest.raises(SystemExit, match="2"):
        main([str(path), "a.png", "--fp16", "--int8"])


def test_a_bundle_without_it_says_what_writes_it(tmp_path: Path, found: Recorded) -> None:
    path = bundle.export(found, {"key": bundles.KEY}, tmp_path / "net")
    assert "models" not in json.loads((path / "measured.json").read_text())
    with pytest.raises(InputError, match=r"has no model\.fp16\.onnx; `rssearch export --fp16` writes it"):
        predict.open_network(path, fp16=True)


def test_the_command_exports_them(tmp_path: Path, found: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rssearch.report.recorded.choose", lambda *_args, **_more: {"key": bundles.KEY})
    arguments = ["export", "scenes", "--storage", str(tmp_path / "results"), "--out", str(tmp_path / "m")]
    result = run(*arguments, "--end-to-end")
    assert result.status == 0, result.err
    assert "model.end_to_end.onnx: the network's probabilities within 5e-05: onnxruntime " in result.out
    assert not (tmp_path / "m" / "model.fp16.onnx").exists()
    refused = run(*arguments[:-1], str(tmp_path / "n"), "--any-size")
    assert refused.status == 2
    assert "--any-size: is for networks that give each pixel a class" in refused.err
    assert not (tmp_path / "n").exists()


def test_all_models_in_an_older_opset(
    tmp_path: Path, found: Recorded, pruned: pruning.PrunedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rssearch.report.recorded.choose", lambda *_args, **_more: {"key": bundles.KEY})
    arguments = ["export", "scenes", "--storage", str(tmp_path / "results"), "--out"]
    result = run(*arguments, str(tmp_path / "m"), "--fp16", "--end-to-end", "--opset", "17")
    assert result.status == 0, result.err
    for name in NAMES:
        model = onnx.load_from_string((tmp_path / "m" / name).read_bytes())
        assert [entry.version for entry in model.opset_import if not entry.domain] == [17]
        onnx.checker.check_model(model, full_check=True)
        assert f"{name}: the network's " in result.out  # compared with it in each runtime
    assert "`model.onnx` (opset 17, a batch of any size)" in (tmp_path / "m" / "model_card.md").read_text()
    assert json.loads((tmp_path / "m" / "preprocessing.json").read_text())["onnx"]["opset"] == 17
    refused = run(*arguments, str(tmp_path / "n"), "--opset", "16")
    assert (refused.status, refused.err.strip()) == (2, "error: --opset 16: must be one of 17, 18, 19, 20")
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "float32"])
def test_raw_values_of_any_type_are_scaled_inside(dtype: str) -> None:
    about = geo.about(2, size=8, segments=False) | {"dtype": dtype, "fill": [20.0, 30.0]}
    about["scale"] = {"low": [0, 10], "high": [120, 100]}
    pixels = np.random.default_rng(0).integers(0, 120, (2, 2, 8, 8)).astype(dtype)
    plain = geo.model(2, 3, 8, segments=False)
    filled = pixels.copy()
    if dtype == "float32":
        pixels[0, :, 2, 2], pixels[1, 0, 0, 0], pixels[1, 1, 0, 0] = np.nan, np.inf, -np.inf
        filled[0, :, 2, 2] = filled[1, :, 0, 0] = (20, 30)
    pixels[1, 0, 3, 4], filled[1, 0, 3, 4] = 121, 20
    content = end_to_end(plain, *factors_of(about), dtype, bands_of(about).fill, 121)
    expected = computed(plain, normalised(filled, about))["onnxruntime"]
    for result in computed(content, pixels).values():
        np.testing.assert_allclose(result, predict.softmax(expected), atol=1e-5)
    (given,) = onnxruntime.InferenceSession(content).get_inputs()
    assert (given.name, given.shape) == ("pixels", ["batch", 2, 8, 8])


def test_values_beyond_16_bits_are_scaled_before_they_are_cut(tmp_path: Path) -> None:
    about = geo.about(2, size=8, segments=False) | {"dtype": "uint32"}
    about["scale"] = {"low": [0, 0], "high": [1e6, 1e6]}
    models = variants.made(geo.model(2, 3, 8, segments=False), about, Wanted(fp16=True, end_to_end=True))
    assert tuple(models) == NAMES
    pixels = np.full((1, 2, 8, 8), 900_000, np.uint32)  # no number of float16
    whole, half = (computed(models[name], pixels)["onnxruntime"] for name in NAMES[2:])
    np.testing.assert_allclose(half, whole, atol=5e-3)


class OneSize(nn.Module):
    """Takes images of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.places(x))


def test_a_network_for_segmentation_takes_any_size() -> None:
    model = tiny().eval()
    content = to_onnx_of_any_size(model, (3, 8, 8))
    assert variants.multiple(model, content, (3, 8, 8)) == 2  # it halves its maps once
    images = torch.randn(2, 3, 14, 22)
    with torch.inference_mode():
        expected = model(images)
    for result in computed(content, images.numpy()).values():
        np.testing.assert_allclose(result, expected, atol=1e-4, rtol=0)
    for result in computed(to_fp16(content), images.numpy()).values():
        np.testing.assert_allclose(result, expected, atol=FP16_TOLERANCE * max(1, expected.abs().max().item()), rtol=0)
    about = geo.about(3, size=8)
    raw = variants.made(content, about, Wanted(end_to_end=True, any_size=True))[NAMES[2]]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 6, 10), dtype=np.uint8)
    with torch.inference_mode():
        chances = model(torch.from_numpy(normalised(pixels, about))).softmax(1)
    for result in computed(raw, pixels).values():
        np.testing.assert_allclose(result, chances, atol=1e-4, rtol=0)


def test_a_network_for_one_size_is_told() -> None:
    with pytest.raises(InputError, match=r"^the network takes images of 8x8 alone"):
        to_onnx_of_any_size(OneSize().eval(), (3, 8, 8))
    with pytest.raises(InputError, match="--any-size: the network takes images of 8x8 alone"):
        variants.multiple(OneSize().eval(), b"", (3, 8, 8))


def test_a_model_that_is_not_the_network_is_refused() -> None:
    torch.manual_seed(0)
    model, other = nn.Conv2d(3, 3, 1).eval(), nn.Conv2d(3, 3, 1).eval()
    about = geo.about(3, size=8)
    images = checks.Images(None, Path(), Settings(), about, None)
    wrong = variants.made(to_onnx(other, (3, 8, 8)), about, Wanted(fp16=True, end_to_end=True))
    for name in NAMES:
        with pytest.raises(InputError, match=rf"^{name} is not the network: its output by onnxruntime differs by up"):
            variants.compared(model, {name: wrong[name]}, images)


def test_numbers_that_float16_does_not_have_are_found() -> None:
    """By torch: onnxruntime computes in float32 on a CPU."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)).eval()
    with torch.no_grad():
        model[0].weight.fill_(30_000)
        model[1].weight.fill_(1e-5)
    about = geo.about(3, size=8)
    images = checks.Images(None, Path(), Settings(), about, None)
    with pytest.raises(InputError, match=r"^model\.fp16\.onnx is not the network: "):
        variants.compared(model, variants.made(to_onnx(model, (3, 8, 8)), about, Wanted(fp16=True)), images)


def test_without_openvino_onnxruntime_alone_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_runtime, "is_installed", lambda: False)
    model, about = nn.Conv2d(3, 3, 1).eval(), geo.about(3, size=8)
    images = checks.Images(None, Path(), Settings(), about, None)
    found = variants.compared(model, {NAMES[0]: to_onnx(model, (3, 8, 8))}, images)
    assert set(found[NAMES[0]]["largest_difference"]) == {"onnxruntime"}


def test_what_openvino_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr(openvino_runtime, "computed", fail)
    model, about = nn.Conv2d(3, 3, 1).eval(), geo.about(3, size=8)
    images = checks.Images(None, Path(), Settings(), about, None)
    found = variants.compared(model, {NAMES[0]: to_onnx(model, (3, 8, 8))}, images)
    assert found[NAMES[0]]["largest_difference"]["openvino"] == "cannot run it: no such operation"
