"""`rssearch shrink`, and `rssearch.shrink` without Ray."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
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
from rssearch import models, pruning
from rssearch.config import plain_yaml
from rssearch.config.loading import override_settings
from rssearch.config.settings import Normalisation
from rssearch.errors import InputError, TrialFailed
from rssearch.models.weights import to_bytes
from rssearch.study import shrink_baseline, shrinking
from rssearch.study.shrink_tables import sizes, table, too_noisy
from rssearch.study.shrinking import Request
from rssearch.trials import baseline_check
from tests.support.commands import refused, run


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
    with pytest.raises(InputError, match="no batches"):
        rssearch.shrink(network(), [], macs_ratio=0.5, val=data)
    with pytest.raises(InputError, match=r"distill 2 in \[0, 1\]"):
        rssearch.shrink(network(), data, macs_ratio=0.5, val=data, distill=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--macs", "0.5", "--latency-ms", "5"], "give one of --macs and --latency-ms"),
        ([], "give one of --macs and --latency-ms"),
        (["--macs", "1.5"], "--macs 1.5: must be a number in (0, 1]"),
        (["--macs", "0.5", "--weights", "no.pt"], "weights no.pt: cannot be read"),
        (["--macs", "0.5", "--method", "l11"], "unknown method 'l11'"),
        (["--macs", "0.5", "--normalize", "imagenett"], "settings.normalize"),
        (["--macs", "0.5", "--normalize", "{mean: 0.5}"], "settings.normalize.mean"),
        (["--macs", "0.5", "--normalize", "{mean: [0.5}"], "--normalize {mean: [0.5}: is not valid YAML"),
        (["--macs", "0.5", "--epochs", "-1"], "settings.finetune.epochs"),
        (["--macs", "0.5", "--out", "full"], "--out full: is there already"),
    ],
)
def test_bad_requests_are_refused(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    result = run("shrink", "resnet20", "--data", "synthetic_scenes", *arguments)
    assert result.status == 2
    assert said in " ".join(result.err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"macs_ratio": float("nan")}, r"--macs nan: must be a number in \(0, 1\]"),
        ({"macs_ratio": float("inf")}, "--macs inf: must be"),
        ({"latency_ms": float("nan")}, "--latency-ms nan: must be a number of milliseconds above 0"),
        ({"latency_ms": 0.0}, "--latency-ms 0: must be"),
        ({"latency_ms": -1.0}, "--latency-ms -1: must be"),
        ({"macs_ratio": 0.5, "more": {"settings.finetune.lr": float("nan")}}, "--set: a value is none that a study"),
    ],
)
def test_numbers_that_are_none_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Request("resnet20", "synthetic_scenes", **asked).study({})


def test_arguments_are_refused_and_a_line_is_printed_before_anything_heavy_is_imported() -> None:
    script = """
import sys
from rssearch import cli
from rssearch.study import shrinking
class Ended(Exception): pass
def begun(*_): raise Ended
shrinking.shrink = begun
heavy = ("torch", "ray", "mlflow", "torchvision", "pandas")
try:
    cli.main(["shrink", "resnet20", "--data", "folder:x", *sys.argv[1:]])
except (SystemExit, Ended) as error:
    print(type(error).__name__, [name for name in heavy if name in sys.modules])
