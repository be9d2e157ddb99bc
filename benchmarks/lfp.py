"""The LFP score in its stable form against the paper's Algorithm 1 done literally.

    python benchmarks/lfp.py

Literally, every filter's spectrum is deleted from its layer's matrix and the Frobenius norm is taken again. The stable
form has the squared norms of the rows, and from them all scores at once. `layer` rows compare the two on the same
log-spectra of one image, for the sizes of layers of ResNet-56, VGG-16 and ResNet-50. `network` rows compare the whole
scoring of a network on random images, with its forward passes and transforms, and set it against what cannot be spared:
one forward pass and `torch.fft.rfft2` of every map that is scored (`floor_seconds`). That both sides give the same
scores is checked in float64 before they are timed in float32. On one thread, or on the GPU where there is one; rows go
to benchmarks/lfp-<device>.csv.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from _common import load, write_rows
from torch import Tensor

from rssearch import models, pruning
from rssearch.pruning.criteria.lfp import lfp, norm_loss
from rssearch.pruning.criteria.maps import score_maps

LAYERS = {  # channels, height and width of the maps
    "ResNet-56, stage 1": (16, 32),
    "ResNet-56, stage 3": (64, 8),
    "VGG-16, last convolutions": (512, 4),
    "ResNet-50, stage 1": (256, 56),
}
NETWORKS = ("resnet56", "vgg16_cifar")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIDES = ("literal", "stable", "floor")
LEAST = 0.05  # seconds that one measurement lasts


def log_spectra(maps: Tensor) -> Tensor:
    """The rows of the matrices of a layer: [..., C, H, W] -> [..., C, H W]."""
    spectra: Tensor = torch.fft.fft2(maps)
    return spectra.abs().log1p().flatten(-2)


def literal(rows: Tensor) -> Tensor:
    """Algorithm 1: delete one row after the other. [C, n] -> [C]."""
    whole = torch.linalg.norm(rows)
    return torch.stack([whole - torch.linalg.norm(torch.cat([rows[:j], rows[j + 1 :]])) for j in range(len(rows))])


def stable(rows: Tensor) -> Tensor:
    """What the package computes, on the same rows."""
    return norm_loss(rows.square().sum(1)[None])[0]


def literal_per_image(maps: Tensor) -> Tensor:
    return torch.stack([literal(rows) for rows in log_spectra(maps)])


def seconds(work: Callable[[], object], calls: int) -> float:
    """Seconds of one of several calls."""
    synchronise()
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    synchronise()
    return (time.perf_counter() - begin) / calls


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def compare(what: dict[str, Any], sides: dict[str, Callable[[], object]], repeats: int) -> Iterator[dict[str, Any]]:
    """Rows of both sides in turn."""
    calls = {side: 1 + int(LEAST / [seconds(work, 1) for _ in range(2)][1]) for side, work in sides.items()}
    ratios, floors = [], []
    for repeat in range(repeats):
        taken = {side: seconds(work, calls[side]) for side, work in sides.items()}
        ratios.append(taken["literal"] / taken["stable"])
        floors.append(taken["stable"] / taken["floor"] if "floor" in taken else math.nan)
        values = {f"{side}_seconds": f"{taken[side]:.4g}" if side in taken else "" for side in SIDES}
        found = {"ratio": f"{ratios[-1]:.4g}", "floor_ratio": f"{floors[-1]:.3f}" if "floor" in taken else ""}
        yield what | {"repeat": repeat} | values | found | {"load_average": load()}
    maps = f", {what['channels']} maps" if what["channels"] else ""
    print(
        f"{what['name']}{maps} of {what['size']} px, images {what['images']}: "
        f"literal {1e3 * taken['literal']:.4g} ms, stable {1e3 * taken['stable']:.4g} ms; "
        f"median ratio {statistics.median(ratios):.4g}, {min(ratios):.4g} to {max(ratios):.4g}"
        + (f"; {statistics.median(floors):.2f} times a forward pass and its transforms" if "floor" in sides else "")
    )


def layer(name: str, channels: int, size: int, repeats: int) -> Iterator[dict[str, Any]]:
    maps = torch.randn(channels, size, size, dtype=torch.float64, device=DEVICE).relu()
    rows = log_spectra(maps)
    torch.testing.assert_close(stable(rows), literal(rows), rtol=1e-9, atol=0)
    rows = rows.float()
    what = {"kind": "layer", "name": name, "channels": channels, "size": size, "images": 1}
    yield from compare(what, {"literal": lambda: literal(rows), "stable": lambda: stable(rows)}, repeats)


def network(name: str, images: int, repeats: int) -> Iterator[dict[str, Any]]:
    model = models.create(name, 10).eval().to(DEVICE)
    x = torch.randn(images, 3, 32, 32, device=DEVICE)
    graph = pruning.trace(model, x[:1])
    labels = torch.zeros(images, dtype=torch.long)

    exact = model.double()
    few = [(x[:2].double(), labels[:2])]
    ours, theirs = lfp(exact, graph, few, 0), score_maps(exact, graph, few, "lfp", literal_per_image)
    for group in graph.groups:
        torch.testing.assert_close(ours[group], theirs[group], rtol=1e-6, atol=1e-12)

    model.float()
    maps: list[Tensor] = []

    def keep(scored: Tensor) -> Tensor:
        maps.append(scored.clone())
        return scored.sum((-2, -1))

    def floor() -> None:
        with torch.no_grad():
            model(x)
        for scored in maps:
            torch.fft.rfft2(scored)

    score_maps(model, graph, [(x, labels)], "lfp", keep)
    sides: dict[str, Callable[[], object]] = {
        "literal": lambda: score_maps(model, graph, [(x, labels)], "lfp", literal_per_image),
        "stable": lambda: lfp(model, graph, [(x, labels)], 0),
        "floor": floor,
    }
    what = {"kind": "network", "name": name, "channels": "", "size": 32, "images": images}
    yield from compare(what, sides, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--images", type=int, nargs="+", default=[32, 128], help="that a network is scored on")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [row for name, shape in LAYERS.items() for row in layer(name, *shape, options.repeats)]
    rows += [row for name in NETWORKS for images in options.images for row in network(name, images, options.repeats)]
    print(write_rows("lfp", rows, ("torch",), options.out))


if __name__ == "__main__":
    main()
