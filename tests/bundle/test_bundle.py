"""rssearch.bundle: what is exported is what was trained, whole and unchanged."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_tensors

from rssearch import bundle, models, pruning
from rssearch.bundle import exporting, predict
from rssearch.bundle.card import card, wilson
from rssearch.cost.int8 import to_int8
from rssearch.cost.onnx import OnnxNetwork, to_onnx
from rssearch.cost.onnx_variants import to_bf16, to_fp16
from rssearch.errors import InputError
from rssearch.imaging.pixels import decode
from rssearch.report.recorded import Recorded
from rssearch.storage.artifacts import Store
from rssearch.trial.interface import CONVERTED
from tests.support.bundles import ABOUT, CLASSES, KEY, onnx_model, pruned_network, study

NAMES = [
    "architecture.json",
    "manifest.json",
    "measured.json",
    "mlm.json",
    "model.onnx",
    "model.safetensors",
    "model_card.md",
    "preprocessing.json",
]
MEASURED = {
    "opset": 20,
    "parity": {"images": 16, "source": "images of noise", "largest_difference": 1e-6, "largest_logit": 2.0},
}


@pytest.fixture(scope="module")
def pruned() -> pruning.PrunedModel:
    return pruned_network()


@pytest.fixture
def found(tmp_path: Path, pruned: pruning.PrunedModel, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """A study of one trial; its network is made an ONNX model once for all tests."""
    monkeypatch.setattr(exporting, "to_onnx", lambda model, shape: onnx_model())
    return study(tmp_path, pruned, ABOUT, tmp_path / "data")


@pytest.fixture
def row() -> dict[str, Any]:
    return {
        "key": KEY,
        "status": "finished",
        "dataset": "folder:tiles",
        "model": "resnet20",
        "method": "l1",
        "rate": 0.5,
        "seed": 3,
        "val_accuracy": 0.912,
        "test_accuracy": 0.905,
        "baseline_val_accuracy": 0.934,
        "macs": 10_600_000,
        "baseline_macs": 41_300_000,
        "macs_ratio": 0.2567,
        "params": 68_100,
        "baseline_params": 270_000,
        "params_ratio": 0.252,
        "macs_counter": "thop 0.1.1",
        "split_hash": "feedbeef",
        "latency_ms": 1.234,
        "latency_iqr_ms": 0.056,
        "latency_device": "cpu",
        "latency_threads": 2,
    }


def test_the_reloaded_network_gives_the_same_outputs(
    tmp_path: Path, found: Recorded, row: dict[str, Any], pruned: pruning.PrunedModel
) -> None:
    path = bundle.export(found, row, tmp_path / "out" / "model")
    assert path == tmp_path / "out" / "model"
    assert sorted(p.name for p in path.iterdir()) == NAMES
    assert [p.name for p in path.parent.iterdir()] == ["model"]  # no draft is left
    model = bundle.load(path)
    assert not model.training
    x = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(x), pruned.model(x))
    by_hand = pruning.apply_spec(models.create("resnet20", 3, shortcut="A"), pruned.spec)
    by_hand.load_state_dict(load_tensors((path / "model.safetensors").read_bytes()))
    with torch.inference_mode():
        assert torch.equal(model(x), by_hand.eval()(x))


def test_the_files_say_what_the_network_needs(tmp_path: Path, found: Recorded, row: dict[str, Any]) -> None:
    path = bundle.export(found, row, tmp_path / "m")
    architecture = json.loads((path / "architecture.json").read_text())
    assert {n: architecture[n] for n in ("model", "options", "num_classes", "input_shape")} == {
        "model": "resnet20",
        "options": {"shortcut": "A"},
        "num_classes": 3,
        "input_shape": [3, 32, 32],
    }
    assert architecture["task"] == "classification"
    preprocessing = json.loads((path / "preprocessing.json").read_text())
    assert preprocessing["task"] == "classification"
    assert preprocessing["onnx"] == {"input": "image", "output": "logits", "opset": 20}
    assert (preprocessing["mean"], preprocessing["std"]) == ([0.3, 0.4, 0.5], [0.1, 0.2, 0.25])
    assert preprocessing["classes"] == CLASSES
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == bundle.FORMAT == "rssearch.bundle/2"
    assert manifest["sha256"] == {
        name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in NAMES if name != "manifest.json"
    }


def test_the_card_tells_results_and_costs(tmp_path: Path, found: Recorded, row: dict[str, Any]) -> None:
    text_of_card = (bundle.export(found, row, tmp_path / "m") / "model_card.md").read_text()
    for text in (
        "# resnet20, pruned by l1, rate 0.5, seed 3\n",
        "study `scenes` (trial `0123456789abcdef`)",
        "| | this network | before pruning | difference |\n|---|---|---|---|\n",
        "| Validation accuracy | 91.2 % | 93.4 % | −2.2 points |\n",
        "| Test accuracy | 90.5 % |  |  |\n",
        "| MACs | 10.6 M | 41.3 M | 25.7 % left |\n",
        "| Parameters | 68.1 k | 270 k | 25.2 % left |\n",
        "| Latency (ms) | 1.23 (0.056) |  |  |\n",
        "median 1.23 ms, interquartile range 0.056 ms, on cpu, CPU threads: 2.",
        "**Data:** `folder:tiles`",
        "**Split:** `feedbeef`",
        "forest, lake, road",
        "counted by thop 0.1.1",
        "python 3.11.7, torch 2.15.0; exported with torch ",
        "(opset 20, a batch of any size)",
        "by onnxruntime on 16 images of noise.",
        "**Licence of the data:** that of your own images.",
    ):
        assert text in text_of_card


def test_wilson_by_hand() -> None:
    # Wilson (1927): 8 of 10 with z = 1.96 is 0.4902 to 0.9433 (Agresti and Coull 1998, table of examples)
    assert wilson(0.8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    low, high = wilson(0.0, 50)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(3.8415 / (50 + 3.8415), abs=1e-5)


def test_an_accuracy_has_an_interval_where_the_number_of_its_images_is_known(
    found: Recorded, row: dict[str, Any]
) -> None:
    about = ABOUT | {"task": "classification"}
    text = card(found, row | {"test_images": 200}, about, MEASURED)
    assert "| Test accuracy | 90.5 % (95 % interval 85.6 to 93.8 %, 200 images) |  |  |\n" in text
    assert "| Validation accuracy | 91.2 % | 93.4 % | −2.2 points |\n" in text


@pytest.mark.parametrize(
    ("dataset", "licence"),
    [
        ("eurosat", "MIT"),
        ("cifar10", "not known to rssearch"),
        ("lakes", "not known to rssearch"),
        (None, "unknown, as is the dataset"),
    ],
)
def test_the_card_tells_the_licence_of_the_data(
    found: Recorded, row: dict[str, Any], dataset: str | None, licence: str
) -> None:
    text = card(found, row | {"dataset": dataset}, ABOUT | {"task": "classification"}, MEASURED)
    assert f"**Licence of the data:** {licence}" in text


def test_names_in_the_card_are_text(found: Recorded, row: dict[str, Any]) -> None:
    classes = ["<script>alert(1)</script>", "[a](javascript:b)", "`c`\n# d", "\x1b[31me"]
    about = ABOUT | {"task": "classification", "classes": classes, "model": "my_nets:a"}
    text = card(found, row | {"dataset": "folder:`x` <b>"}, about, MEASURED)
    escaped = r"\<script\>alert(1)\</script\>, \[a\](javascript:b), \`c\` \# d, \\u001b\[31me"
    assert f"* **Classes:** {escaped}\n" in text
    assert "* **Data:** `` folder:`x` <b> ``." in text
    assert "# my\\_nets:a, pruned by l1" in text
    assert "bundle.load(folder, allow_imports=True)  # checks" in text


def test_the_card_tells_what_was_lost_and_gained(found: Recorded, row: dict[str, Any]) -> None:
    before = {"test_accuracy": 0.925, "latency_ms": 3.0, "latency_iqr_ms": 0.9, "bytes": 1_100_000}
    before |= {"latency_device": "cpu", "latency_threads": 2}
    whole = row | {"bytes": 290_000} | {f"baseline_{name}": value for name, value in before.items()}
    text = card(found, whole, ABOUT | {"task": "classification"}, MEASURED)
    for line in (
        "| Test accuracy | 90.5 % | 92.5 % | −2.0 points |\n",
        "| Size | 290 kB | 1.1 MB | 26.4 % left |\n",
        "| Latency (ms) | 1.23 (0.056) | 3 (0.9)‡ | 2.43×‡ |\n",
        "Size: float32 weights as they lie on disk (safetensors). Latency: median (interquartile range). "
        "‡ interquartile range above a tenth of the median: the machine had other work.\n",
    ):
        assert line in text


def test_the_card_leaves_out_what_was_not_measured(found: Recorded) -> None:
    text = card(found, {"key": KEY, "val_accuracy": 0.5}, ABOUT | {"task": "classification"}, MEASURED)
    assert "Its latency was not measured." in text
    assert "| | this network |\n|---|---|\n| Validation accuracy | 50.0 % |\n" in text  # and no empty columns
    assert "Test accuracy" not in text
    assert "None" not in text.partition("## Use")[0]


def photographs(folder: Path) -> None:
    """Images of many sizes and kinds, in files without an ending: a card's code reads any."""
    rng = np.random.default_rng(0)
    folder.mkdir()

    def photograph(width: int, height: int) -> Image.Image:
        small = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8))
        return small.resize((width, height), Image.Resampling.BICUBIC)

    turned = Image.Exif()
    turned[0x0112] = 6
    photograph(32, 32).save(folder / "as_it_is", "PNG")
    photograph(400, 300).save(folder / "large", "PNG")
    photograph(640, 420).save(folder / "jpeg", "JPEG", quality=90)
    photograph(640, 420).save(folder / "turned_jpeg", "JPEG", exif=turned)
    photograph(90, 200).save(folder / "turned_png", "PNG", exif=turned)
    photograph(70, 90).convert("P").save(folder / "palette", "PNG")
    photograph(300, 90).convert("L").save(folder / "grey", "JPEG")
    photograph(20, 24).convert("RGBA").save(folder / "tiff", "TIFF", tiffinfo={274: 8})