"""

    def printed(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    assert printed() == "SystemExit []\n"
    assert printed("--macs", "0.5", "--normalize", "imagenett") == "SystemExit []\n"
    assert printed("--macs", "0.5") == "shrink resnet20: getting ready; the network goes to net\nEnded []\n"


def test_a_normalisation_in_numbers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []

    def kept(request: Request, *_: Any) -> int:
        asked.append(request)
        return 0

    monkeypatch.setattr(shrinking, "shrink", kept)
    numbers = ("--normalize", "{mean: [0.5], std: [0.25]}")
    result = run("shrink", "resnet20", "--data", "synthetic_scenes", "--macs", "0.5", *numbers)
    assert result.status == 0, result.err
    assert asked[0].study({}).settings.normalize == Normalisation(mean=(0.5,), std=(0.25,))


def test_named_weights_are_fetched_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models.get_model", offline)
    result = run("shrink", "resnet18", "--data", "synthetic_scenes", "--macs", "0.5", "--weights", "IMAGENET1K_V1")
    refused(result, "the weights IMAGENET1K_V1 could not be fetched: no route to host. Put them into")
    assert not [*tmp_path.iterdir()]


def test_a_network_with_a_new_head_is_trained_first_and_a_whole_one_is_not() -> None:
    def training(**asked: Any) -> tuple[int, float]:
        train = Request("resnet18", macs_ratio=0.5, **asked).study({}).settings.train
        return train.epochs, train.lr

    assert training(data="folder:x", weights="my.pt")[0] == 0
    assert training(data="folder:x", weights="IMAGENET1K_V1") == (10, 0.01)
    assert training(data="imagenet", weights="IMAGENET1K_V1")[0] == 0
    assert training(data="folder:x") == (10, 0.1)


def test_requests_are_told_apart() -> None:
    places = {"data_root": "data"}
    one = Request("resnet20", "synthetic_scenes", macs_ratio=0.5).study(places)
    assert one.study == Request("resnet20", "synthetic_scenes", macs_ratio=0.5).study(places).study
    assert one.study != Request("resnet20", "synthetic_scenes", macs_ratio=0.4).study(places).study
    late = Request("timm:resnet18", "folder:a b", latency_ms=5.0, more={"settings.input_size": 64}).study(places)
    assert late.search.constraints["latency_ms"].max == 5
    assert len(late.space["macs_ratio"].to_yaml()) == 5
    assert late.settings.input_size == 64


def test_the_table_says_what_was_lost_and_gained() -> None:
    row = {"val_accuracy": 0.8, "baseline_val_accuracy": 0.85, "macs": 5e6, "baseline_macs": 1e7, "macs_ratio": 0.5}
    columns = [list(column.cells) for column in table(row).columns]
    assert columns[0] == ["Validation accuracy", "MACs"]
    assert columns[1] == ["85.0 %", "10 M"]
    assert columns[2] == ["80.0 %", "5 M"]
    assert columns[3][0] == "−5.0 points"


def test_the_difference_is_that_of_the_printed_values() -> None:
    row = {"val_accuracy": 0.4733, "baseline_val_accuracy": 0.6267}
    columns = [list(column.cells) for column in table(row).columns]
    assert [cells[0] for cells in columns[1:]] == ["62.7 %", "47.3 %", "−15.4 points"]


def test_a_latency_under_other_load_is_explained() -> None:
    row = {"latency_ms": 5.0, "latency_iqr_ms": 0.1, "baseline_latency_ms": 10.0, "baseline_latency_iqr_ms": 0.1}
    quiet, noisy = table(row), table(row | {"baseline_latency_iqr_ms": 2.0}, 6.0)
    assert quiet.caption == "Latency: median (interquartile range)"
    assert list(quiet.columns[3].cells) == ["2× as fast"]
    assert list(noisy.columns[3].cells) == ["2×‡ as fast"]
    assert "machine had other work" in str(noisy.caption)
    assert "asked for: at most 6 ms" in str(noisy.caption)


def test_each_size_that_was_tried_for_a_latency_has_a_row() -> None:
    def size(ratio: float, latency: float, iqr: float, **more: Any) -> dict[str, Any]:
        return {
            "key": f"k{ratio}",
            "status": "infeasible",
            "requested_macs_ratio": ratio,
            "macs_ratio": ratio,
            "latency_ms": latency,
            "latency_iqr_ms": iqr,
        } | more

    rows = [
        size(0.25, 1.5, 0.1, status="finished", val_accuracy=0.4),
        size(0.8, 58.0, 43.0),
        size(0.35, 1.9, 0.1, status="finished", val_accuracy=0.5),
        {"key": "k", "status": "failed", "requested_macs_ratio": 0.5},
    ]
    found = sizes(rows, 2.5, "k0.35")
    columns = [list(column.cells) for column in found.columns]
    assert columns[0] == ["80.0 %", "", "35.0 %", "25.0 %"]
    assert columns[1] == ["58 (43)‡", "", "1.9 (0.1)", "1.5 (0.1)"]
    assert columns[3] == ["refused", "failed", "kept, and taken", "kept"]
    assert str(found.columns[3].header) == "at most 2.5 ms"
    text = too_noisy(rows, 2.5)
    assert text is not None
    assert text.startswith("the latencies of 1 of 3 sizes vary by more than half of their median")
    assert too_noisy(rows[2:], 2.5) is None
    assert too_noisy(rows, None) is None


def reached(normalize: str, quality: float, **more: Any) -> dict[str, Any]:
    """A row of `check_baselines`."""
    row = {"normalize": normalize, "metric": "accuracy", "quality": quality, "reordered": quality, "best": quality}
    return row | {"at_chance": False, "other_order": None, "meaning": None, "warning": None} | more


def test_the_normalisation_that_measures_best_is_taken_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    half = "{mean: [0.5], std: [0.5]}"
    rows = [reached("dataset", 0.3), reached("imagenet", 0.26), reached(half, 0.55)]
    monkeypatch.setattr(shrink_baseline, "check_baselines", lambda config: rows)
    asked = Request("resnet20", "synthetic_scenes", macs_ratio=0.5, weights="my.pt")
    begun = shrink_baseline.begin(asked.study({}), "my.pt")
    assert begun.config.settings.normalize == Normalisation(mean=(0.5,), std=(0.5,))
    assert begun.line == (
        f"normalize: {half}, the best on the validation images (dataset 30.0%, imagenet 26.0%, {half} 55.0%)"
    )
    assert begun.warning is None


def test_every_normalisation_that_is_tried_can_be_a_study_s() -> None:
    config = Request("resnet20", "synthetic_scenes", macs_ratio=0.5).study({})
    for name, by in baseline_check.SUSPECTS.items():
        settings = override_settings(config.settings, {"normalize": plain_yaml.load(name)})
        if by is not None and name not in ("imagenet", "none"):
            assert settings.normalize == Normalisation(mean=by.mean, std=by.std)
        else:
            assert settings.normalize == name


def test_classes_in_another_order_are_refused_with_that_order() -> None:
    order = "rows [2, 0, 1] of the last layer (its classes seem to be b, c, a)"
    rows = [reached("none", 0.2), reached("imagenet", 0.067, reordered=0.627, best=0.627, other_order=order)]
    with pytest.raises(InputError, match=r"normalize: imagenet accuracy is 6.7% in their order, and 62.7% with rows"):
        shrink_baseline.choose("order.pt", rows)


def test_weights_at_chance_are_refused_unless_a_normalisation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [reached("dataset", 0.1, at_chance=True, warning="the weights my.pt reach 10.0%, at chance")]
    with pytest.raises(InputError, match=r"at chance\. To prune it all the same, name a --normalize"):
        shrink_baseline.choose("my.pt", rows)
    monkeypatch.setattr(shrink_baseline, "check_baselines", lambda config: rows)
    asked = Request("resnet20", "synthetic_scenes", macs_ratio=0.5, weights="my.pt", normalize="dataset")
    begun = shrink_baseline.begin(asked.study({}), "my.pt")
    assert begun.warning == "the weights my.pt reach 10.0%, at chance"


def trained(folder: Path) -> nn.Module:
    """A network that has seen the images of a folder, as values in [0, 1]."""
    torch.manual_seed(0)
    model = models.create("resnet20", 3)
    paths = sorted(folder.glob("*/*.png"))
    x = torch.stack(
        [torch.from_numpy(np.asarray(Image.open(path), np.float32) / 255).permute(2, 0, 1) for path in paths]
    )
    y = torch.tensor([sorted(p.name for p in folder.iterdir()).index(path.parent.name) for path in paths])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    return model


@pytest.mark.slow
@pytest.mark.ray
def test_the_most_accurate_network_that_keeps_a_latency(tmp_path: Path, local_ray: None) -> None:
    rng = np.random.default_rng(0)
    for index, name in enumerate(("forest", "river", "town")):
        folder = tmp_path / "data" / "scenes" / name
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 120, (16, 16, 3))
            pixels[..., index] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    torch.save({"state_dict": trained(tmp_path / "data" / "scenes").state_dict()}, tmp_path / "my.pt")
    command = ("shrink", "resnet20", "--weights", "my.pt", "--data", "folder:scenes", "--epochs", "1")
    small = ("--set", "settings.finetune.batch_size=10", "--set", "settings.pruning.score_batch_size=10")
    result = run(*command, "--latency-ms", "1000", *small)
    assert result.status == 0, result.err
    assert "normalize: " in result.out
    for text in ("before", "after", "lost and gained", "Validation accuracy", "Latency (ms)", "points", "as fast"):
        assert text in result.out
    assert (tmp_path / "net" / "manifest.json").is_file()
    (study,) = (tmp_path / "results").glob("shrink-*")
    with (study / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(float(row["requested_macs_ratio"]) for row in rows) == [0.25, 0.35, 0.5, 0.65, 0.8]
    best, before = (max(float(row[name]) for row in rows) for name in ("val_accuracy", "baseline_val_accuracy"))
    assert before > 0.5
    assert f"Validation accuracy {100 * before:.1f} % {100 * best:.1f} % " in " ".join(result.out.split())

    result = run(*command, "--latency-ms", "0.001", "--out", "none", *small)
    refused(result, "--latency-ms 0.001: none of 5 networks keeps it; the fastest takes ")
    assert not (tmp_path / "none").exists()
    result = run(*command, "--macs", "0.5", "--out", "none", "--set", "search.constraints.macs.max=10", *small)
    refused(result, "search.constraints: no network keeps them; macs is ")


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
