"""rssearch.shrink: a module in memory, without a study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import rssearch
from rssearch import pruning
from rssearch.errors import InputError, TrialFailed
from rssearch.models.weights import to_bytes


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


Loader = DataLoader[tuple[Tensor, ...]]


def network() -> nn.Module:
    torch.manual_seed(0)
    block = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))


def batches() -> Loader:
    """Images whose brightest band is their class."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(60) % 3
    x = torch.randn(60, 3, 8, 8, generator=generator) + 2 * nn.functional.one_hot(y, 3)[:, :, None, None]
    return DataLoader(TensorDataset(x, y), 20)


def test_a_module_and_loaders(tmp_path: Path) -> None:
    model, data = network(), batches()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = rssearch.shrink(model, data, macs_ratio=0.5, val=data, epochs=20, lr=0.05, distill=0.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    old, new = found.report["before"], found.report["after"]
    assert new["macs"] / old["macs"] == pytest.approx(0.5, rel=0.1)
    assert new["params"] < old["params"]
    assert new["bytes"] < old["bytes"]
    assert new["accuracy"] > 0.9  # as it is fine-tuned; the network itself was never trained
    assert new["latency_ms"] > 0
    found.save(tmp_path / "out")
    rebuilt = pruning.apply_spec(network(), json.loads((tmp_path / "out" / "spec.json").read_text())).eval()
    rebuilt.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    x, _ = next(iter(data))
    assert torch.equal(rebuilt(x), found.model.cpu()(x))
    with pytest.raises(InputError, match="is there already"):
        found.save(tmp_path / "out")


def test_its_text_is_the_table_and_progress_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    data = batches()
    found = rssearch.shrink(network(), data, macs_ratio=0.5, val=data, epochs=2)
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("shrink: before: accuracy ")
    assert [line.partition(":")[2].partition(":")[0] for line in lines[1:3]] == [" epoch 1 of 2", " epoch 2 of 2"]
    assert repr(found).startswith("<Shrunk Sequential: accuracy ")
    assert len(repr(found)) < 100
    text = " ".join(str(found).split())
    assert text.startswith("before after lost and gained Validation accuracy")
    assert "Parameters" in text
    assert "Conv2d" not in text
    rssearch.shrink(network(), data, macs_ratio=0.5, val=data, epochs=0, verbose=False)
    assert capsys.readouterr().err == ""


def test_a_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for index, name in enumerate("abc"):
        folder = tmp_path / "elsewhere" / "scenes" / name
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 120, (8, 8, 3))
            pixels[..., index] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    asked: dict[str, Any] = {
        "macs_ratio": 0.5,
        "data_root": tmp_path / "elsewhere",
        "epochs": 20,
        "lr": 0.05,
        "distill": 0.0,
    }
    found = rssearch.shrink(network(), "folder:scenes", normalize={"mean": [0.5], "std": [0.25]}, **asked)
    assert found.report["after"]["accuracy"] > 0.9
    assert "reading folder:scenes" in capsys.readouterr().err
    refusals: list[tuple[dict[str, Any], str]] = [
        ({}, "normalize: say what the network's images were normalised by"),
        ({"normalize": "imagenett"}, "settings.normalize: 'imagenett' is not allowed"),
        ({"normalize": "weights"}, "normalize: weights: a network in memory"),
        ({"normalize": {"mean": [0, 0], "std": [1, 1]}}, "normalize: has 2 bands, and the images have 3"),
        ({"normalize": "none", "val": batches()}, "val: is that of the dataset folder:scenes"),
    ]
    for more, said in refusals:
        with pytest.raises(InputError, match=said):
            rssearch.shrink(network(), "folder:scenes", **asked, **more)
    with pytest.raises(InputError, match="batches are taken as they are"):
        rssearch.shrink(network(), batches(), macs_ratio=0.5, val=batches(), normalize="none")
    with pytest.raises(InputError, match="val: is needed"):
        rssearch.shrink(network(), batches(), macs_ratio=0.5)