def test_the_code_of_the_card_gives_the_numbers_of_the_bundle(
    tmp_path: Path,
    found: Recorded,
    row: dict[str, Any],
    pruned: pruning.PrunedModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = bundle.export(found, row, tmp_path / "m")
    codes = re.findall(r"```python\n(.*?)```", (path / "model_card.md").read_text(), re.DOTALL)
    assert len(codes) == 3
    photographs(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    network = predict.open_network(path)
    runs = [compile(code.replace("PATH/OF/THIS/FOLDER", str(path)), "card", "exec") for code in codes]
    for image in sorted((tmp_path / "images").iterdir()):
        image.replace(tmp_path / "image.png")
        pixels = torch.from_numpy(decode((tmp_path / "image.png").read_bytes(), 32)) / 255
        x = (pixels - torch.tensor([0.3, 0.4, 0.5])[:, None, None]) / torch.tensor([0.1, 0.2, 0.25])[:, None, None]
        with torch.inference_mode():
            logits = pruned.model(x[None])[0]
        expected = logits.softmax(0)
        np.testing.assert_allclose(predict.probabilities(network, tmp_path / "image.png"), expected, atol=1e-5)
        names: list[dict[str, Any]] = [{} for _ in runs]
        for run, space in zip(runs, names, strict=True):
            exec(run, space)
        *predicted, alone, in_torch = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in predicted] == CLASSES
        assert [float(line.split()[1]) for line in predicted] == pytest.approx(expected.tolist(), abs=1e-5)
        np.testing.assert_allclose(names[1]["logits"][0], logits, atol=1e-4, err_msg=image.name)
        np.testing.assert_allclose(names[2]["probabilities"], expected, atol=1e-6, err_msg=image.name)
        assert alone == in_torch.split()[0] == CLASSES[int(expected.argmax())]


def test_the_card_of_a_network_for_oblong_images_scales_none(found: Recorded, row: dict[str, Any]) -> None:
    text = card(found, row, ABOUT | {"task": "classification", "input_shape": [3, 20, 30]}, MEASURED)
    assert "assert image.size == (width, height)" in text
    assert 'decode(Path("image.png").read_bytes(), None)' in text
    assert "resize(" not in text


@pytest.mark.parametrize("name", [name for name in NAMES if name != "manifest.json"])
def test_a_changed_file_is_refused(tmp_path: Path, found: Recorded, row: dict[str, Any], name: str) -> None:
    path = bundle.export(found, row, tmp_path / "m")
    content = bytearray((path / name).read_bytes())
    content[-1] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} changed after the export"):
        bundle.load(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_refused(tmp_path: Path, found: Recorded, row: dict[str, Any], name: str) -> None:
    path = bundle.export(found, row, tmp_path / "m")
    (path / name).unlink()
    with pytest.raises(InputError, match=f"is no bundle, or not a whole one: .*{name}"):
        bundle.load(path)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "manifest.json is damaged"),
        ("[]", "manifest.json is damaged"),
        ('{"format": "rssearch.bundle/2", "sha256": {}}', "manifest.json is damaged"),
        ('{"format": "rssearch.bundle/9", "sha256": {}}', "has format 'rssearch.bundle/9'"),
    ],
)
def test_a_bad_manifest_is_refused(
    tmp_path: Path, found: Recorded, row: dict[str, Any], manifest: str, message: str
) -> None:
    path = bundle.export(found, row, tmp_path / "m")
    (path / "manifest.json").write_text(manifest)
    with pytest.raises(InputError, match=message):
        bundle.load(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"not tensors"),
        ("architecture.json", b"{}"),
        ("architecture.json", b'{"model": "resnet99", "input_shape": [3, 32, 32], "num_classes": 3, "options": {}}'),
    ],
)
def test_a_bundle_that_was_forged_whole_is_refused(
    tmp_path: Path, found: Recorded, row: dict[str, Any], name: str, content: bytes
) -> None:
    path = bundle.export(found, row, tmp_path / "m")
    (path / name).write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="does not describe a network of this version"):
        bundle.load(path)


