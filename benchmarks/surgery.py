"""Tracing and cutting a network, against torch_pruning's own pruner.

Both sides find the coupled channels of the same network, rank filters by their norms, and remove half of the channels
of every group. Ours also builds the exact cost tables, and proves the trace by a cut on trial and the cut itself: it
runs the cut network and a masked one, and compares them. The row ``unproved`` leaves the last proof out, for the plain
comparison of the surgery. ``traced`` is the cut, with its proof, of a network whose trace is known, as in all trials of
a network but the first that a process runs; torch_pruning has no such state to keep, so that its time is the same.
Sides alternate, on one thread.

    python benchmarks/surgery.py
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from _common import load, write_rows
from torch import nn

from rssearch import models, pruning
from rssearch.cost.counting import profile

NETWORKS = [
    ("resnet56", 32, {"shortcut": "B"}),
    ("vgg16_cifar", 32, {}),
    ("resnet18", 64, {}),
    ("resnet50", 64, {}),
    ("mobilenet_v2", 64, {}),
    ("torchvision:densenet121", 64, {}),
    ("torchvision:efficientnet_b0", 64, {}),
]


def ours(model: nn.Module, image: torch.Tensor) -> nn.Module:
    """`rssearch.pruning.prune` as users call it."""
    return pruning.prune(model, image, "l2", rate=0.5).model


def unproved(model: nn.Module, image: torch.Tensor) -> nn.Module:
    """The same without running the cut and the masked network."""
    graph = pruning.trace(model, image)
    kept = pruning.allocate(graph, pruning.score(model, graph, "l2"), allocation="uniform", rate=0.5)
    return pruning.apply_spec(copy.deepcopy(model), pruning.make_spec(graph, kept))


def traced(graph: pruning.ChannelGraph, model: nn.Module) -> nn.Module:
    """What `ours` does once the channels are known."""
    kept = pruning.allocate(graph, pruning.score(model, graph, "l2"), allocation="uniform", rate=0.5)
    return pruning.cut(model, graph, kept)[0]


def theirs(model: nn.Module, image: torch.Tensor) -> nn.Module:
    """torch_pruning's magnitude pruner, on a copy because it cuts in place."""
    model = copy.deepcopy(model)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.MetaPruner(
        model, image, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2), pruning_ratio=0.5,
        ignored_layers=[last], in_channel_groups={}, out_channel_groups={}, num_heads={}, channel_groups={},
    )  # fmt: skip
    pruner.step()
    return model


def seconds(function: Callable[..., nn.Module], model: nn.Module, image: torch.Tensor) -> tuple[float, nn.Module]:
    """How long one call takes, and what comes out."""
    begin = time.perf_counter()
    pruned = function(model, image)
    if image.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin, pruned


def main() -> None:
    """Every network, `repeats` times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for name, size, options in NETWORKS:
        model = models.create(name, 10, **dict[str, Any](options)).eval().to(device)
        if name == "resnet56":  # an index shortcut between equal widths is an identity, which torch_pruning can follow
            first = model.get_submodule("layer1.0")
            first.shortcut = nn.Identity()
        image = torch.randn(1, 3, size, size, device=device)
        graph = pruning.trace(model, image)
        sides: dict[str, Callable[..., nn.Module]] = {
            "ours": ours,
            "unproved": unproved,
            "traced": lambda model, _, graph=graph: traced(graph, model),
            "torch_pruning": theirs,
        }
        times: dict[str, list[float]] = {side: [] for side in sides}
        for repeat in range(args.repeats + 1):
            for side, function in sides.items():
                took, pruned = seconds(function, model, image)
                if repeat:  # the first round warms up
                    times[side].append(took)
                elif side in ("ours", "torch_pruning"):
                    print(f"{name:30s} {side:14s} {profile(pruned, (3, size, size)).macs:>12,} MACs left")
        for side in ("ours", "unproved", "traced"):
            ratios = [mine / other for mine, other in zip(times[side], times["torch_pruning"], strict=True)]
            rows.append(
                {
                    "network": name,
                    "side": side,
                    "seconds": round(statistics.median(times[side]), 4),
                    "torch_pruning_seconds": round(statistics.median(times["torch_pruning"]), 4),
                    "ratio": round(statistics.median(ratios), 2),
                    "ratio_min": round(min(ratios), 2),
                    "ratio_max": round(max(ratios), 2),
                    "repeats": args.repeats,
                    "load_average": load(),
                }
            )
            print(f"{name:30s} {side:9s} {rows[-1]['seconds']:.3f} s, {rows[-1]['ratio']:.2f} x torch_pruning's")
    print(write_rows("surgery", rows, ("torch", "torch-pruning"), args.out))


if __name__ == "__main__":
    main()