class Wrapped(nn.Module):
    """Gives a dictionary, as many networks for segmentation do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.network(x)}


def test_a_frozen_module_and_a_last_batch_of_one_image() -> None:
    x, y = batches().dataset[:41]
    data = DataLoader(TensorDataset(x, y), 20)
    model = network().requires_grad_(False)
    found = rssearch.shrink(model, data, macs_ratio=0.5, val=data, epochs=1)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in found.model.parameters())


def test_what_are_no_batches_is_refused_before_it_is_trained() -> None:
    x, y = batches().dataset[:]

    def said(data: object, val: object = ((x, y),), model: nn.Module | None = None) -> str:
        with pytest.raises(InputError) as error:
            rssearch.shrink(model or network(), data, macs_ratio=0.5, val=val, epochs=1)  # type: ignore[arg-type]
        return str(error.value)

    assert said(iter([(x, y)])).startswith("data: can be gone through only once")
    assert said([(x, y)], val=iter([(x, y)])).startswith("val: can be gone through only once")
    assert said([x]) == "data: a batch is a Tensor, not a pair of images and labels"
    assert said([(x.double(), y)]).startswith("data: a batch has images float64 [60, 3, 8, 8] and labels int64 [60]")
    assert said([(x, y[1:])]).startswith("data: a batch has images float32 [60, 3, 8, 8] and labels int64 [59]")
    assert said([(x, y + 1)]) == "data: labels from 1 to 3, but the network has 3 classes: 0 to 2"
    assert said([(x, y)], val=[(x, y - 1)]) == "val: labels from -1 to 1, but the network has 3 classes: 0 to 2"
    assert said([(x, y)], val=[]) == "val: there are no images to measure the network on"
    assert said([(x, y)], model=Wrapped()).startswith("the network gives a dict with 'out', not one tensor of logits")
    masks = torch.zeros(60, 8, 8, dtype=torch.int64)
    assert "which are no logits for them" in said([(x, masks)])


def test_a_training_that_diverges_is_said() -> None:
    data = batches()
    with pytest.raises(TrialFailed, match=r"the training loss is \S+ in epoch 1"):
        rssearch.shrink(network(), data, macs_ratio=0.5, val=data, epochs=2, lr=1e12)


def test_a_module_is_left_where_nothing_can_be_done() -> None:
    data = batches()
    with pytest.raises(InputError, match="unknown method 'l11'"):
        rssearch.shrink(network(), data, macs_ratio=0.5, val=data, method="l11")
    with pytest.raises(InputError, match="prunes while a study trains"):
        rssearch.shrink(network(), data, macs_ratio=0.5, val=data, method="sfp")
    for control in ("scratch", "rewind"):
        with pytest.raises(InputError, match="trains by the recipe of a study's baselines: name it in a study"):
            rssearch.shrink(network(), data, macs_ratio=0.5, val=data, method=control)
    with pytest.raises(InputError, match="no batches"):
        rssearch.shrink(network(), [], macs_ratio=0.5, val=data)
    with pytest.raises(InputError, match=r"distill 2 in \[0, 1\]"):
        rssearch.shrink(network(), data, macs_ratio=0.5, val=data, distill=2)


class Odd(nn.Module):
    """A network whose forward pass is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Linear(8, 3)
        self.how = forward

    def plain(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(x).mean((2, 3)))
        return logits

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def _without_gradient(network: Odd, x: Tensor) -> Tensor:
    return network.plain(x).detach()


def _in_place(network: Odd, x: Tensor) -> Tensor:
    features = network.first(x)
    features[:, :1] *= 2
    logits: Tensor = network.last(features.mean((2, 3)))
    return logits


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: network().half(), r"0.weight is float16 \[.*\]; it is pruned in float32: model.float\(\)"),
        (lambda: network().double(), "is float64"),
        (lambda: torch.nn.LazyLinear(2), "has no shape yet"),
        (lambda: "resnet18", "the network is a str, not a torch.nn.Module"),
        (lambda: nn.Conv2d(4, 2, 3), r"does not run on images float32 \[.*\]: .*channels"),
        (lambda: Odd(lambda n, x: (n.plain(x), x) if n.training else n.plain(x)), "a tuple of 2 in training mode"),
        (lambda: Odd(_without_gradient), "logits without a gradient in training mode"),
        (lambda: Odd(_in_place), "cannot be trained on a batch of the data: .*inplace"),
    ],
    ids=["half", "double", "lazy", "text", "bands", "tuple", "detached", "inplace"],
)
@pytest.mark.filterwarnings("ignore")  # torch's, of lazy layers
def test_a_network_that_cannot_be_shrunk_is_refused_at_once(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        rssearch.shrink(make(), batches(), macs_ratio=0.5, val=batches())


def test_layers_that_share_tensors(tmp_path: Path) -> None:
    model = network()
    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    model.set_submodule("again", model.get_submodule(convolutions[0]))
    written = load_file(_written(model, tmp_path / "a.safetensors"))
    assert torch.equal(written["again.weight"], written[f"{convolutions[0]}.weight"])


def _written(model: nn.Module, path: Path) -> Path:
    path.write_bytes(to_bytes(model))
    return path


def test_a_state_of_more_than_tensors_is_refused() -> None:
    class Counts(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"seen": 1}

        def set_extra_state(self, state: Any) -> None:
            pass

    with pytest.raises(InputError, match="Counts: '_extra_state' in its state is dict, no tensor"):
        to_bytes(Counts(1, 1))
