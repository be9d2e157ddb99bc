"""rssearch shrink: one network from the command line, as a small study."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rssearch import models
from rssearch.config import plain_yaml
from rssearch.config.loading import override_settings
from rssearch.config.settings import Normalisation
from rssearch.errors import InputError
from rssearch.study import shrink_baseline, shrinking
from rssearch.study.shrink_tables import sizes, table, too_lossy, too_noisy
from rssearch.study.shrinking import Request
from rssearch.trials import baseline_check
from tests.support.commands import refused, run


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


Loader = DataLoader[tuple[Tensor, ...]]


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
        ({"macs_ratio": 0.5, "method": "scratch"}, "--method scratch: begins with new weights, so it shrinks"),
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
        size(0.8, 30.0, 38.0),
        size(0.35, 1.9, 0.1, status="finished", val_accuracy=0.5),
        {"key": "k", "status": "failed", "requested_macs_ratio": 0.5},
    ]
    found = sizes(rows, 2.5, "k0.35")
    columns = [list(column.cells) for column in found.columns]
    assert columns[0] == ["80.0 %", "", "35.0 %", "25.0 %"]
    assert columns[1] == ["30 (38)‡", "", "1.9 (0.1)", "1.5 (0.1)"]
    assert columns[3] == ["refused", "failed", "kept, and taken", "kept"]
    assert str(found.columns[3].header) == "at most 2.5 ms"
    text = too_noisy(rows, 2.5)
    assert text is not None
    assert text.startswith("the latencies of 1 of 3 sizes vary by more than half of their median")
    assert too_noisy(rows[2:], 2.5) is None
    assert too_noisy(rows, 1000.0) is None  # no noise takes them there
    assert too_noisy(rows, None) is None


def test_where_much_is_lost_it_is_said_what_may_help() -> None:
    lost = {"val_accuracy": 0.4733, "baseline_val_accuracy": 0.6267}
    assert str(too_lossy(lost, 10, 128)).startswith(
        "−15.4 points of validation accuracy may come back with more --epoch"
    )
    assert "batch_size=32, now 128" in str(too_lossy(lost, 10, 128))
    assert too_lossy(lost | {"val_accuracy": 0.6}, 10, 128) is None
    assert too_lossy({"val_miou": 0.6}, 10, 128) is None


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
