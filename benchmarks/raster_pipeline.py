"""Images per second of 13-band rasters of 16 bits, beside rasterio in a DataLoader with two workers.

    python benchmarks/raster_pipeline.py

Both read the same 2,700 GeoTIFFs of EuroSAT's layout (13 bands of uint16, 64x64, deflate; noise, as no real ones can be
published here) in batches of 128, with random crops with a reflected border of 4 and flips, scaled by 10,000 and
normalised. The reference opens each file by rasterio in a worker of its own, as torchgeo does, with torchvision's
transforms; its files lie in the page cache and its workers are started beforehand and stay. Ours decodes everything
once; that time is a row of its own. Repeats alternate between the two in one process. 8-bit RGB of the same size is
measured in the same way, against Pillow. Rows go to benchmarks/raster_pipeline-<device>.csv.
"""

import argparse
import itertools
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from _common import load, write_rows
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from rssearch import data
from rssearch.config.settings import Augment, Scale
from rssearch.data.decode import available_cpus
from rssearch.data.listing import Listing
from rssearch.data.loader import batches

BATCH, CLASSES, EACH, SIDE, BANDS = 128, 10, 270, 64, 13
AUGMENT = Augment(crop=4, hflip=True, vflip=True, rotate90=False)
Pairs = Iterator[tuple[Tensor, Tensor]]


def write(root: Path) -> None:
    """The rasters, and the same number of 8-bit images."""
    rng = np.random.default_rng(0)
    options = {"driver": "GTiff", "count": BANDS, "height": SIDE, "width": SIDE, "dtype": "uint16"}
    for label, number in itertools.product(range(CLASSES), range(EACH)):
        # Smooth, as images are: noise of 16 pixels that is scaled up, with a little of its own in each pixel.
        coarse = rng.integers(300, 4000, (BANDS, SIDE // 4, SIDE // 4)).repeat(4, 1).repeat(4, 2)
        pixels = (coarse + rng.integers(0, 64, (BANDS, SIDE, SIDE))).astype(np.uint16)
        folders = [root / kind / f"class{label}" for kind in ("rasters", "pictures")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        with rasterio.open(folders[0] / f"{number}.tif", "w", compress="deflate", **options) as file:
            file.write(pixels)
        Image.fromarray((pixels[:3] // 16).astype(np.uint8).transpose(1, 2, 0)).save(folders[1] / f"{number}.png")


class Files(Dataset[tuple[Tensor, int]]):
    """The plain way: open, read, augment, scale, for each image in a worker."""

    def __init__(self, root: Path, images: data.ImageSet) -> None:
        found = data.registry.listing(f"{'raster_' if images.layout else ''}folder:.", root)
        assert isinstance(found, Listing)
        self.paths = [root / name for name in found.names]
        self.labels, self.indices, self.raster = found.labels, images.indices["train"], images.layout is not None
        self.change = transforms.Compose([
            transforms.RandomCrop(SIDE, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.Normalize(images.mean.tolist(), images.std.tolist()),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        index = int(self.indices[position])
        if self.raster:
            with rasterio.open(self.paths[index]) as file:
                image = torch.from_numpy(file.read().astype(np.float32) / 10_000)
        else:
            image = transforms.functional.to_tensor(Image.open(self.paths[index]).convert("RGB"))
        return self.change(image), int(self.labels[index])


def rate(epochs: Iterable[Pairs], step: Callable[[Tensor, Tensor], None], seconds: float) -> float:
    """Images per second over some seconds, after two batches that fill the pipeline."""
    stream = itertools.chain.from_iterable(epochs)
    for x, y in itertools.islice(stream, 2):
        step(x, y)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        x, y = next(stream)
        step(x, y)
        images += len(y)
    return images / (time.perf_counter() - start)


def network(bands: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((bands, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def compare(kind: str, root: Path, images: data.ImageSet, repeats: int, seconds: float) -> list[dict[str, Any]]:
    device, dataset = torch.device("cpu"), images.split("train")
    plain = Files(root, images)
    loader = DataLoader(plain, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    model = network(images.input_shape[0])
    optimizer = torch.optim.SGD(model.parameters(), 0.05)

    def loop_only(x: Tensor, _: Tensor) -> None:
        x.mean()

    def train_step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()

    def ours() -> Iterable[Pairs]:
        return (batches(dataset, BATCH, device=device, train=True, augment=AUGMENT, epoch=e) for e in range(10_000))

    rows = []
    for measure, step in (("loop_only", loop_only), ("training", train_step)):
        ratios = []
        for repeat in range(repeats):
            pair = {}
            for pipeline in ("rssearch", "reference")[:: 1 if repeat % 2 == 0 else -1]:
                epochs: Iterable[Pairs] = ours() if pipeline == "rssearch" else (iter(loader) for _ in range(10_000))
                pair[pipeline] = rate(epochs, step, seconds)
                rows.append(row(kind, measure, pipeline, pair[pipeline], "images/s", repeat))
            ratios.append(pair["rssearch"] / pair["reference"])
            rows.append(row(kind, measure, "ratio", ratios[-1], "rssearch / reference", repeat))
        print(
            f"{kind}, {measure}: median ratio {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        )
    return rows


def row(images: str, measure: str, pipeline: str, value: float, unit: str, repeat: int = 0) -> dict[str, Any]:
    return {
        "images": images, "measure": measure, "pipeline": pipeline, "repeat": repeat, "value": f"{value:.4g}",
        "unit": unit, "load_average": load(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    torch.set_num_threads(available_cpus())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root)
        for kind, name, scale in (
            ("13 bands of uint16", "raster_folder:rasters", Scale(divide=10_000)),
            ("8-bit RGB", "folder:pictures", None),
        ):
            start = time.perf_counter()
            images = data.load(name, root, scale=scale)
            assert isinstance(images, data.ImageSet)
            seconds = time.perf_counter() - start
            rows.append(row(kind, "decode_once", "rssearch", seconds, f"s for {len(images.labels)} images"))
            size = np.prod(images.images.shape) * images.dtype.itemsize / 2**20
            print(f"{kind}: {len(images.labels)} images decoded in {seconds:.1f} s, {size:.0f} MiB")
            rows += compare(kind, root / name.partition(":")[2], images, options.repeats, options.seconds)
    print(write_rows("raster_pipeline", rows, ("torch", "torchvision", "rasterio"), options.out))


if __name__ == "__main__":
    main()
