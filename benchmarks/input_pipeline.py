"""Images per second and memory of our input pipeline, beside an ImageFolder read by a DataLoader with two workers.

    python benchmarks/input_pipeline.py --data-root data

Both read EuroSAT RGB at 64x64 with the same augmentation (random crop with a reflected border of 4, flips) and the
same batches of 128. Repeats alternate between the two in one process, so that a busy machine hurts both. The reference
gets what favours it: its tree lies extracted on the disk and in the page cache, its workers are started beforehand and
stay. Ours decodes everything first; that time is a row of its own. Memory is measured in Ray actors for both, with one
and with two trials at once: USS is what a process has alone, PSS adds its share of what it has in common with others.
Rows go to benchmarks/input_pipeline-<device>.csv.
"""

import argparse
import gc
import itertools
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from _common import load, write_rows
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from rssearch import data
from rssearch.backend import local_ray
from rssearch.config.settings import Augment
from rssearch.data.decode import available_cpus
from rssearch.data.loader import batches

BATCH = 128
Pairs = Iterator[tuple[Tensor, Tensor]]
AUGMENT = Augment(crop=4, hflip=True, vflip=True, rotate90=False)


def reference_loader(tree: Path, mean: list[float], std: list[float], device: torch.device) -> DataLoader[Any]:
    transform = transforms.Compose([
        transforms.RandomCrop(64, padding=4, padding_mode="reflect"),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ])  # fmt: skip
    return DataLoader(
        ImageFolder(tree, transform),
        BATCH,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )


def reference_epoch(loader: DataLoader[Any], device: torch.device) -> Pairs:
    for x, y in loader:
        yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def our_epoch(dataset: data.ImageDataset, device: torch.device, epoch: int) -> Pairs:
    return batches(dataset, BATCH, device=device, train=True, augment=AUGMENT, epoch=epoch)


def small_cnn(classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def rate(
    epochs: Iterable[Pairs], step: Callable[[Tensor, Tensor], None], seconds: float, device: torch.device
) -> float:
    """Images per second over some seconds, after two batches that fill the pipeline."""
    stream = itertools.chain.from_iterable(epochs)
    for x, y in itertools.islice(stream, 2):
        step(x, y)
    if device.type == "cuda":
        torch.cuda.synchronize()
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        x, y = next(stream)
        step(x, y)
        images += len(y)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


def throughput(
    images: data.ImageSet, tree: Path, device: torch.device, repeats: int, seconds: float
) -> list[dict[str, Any]]:
    dataset = images.split("train")
    loader = reference_loader(tree, images.mean.tolist(), images.std.tolist(), device)
    model = small_cnn(images.num_classes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)

    def loop_only(x: torch.Tensor, _: torch.Tensor) -> None:
        x.mean()

    def train_step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()

    rows = []
    for measure, step in (("loop_only", loop_only), ("training", train_step)):
        ratios = []
        for repeat in range(repeats):
            pair = {}
            # Who goes first alternates as well.
            for pipeline in ("rssearch", "imagefolder")[:: 1 if repeat % 2 == 0 else -1]:
                ours = pipeline == "rssearch"
                epochs = (
                    our_epoch(dataset, device, e) if ours else reference_epoch(loader, device) for e in range(1000)
                )
                pair[pipeline] = rate(epochs, step, seconds, device)
                rows.append(row(measure, pipeline, pair[pipeline], "images/s", repeat=repeat))
            ratios.append(pair["rssearch"] / pair["imagefolder"])
            rows.append(row(measure, "ratio", ratios[-1], "rssearch / imagefolder", repeat=repeat))
        print(f"{measure}: median ratio {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    return rows


class Trial:
    """A process that has read one epoch in part and holds on to what it needs for the next batch."""

    def __init__(self) -> None:
        torch.set_num_threads(1)

    def rssearch(self, images: data.ImageSet) -> list[int]:
        """Read the shared set; the ids of the processes that takes."""
        self.epoch = iter(our_epoch(images.split("train"), torch.device("cpu"), 0))
        return self._read()

    def imagefolder(self, tree: Path, mean: list[float], std: list[float]) -> list[int]:
        """Read the tree; the ids of the processes that takes."""
        self.loader = reference_loader(tree, mean, std, torch.device("cpu"))
        self.epoch = reference_epoch(self.loader, torch.device("cpu"))
        return self._read()

    def nothing(self) -> list[int]:
        """Only import what the others import."""
        return [os.getpid()]

    def _read(self) -> list[int]:
        for x, _ in itertools.islice(self.epoch, 60):
            x.mean()
        gc.collect()
        return [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]


@local_ray.closed()
def memory(images: data.ImageSet, tree: Path) -> list[dict[str, Any]]:
    ray.init(num_cpus=2, object_store_memory=2 * 2**30, include_dashboard=False, log_to_driver=False)
    shared = ray.put(images)
    rows = []
    for pipeline, arguments in (
        ("nothing", ()),
        ("imagefolder", (tree, images.mean.tolist(), images.std.tolist())),
        ("rssearch", (shared,)),
    ):
        for trials in (1, 2):
            actors: list[Any] = [ray.remote(num_cpus=1)(Trial).remote() for _ in range(trials)]
            pids = ray.get([getattr(actor, pipeline).remote(*arguments) for actor in actors], timeout=120)
            infos = [psutil.Process(pid).memory_full_info() for pid in itertools.chain(*pids)]
            for kind in ("uss", "pss"):
                total = sum(getattr(info, kind) for info in infos) / 2**20
                rows.append(row(f"memory_{kind}", pipeline, total, "MiB of all its processes", trials=trials))
            print(
                f"memory, {pipeline}, {trials} at once: " + ", ".join(f"{r['value']} {r['measure']}" for r in rows[-2:])
            )
            for actor in actors:
                ray.kill(actor)
            time.sleep(1)
    assert isinstance(images.images, np.ndarray)
    rows.append(row("memory_store", "rssearch", images.images.nbytes / 2**20, "MiB in the object store", trials=2))
    ray.shutdown()
    return rows


def row(measure: str, pipeline: str, value: float, unit: str, *, trials: int = 1, repeat: int = 0) -> dict[str, Any]:
    return {
        "measure": measure, "pipeline": pipeline, "trials": trials, "repeat": repeat, "value": f"{value:.4g}",
        "unit": unit, "load_average": load(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="holds eurosat_rgb, as a zip")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(available_cpus())
    start = time.perf_counter()
    images = data.load("eurosat_rgb", options.data_root)
    assert isinstance(images, data.ImageSet)
    rows = [row("decode_once", "rssearch", time.perf_counter() - start, f"s for {len(images.labels)} images")]
    archive = Path(data.registry.listing("eurosat_rgb", options.data_root).where)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
        tree = next(Path(folder).iterdir())
        rows += throughput(images, tree, device, options.repeats, options.seconds)
        rows += memory(images, tree)
    print(write_rows("input_pipeline", rows, ("torch", "torchvision", "ray"), options.out))


if __name__ == "__main__":
    main()
