"""What the tests of bundles share: a pruned network, images that it was made for, and a study of one trial."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save as save_tensors

from rssearch import data, models, pruning
from rssearch.config.settings import Split
from rssearch.cost.onnx import to_onnx
from rssearch.data import ImageSet
from rssearch.report.recorded import Recorded
from rssearch.storage.artifacts import Store
from rssearch.train.loop import evaluate
from tests.support.commands import study_with

KEY = "0123456789abcdef"
CLASSES = ["forest", "lake", "road"]
SPLIT = {"train": 0.5, "val": 0.2, "test": 0.3}
ABOUT = {
    "model": "resnet20",
    "options": {"shortcut": "A"},
    "classes": CLASSES,
    "input_shape": [3, 32, 32],
    "mean": [0.3, 0.4, 0.5],
    "std": [0.1, 0.2, 0.25],
}


@cache
def pruned_network() -> pruning.PrunedModel:
    """A network whose weights and BN statistics are not those of a fresh one."""
    torch.manual_seed(0)
    model = models.create("resnet20", len(CLASSES), shortcut="A")
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 32, 32))
    return pruning.prune(model.eval(), torch.zeros(1, 3, 32, 32), "l1", rate=0.5)


@cache
def onnx_model() -> bytes:
    """The same as an ONNX model."""
    return to_onnx(pruned_network().model, (3, 32, 32))


def pictures(root: Path, count: int = 20) -> None:
    """`count` images of each class below root/tiles, of many sizes, formats and modes."""
    rng = np.random.default_rng(0)
    kinds = (("RGB", "png"), ("RGB", "jpg"), ("L", "png"), ("P", "png"), ("RGBA", "png"), ("RGB", "tif"), ("L", "jpg"))
    for label, name in enumerate(CLASSES):
        (root / "tiles" / name).mkdir(parents=True)
        for number in range(count):
            mode, suffix = kinds[number % len(kinds)]
            size = [(32, 32), (64, 64), (90, 50), (31, 47), (300, 280)][(number + label) % 5]
            small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            large = small.resize(size, Image.Resampling.BICUBIC).convert(mode)
            large.save(root / "tiles" / name / f"{number}.{suffix}")


def image_set(root: Path) -> ImageSet:
    """The images as the study divides them."""
    found = data.load("folder:tiles", root, input_size=32, split=Split(**SPLIT), workers=1)
    assert isinstance(found, ImageSet)
    return found


def study(folder: Path, network: pruning.PrunedModel, about: dict[str, Any], data_root: Path) -> Recorded:
    """A study of one trial, as a search leaves it."""
    Store(folder / "results").put(
        "models",
        KEY,
        {
            "model.safetensors": save_tensors({n: t.contiguous() for n, t in network.model.state_dict().items()}),
            "spec.json": json.dumps(network.spec).encode(),
            "about.json": json.dumps(about).encode(),
        },
    )
    place = folder / "results" / "scenes"
    place.mkdir()
    document = study_with(
        {"study": "scenes", "space/dataset": ["folder:tiles"], "settings/split": SPLIT, "data_root": str(data_root)}
    )
    (place / "study.yaml").write_text(yaml.safe_dump(document))
    (place / "environment.json").write_text(
        json.dumps({"python": "3.11.7", "versions": {"torch": "2.15.0", "x": None}})
    )
    objectives: dict[str, Any] = {"val_accuracy": "max", "macs": "min"}
    return Recorded("scenes", place, folder / "results", objectives, {}, [], [])


def trial(network: pruning.PrunedModel, images: ImageSet) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is kept of a network beside its weights, and its row with the accuracies that a trial would measure."""
    about = ABOUT | {"mean": images.mean.tolist(), "std": images.std.tolist()}
    row = {"key": KEY, "status": "finished", "dataset": "folder:tiles", "split_hash": images.split_hash}
    for name in ("val", "test"):
        found = evaluate(network.model, images.split(name), batch_size=7, device=torch.device("cpu"))
        row[f"{name}_accuracy"] = found["accuracy"]
    return about, row
