"""Images per second of training ResNet-18 at 64 pixels: `rssearch.train.fit` beside plain loops on the same images.

    python benchmarks/training.py

In turns, in one process, on the GPU where there is one:

* `ours`: uint8 images on the host, shuffled by epoch, crossed and normalised; deterministic kernels; losses are looked
  at. `ours_augmented` also crops, flips and turns.
* `plain`: the shortest loop, on float images that lie on the device already, in channels_last; no shuffling.
* `plain_nchw`: the same in PyTorch's own layout. `plain_host`: as `plain`, but images come from the host as ours do.
* `plain_deterministic`: `plain` with cuDNN's deterministic kernels, as ours uses.

`ratio` is to `plain` of the same repeat. Rows go to benchmarks/training-<device>.csv.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _common import load, write_rows
from torch import nn

from rssearch import models
from rssearch.config.settings import Augment, Recipe
from rssearch.data.imageset import ImageSet
from rssearch.train import TrainContext, loop

SIZE, CLASSES = 64, 10
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GPU = DEVICE.type == "cuda"


def synchronize() -> None:
    if GPU:
        torch.cuda.synchronize()


def noise(count: int) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count + 8, 3, SIZE, SIZE), dtype=np.uint8)
    labels = np.arange(count + 8) % CLASSES
    places = {"train": np.arange(count), "val": np.arange(count, count + 8), "test": np.arange(count, count + 8)}
    mean, std = np.full(3, 0.5, np.float32), np.full(3, 0.29, np.float32)
    return ImageSet("noise", tuple("abcdefghij"), pixels, labels, places, mean, std, "", "")


class Case:
    """Images for one precision and batch, and the loops over them."""

    def __init__(self, precision: str, batch: int, count: int) -> None:
        self.precision, self.batch, self.count, self.images = precision, batch, count, noise(count)
        assert isinstance(self.images.images, np.ndarray)
        self.host = torch.from_numpy(self.images.images[:count])
        self.labels = torch.from_numpy(self.images.labels[:count])
        self.x = (self.host.to(DEVICE).float() / 255 - 0.5) / 0.29
        self.x_last = self.x.contiguous(memory_format=torch.channels_last)
        self.y = self.labels.to(DEVICE)

    def model(self) -> nn.Module:
        """A fresh network, the same each time."""
        torch.manual_seed(0)
        return models.create("resnet18", CLASSES, input_size=SIZE)

    def ours(self, augment: Augment | None = None) -> float:
        """Images per second of an epoch of `rssearch.train.fit`."""
        recipe = Recipe(epochs=1, batch_size=self.batch, lr=0.01, schedule="constant", precision=self.precision)
        train, val = self.images.split("train"), self.images.split("val")
        (record,) = loop.fit(self.model(), train, val, recipe, augment=augment, context=TrainContext(DEVICE))
        return float(record["images_per_second"])

    def plain(self, *, last: bool = True, host: bool = False, deterministic: bool = False) -> float:
        """Images per second of a plain loop."""
        model = self.model().to(DEVICE).train()
        if last:
            model = model.to(memory_format=torch.channels_last)
        x = self.x_last if last else self.x
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        torch.backends.cudnn.deterministic = deterministic
        synchronize()
        begin = time.perf_counter()
        for start in range(0, self.count, self.batch):
            row = slice(start, start + self.batch)
            xb, yb = self.crossed(row) if host else (x[row], self.y[row])
            optimizer.zero_grad()
            with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                loss = F.cross_entropy(model(xb), yb)
            torch.autograd.backward(loss)
            optimizer.step()
        synchronize()
        torch.backends.cudnn.deterministic = False
        return self.count / (time.perf_counter() - begin)

    def crossed(self, row: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch from the host."""
        pixels = self.host[row].pin_memory() if GPU else self.host[row]
        x = ((pixels.to(DEVICE, non_blocking=True).float() / 255 - 0.5) / 0.29).contiguous(
            memory_format=torch.channels_last
        )
        return x, self.labels[row].to(DEVICE)


def compare(case: Case, tf32: bool, repeats: int) -> list[dict[str, Any]]:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    sides: dict[str, Callable[[], float]] = {
        "ours": case.ours,
        "ours_augmented": lambda: case.ours(Augment()),
        "plain": case.plain,
        "plain_nchw": lambda: case.plain(last=False),
        "plain_host": lambda: case.plain(host=True),
        "plain_deterministic": lambda: case.plain(deterministic=True),
    }
    for side in sides.values():  # kernels are chosen and memory is taken outside of what is measured
        side()
    rows, ratios = [], {name: [] for name in sides}  # type: ignore[var-annotated]
    for repeat in range(repeats):
        speed = {name: sides[name]() for name in list(sides)[:: 1 if repeat % 2 == 0 else -1]}
        for name in sides:
            ratios[name].append(speed[name] / speed["plain"])
            rows.append({
                "network": "resnet18", "size": SIZE, "precision": case.precision, "tf32": tf32, "batch": case.batch,
                "side": name, "repeat": repeat, "images": case.count, "images_per_second": f"{speed[name]:.5g}",
                "ratio": f"{ratios[name][-1]:.4f}", "load_average": load(),
            })  # fmt: skip
    for name, found in ratios.items():
        middle, least, most = statistics.median(found), min(found), max(found)
        print(f"{case.precision} tf32 {tf32!s:5} {case.batch:4} {name:20} {middle:.2f}, {least:.2f} to {most:.2f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=4096 if GPU else 256, help="of a repeat")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    precisions = [("bf16", True), ("fp32", False), ("fp32", True)] if GPU else [("fp32", False)]
    rows = []
    for batch in (128, 512) if GPU else (128,):
        for precision, tf32 in precisions:
            rows += compare(
                Case(precision, batch, max(options.images, 4 * batch if GPU else batch)), tf32, options.repeats
            )
    print(write_rows("training", rows, ("torch",), options.out))


if __name__ == "__main__":
    main()