def test_weights_that_are_gone_are_explained(tmp_path: Path, found: Recorded, row: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"trial beef: its weights are not in .*keep_models: all"):
        bundle.export(found, row | {"key": "beef"}, tmp_path / "new" / "m")
    assert not (tmp_path / "new").exists()


def test_only_a_new_or_an_empty_folder_is_written(tmp_path: Path, found: Recorded, row: dict[str, Any]) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("mine")
    for path in (used, used / "mine.txt"):
        with pytest.raises(InputError, match="is there already"):
            bundle.export(found, row, path)
    assert [p.name for p in used.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert (bundle.export(found, row, tmp_path / "empty") / "manifest.json").is_file()


def test_a_failed_export_leaves_nothing(
    tmp_path: Path, found: Recorded, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path, *, allow_imports: bool) -> None:
        raise InputError("cannot be read back")

    monkeypatch.setattr(exporting, "rebuild", broken)
    with pytest.raises(InputError, match="cannot be read back"):
        bundle.export(found, row, tmp_path / "out" / "m")
    assert list((tmp_path / "out").iterdir()) == []


def test_trained_weights_are_not_downloaded_again(tmp_path: Path, row: dict[str, Any], found: Recorded) -> None:
    store = Store(found.storage)
    files = store.get("models", KEY)
    assert files is not None
    about = json.loads(files["about.json"])
    about |= {"options": {"shortcut": "A", "weights": "IMAGENET1K_V1"}}
    store.put("models", KEY, files | {"about.json": json.dumps(about).encode()})
    path = bundle.export(found, row, tmp_path / "m")
    assert json.loads((path / "architecture.json").read_text())["options"] == {"shortcut": "A"}


def test_bundles_of_format_1_are_read(
    tmp_path: Path, found: Recorded, row: dict[str, Any], pruned: pruning.PrunedModel
) -> None:
    path = bundle.export(found, row, tmp_path / "m")
    manifest = json.loads((path / "manifest.json").read_text()) | {"format": "rssearch.bundle/1"}
    for name in ("model.onnx", "measured.json"):
        (path / name).unlink()
        del manifest["sha256"][name]
    (path / "manifest.json").write_text(json.dumps(manifest))
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(bundle.load(path)(x), pruned.model(x))
    with pytest.raises(InputError, match=r"the bundle \(format rssearch.bundle/1\) has no model.onnx; export"):
        predict.open_network(path)


def test_an_onnx_model_of_another_network_is_not_handed_out(
    tmp_path: Path, found: Recorded, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    other = to_onnx(models.create("resnet20", len(CLASSES)), (3, 32, 32))
    monkeypatch.setattr(exporting, "to_onnx", lambda model, shape: other)
    with pytest.raises(InputError, match=r"the ONNX model is not the network: its logits, up to .*, differ by up to"):
        bundle.export(found, row, tmp_path / "out" / "m")
    assert not (tmp_path / "out").exists()


def test_the_card_tells_what_the_study_knows_of_its_data(found: Recorded, row: dict[str, Any]) -> None:
    notes = [
        "left out: <b>.jp2 (1)",
        "3 of the 7 images of the given test split are also in train (a_1 = b)",
    ]
    same = {"name": "folder:tiles", "split_hash": "feedbeef", "notes": notes}
    data = [same | {"split_hash": "0", "notes": ["other"]}, same, same, same | {"name": "eurosat", "notes": ["other"]}]
    (found.folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "data": data}))
    text = card(found, row, ABOUT | {"task": "classification"}, MEASURED)
    told = [line for line in text.splitlines() if line.startswith("* **Note on the data:**")]
    assert told == [
        r"* **Note on the data:** left out: \<b\>.jp2 (1)",
        r"* **Note on the data:** 3 of the 7 images of the given test split are also in train (a\_1 = b)",
    ]
    assert "\nother" not in text


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp16"])
def test_a_network_that_was_measured_in_fewer_bits_is_exported_as_it_was(
    tmp_path: Path, found: Recorded, row: dict[str, Any], precision: str
) -> None:
    store = Store(found.storage)
    stored = store.get("models", KEY)
    assert stored is not None
    generator = torch.Generator().manual_seed(0)
    if precision == "int8":
        converted = to_int8(onnx_model(), [torch.randn(4, 3, 32, 32, generator=generator)])["minmax"]
    else:
        converted = {"bf16": to_bf16, "fp16": to_fp16}[precision](onnx_model())
    store.put("models", KEY, {**stored, CONVERTED: converted})
    path = bundle.export(found, row | {"precision": precision}, tmp_path / "out")
    name = f"model.{precision}.onnx"
    assert (path / name).read_bytes() == converted
    assert sorted(p.name for p in path.iterdir()) == sorted([*NAMES, name])
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator).numpy()
    network = predict.open_network(path, **{precision: True})
    expected = OnnxNetwork(converted)(torch.from_numpy(predict.normalised(pixels, network.about)))
    torch.testing.assert_close(torch.from_numpy(predict.logits_of(network, pixels)), expected)
