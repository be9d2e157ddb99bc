"""A bundle is data: nothing in it is run or fetched, and whatever is wrong with it is told as an input error."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from rssearch import bundle
from rssearch.bundle import exporting, predict
from rssearch.bundle.__main__ import main
from rssearch.errors import InputError
from tests.support.bundles import ABOUT, KEY, onnx_model, pruned_network, study


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle."""
    place = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "to_onnx", lambda model, shape: onnx_model())
        return bundle.export(study(place, pruned_network(), ABOUT, place / "data"), {"key": KEY}, place / "net")


@pytest.fixture
def net(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "net"))


def forge(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and write its digest, as whoever means harm does."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def changed(folder: Path, name: str, **values: Any) -> None:
    forge(folder, name, json.dumps(json.loads((folder / name).read_text()) | values).encode())


def told(folder: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What prediction says of a damaged bundle."""
    assert main([str(folder), str(image)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert len(err) < 1500
    return err


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_a_good_bundle_is_read(net: Path, image: Path) -> None:
    assert not bundle.load(net).training
    assert predict.probabilities(predict.open_network(net), image).shape == (3,)


def test_code_that_a_bundle_names_is_not_imported(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_net.py").write_text(
        "from torch import nn\nfrom pathlib import Path\nPath('ran').touch()\n"
        "def build(num_classes, *, in_channels):\n    return nn.Conv2d(in_channels, num_classes, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    changed(net, "architecture.json", model="evil_net:build", options={}, spec={"format": 1, "layers": {}})
    weights = torch.nn.Conv2d(3, 3, 1).state_dict()
    forge(net, "model.safetensors", save_tensors(weights))
    with pytest.raises(InputError, match=r"code that is not in the bundle.*allow_imports=True"):
        bundle.load(net)
    assert not (tmp_path / "ran").exists()
    assert "evil_net" not in sys.modules
    assert bundle.load(net, allow_imports=True).state_dict().keys() == weights.keys()
    assert (tmp_path / "ran").exists()
    monkeypatch.delitem(sys.modules, "evil_net")


@pytest.mark.parametrize("name", ["os:system", "timm.models:resnet18", "torchvision.models:resnet18", "a.b:c"])
def test_no_module_is_looked_for(net: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(target: str) -> Any:
        raise AssertionError(target)

    monkeypatch.setattr("rssearch.config.imports.load", refuse)
    changed(net, "architecture.json", model=name)
    with pytest.raises(InputError, match="allow_imports=True"):
        bundle.load(net)


def test_nothing_is_downloaded(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a download")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    changed(net, "architecture.json", model="resnet18", options={"weights": "IMAGENET1K_V1"})
    with pytest.raises(InputError, match=r"options\.weights would download"):
        bundle.load(net)


HUGE = 10**30
ARCHITECTURES: list[dict[str, Any]] = [
    {"num_classes": value} for value in (0, -1, True, 2.0, "3", None, 4, 10**9, HUGE, [3])
]
ARCHITECTURES += [
    {"input_shape": value}
    for value in ([3, 32], [3, 0, 32], [3, 32, HUGE], [10**9, 32, 32], [1, 32, 32], "abc", None, [3.0, 32, 32], {}, 3)
]
ARCHITECTURES += [
    {"model": value} for value in (None, 3, [], "resnet18", "unet", "torchvision:x", "micronet:9999,x", "")
]
ARCHITECTURES += [
    {"options": value}
    for value in (
        None,
        [],
        {"num_classes": 3},
        {"shortcut": "C"},
        {"a\u001b[31m": 1},
        {"input_size": HUGE},
        {"stem": []},
    )
]
ARCHITECTURES += [
    {"model": "unet", "options": {"base": 10**6, "levels": 9}},
    {"model": "unet", "options": {"levels": 10**9}},
    {"model": "vgg16_cifar", "options": {}, "input_shape": [3, 30_000, 30_000]},
    {"model": "torchvision:regnet_x_400mf", "options": {}},
]
LAYER: dict[str, Any] = {"width": {"out": 16}, "out": [0]}
ARCHITECTURES += [
    {"spec": value}
    for value in (
        None,
        [],
        {},
        {"format": 1},
        {"format": 2, "layers": {}},
        {"format": 1, "layers": []},
        {"format": 1, "layers": {}},
        {"format": 1, "layers": {"nowhere": LAYER}},
        {"format": 1, "layers": {"": LAYER}},
        {"format": 1, "layers": {"conv1": None}},
        {"format": 1, "layers": {"conv1": {"width": {"out": HUGE}, "out": [0]}}},
        {"format": 1, "layers": {"conv1": {"width": {"out": 16}, "out": [0.5]}}},
        {"format": 1, "layers": {"conv1": {"width": {"out": 16}, "out": ["0"]}}},
        {"format": 1, "layers": {"conv1": {"width": {"out": 16}, "out": [-1, HUGE]}}},
        {"format": 1, "layers": {"conv1": {"width": {"nowhere": 16}}}},
        {"format": 1, "layers": {"conv1": {"width": [], "out": [0]}}},
    )
]


@pytest.mark.parametrize("values", ARCHITECTURES, ids=[str(i) for i in range(len(ARCHITECTURES))])
def test_an_architecture_that_is_none(net: Path, values: dict[str, Any]) -> None:
    changed(net, "architecture.json", **values)
    tracemalloc.start()
    with pytest.raises(InputError, match="the bundle does not describe a network of this version") as caught:
        bundle.load(net)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert len(str(caught.value)) < 1500


def _tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_tensors((folder / "model.safetensors").read_bytes())
    change(tensors)
    forge(folder, "model.safetensors", save_tensors(tensors))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("conv1.weight"),
        lambda t: t.update(other=torch.zeros(1)),
        lambda t: t.update({"conv1.weight": torch.zeros(1)}),
        lambda t: t.update({"conv1.weight": t["conv1.weight"].double()}),
        lambda t: t.update({"layer2.0.shortcut.index": t["layer2.0.shortcut.index"] + 10**6}),
        lambda t: t.clear(),
    ],
    ids=["missing", "unknown", "shape", "type", "index", "empty"],
)
def test_weights_of_another_network(net: Path, change: Any) -> None:
    _tensors(net, change)
    with pytest.raises(InputError, match="the bundle does not describe a network of this version"):
        bundle.load(net)


def test_damage_anywhere_in_the_header_of_the_weights(net: Path) -> None:
    content = (net / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    rng = random.Random(0)
    headers = [b"", content[:7], content[: 8 + length // 2], struct.pack("<Q", 2**63) + content[8:]]
    for place in rng.sample(range(8 + length), 40):
        headers.append(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
    refused = 0
    for damaged in headers:
        forge(net, "model.safetensors", damaged)
        try:
            bundle.load(net)
        except InputError:
            refused += 1
    assert refused >= len(headers) - 2  # a changed digit may name as good a place


@pytest.mark.parametrize("name", ["architecture.json", "preprocessing.json", "manifest.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b"\xff\xfe",
        b"{" * 5000,
        b'{"a":' * 5000,
        b"[" * 100_000,
        b"9" * 5000,
        b'{"model": NaN}',
        b'{"model": Infinity}',
        b'{"format": "rssearch.bundle/2", "format": "rssearch.bundle/1", "sha256": {}}',
        b'{"format": ["rssearch.bundle/2"], "sha256": {}}',
        b'{"format": "rssearch.bundle/2", "sha256": []}',
        b'{"format": "rssearch.bundle/2", "sha256": "x"}',
        b'{"format": "rssearch.bundle/2", "sha256": {"model.onnx": 3}}',
    ],
)
def test_json_that_is_none(
    net: Path, image: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "manifest.json":
        (net / name).write_bytes(content)
    else:
        forge(net, name, content)
    if name != "preprocessing.json":
        with pytest.raises(InputError):
            bundle.load(net)
    if name != "architecture.json":
        assert "is damaged" in told(net, image, capsys)


PREPROCESSING: list[dict[str, Any]] = [
    *({"classes": value} for value in (None, [], ["a"], "abc", [1, 2, 3], {"a": 1})),
    *({"mean": value} for value in (None, [0.5], [0.5, "a", 0.5], [0.5, 0.5, 1e300], [True] * 3, "abc", HUGE)),
    *({"std": value} for value in ([0, 1, 1], [-1, 1, 1], [])),
    *({"input_shape": value} for value in ([3, 64, 64], [1, 32, 32], [3, 32], None, [3, HUGE, HUGE], [3, -1, 32])),
    *({"task": value} for value in (None, "segmentation", "detection", [])),
    *({"onnx": value} for value in (None, {}, {"input": "x", "output": "logits"}, {"input": [], "output": "logits"})),
]


@pytest.mark.parametrize("values", PREPROCESSING, ids=[str(i) for i in range(len(PREPROCESSING))])
def test_preprocessing_that_is_not_the_models(
    net: Path, image: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    changed(net, "preprocessing.json", **values)
    assert "model.onnx or preprocessing.json is damaged" in told(net, image, capsys)


def test_damage_anywhere_in_the_onnx_model(net: Path, image: Path) -> None:
    content, rng, refused = (net / "model.onnx").read_bytes(), random.Random(0), 0
    damages = [b"", b"x", content[:100], content[: len(content) // 2]]
    for _ in range(25):
        place = rng.randrange(3000)
        damages.append(content[:place] + rng.randbytes(8) + content[place + 8 :])
    for damaged in damages:
        forge(net, "model.onnx", damaged)
        try:
            predict.probabilities(predict.open_network(net), image)
        except InputError:
            refused += 1
    assert refused >= 4  # much of the file is names and metadata, which the computation does not need


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_what_is_no_file(net: Path, image: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (net / name).unlink()
    os.mkfifo(net / name)
    assert "is no regular file" in told(net, image, capsys)
    (net / name).unlink()
    (net / name).symlink_to("/dev/zero")
    with pytest.raises(InputError, match="is no regular file"):
        bundle.load(net)
    (net / name).unlink()
    (net / name).mkdir()
    with pytest.raises(InputError, match="is no regular file"):
        bundle.load(net)


@pytest.mark.parametrize("odd", ["~nobody-here/net", "a\0b", "x" * 5000, "a\x1b[31mb"])
def test_paths_that_the_system_refuses(whole: Path, image: Path, odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError):
        bundle.load(odd)
    for arguments in ([odd, str(image)], [str(whole), odd]):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert len(err) < 1500
        assert "\x1b" not in err
