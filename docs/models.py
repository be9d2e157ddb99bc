"""The table of models.md: networks of the zoos, each pruned, trained, rebuilt and exported.

`python docs/models.py` writes it again; names of networks as arguments try those, and write nothing.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from rssearch import models, pruning
from rssearch.cost import counting, onnx
from rssearch.testing.networks import distance, randomise

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- zoos: written by models.py -->\n", "<!-- end -->\n"
RATIO, CLASSES = 0.5, 10
# Those of the most downloaded families, by their names in the zoos.
NETWORKS = (
    "timm:resnet50",
    "timm:efficientnet_b0",
    "timm:tf_efficientnetv2_s",
    "timm:regnety_032",
    "timm:mobilenetv3_large_100",
    "timm:convnext_tiny",
    "timm:densenet121",
    "timm:hrnet_w18",
    "timm:ghostnet_100",
    "timm:repvgg_a2",
    "smp:unet/resnet34",
    "smp:unetplusplus/efficientnet-b0",
    "smp:fpn/resnet50",
    "smp:deeplabv3plus/mobilenet_v2",
    "smp:pspnet/resnet34",
    "torchvision:fcn_resnet50",
    "torchvision:deeplabv3_resnet50",
    "torchvision:lraspp_mobilenet_v3_large",
    "torchvision:googlenet",
    "torchvision:inception_v3",
)


@dataclass(frozen=True)
class Tried:
    """What became of a network.

    Attributes:
        name: of it.
        size: height and width of its images.
        macs: of an image, before pruning.
        params: before pruning.
        ratio: of the MACs that a count of the pruned network gives.
        loss: after a step of training, over that of before, on the same images.
        rebuilt: the largest difference of the logits after rebuilding it from its spec and weights, relative.
        onnx: likewise in ONNX.
        whole: share of the filters that cannot be pruned.
        why: the most frequent reasons.
    """

    name: str
    size: int
    macs: int
    params: int
    ratio: float
    loss: float
    rebuilt: float
    onnx: float
    whole: float
    why: str

    @property
    def failures(self) -> list[str]:
        """What does not hold."""
        held = {
            f"{self.ratio:.4f} of the MACs": abs(self.ratio / RATIO - 1) <= 0.01,
            f"a step changes the loss to {self.loss:.3f} of it": self.loss < 1,
            f"rebuilt from its spec it differs by {self.rebuilt:.1e}": self.rebuilt == 0,
            f"ONNX differs by {self.onnx:.1e}": self.onnx <= 1e-4,
        }
        return [text for text, holds in held.items() if not holds]


def attempt(name: str) -> Tried:
    """Prune a network to half of its MACs, train it for a step, rebuild it and export it."""
    size = 96 if name == "torchvision:inception_v3" else 64
    shape = (3, size, size)
    torch.manual_seed(0)
    model = randomise(models.create(name, CLASSES)).eval()
    whole = counting.profile(model, shape)
    graph = pruning.trace(model, torch.zeros(1, *shape))
    kept = pruning.allocate(graph, pruning.score(model, graph, "l1"), allocation="uniform", macs_ratio=RATIO)
    pruned, spec = pruning.cut(model, graph, kept)
    loss = _step(pruned, shape)
    images = torch.randn(2, *shape)
    content = onnx.to_onnx(pruned.eval(), shape)
    off, largest = onnx.difference(pruned, content, images)
    rebuilt = pruning.apply_spec(models.create(name, CLASSES), json.loads(json.dumps(spec)))
    rebuilt.load_state_dict(pruned.state_dict())
    with torch.no_grad():
        apart = distance(pruned(images), rebuilt.eval()(images))
    fixed = [layer for layer in graph.fixed if isinstance(model.get_submodule(layer), nn.Conv2d | nn.Linear)]
    layers = [key for key, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return Tried(
        name=name,
        size=size,
        macs=whole.macs,
        params=whole.params,
        ratio=counting.profile(pruned, shape).macs / whole.macs,
        loss=loss,
        rebuilt=apart,
        onnx=off / max(largest, 1.0),
        whole=len(fixed) / len(layers),
        why=graph.why_fixed(2),
    )


def _step(model: nn.Module, shape: tuple[int, int, int]) -> float:
    """A small step down the gradient in training mode; the loss after it over that of before."""
    images = torch.randn(4, *shape)
    with torch.no_grad():
        maps = model.train()(images).shape[2:]
    targets = torch.randint(CLASSES, (4, *maps))
    losses = []
    for _ in range(2):
        torch.manual_seed(1)  # the same dropout
        loss = nn.functional.cross_entropy(model(images), targets)
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        learning = [p for p in model.parameters() if p.grad is not None]
        length = nn.utils.get_total_norm([p.grad for p in learning])
        torch.optim.SGD(learning, lr=0.01 / float(length)).step()
    return losses[1] / losses[0]


def table(tried: Iterable[Tried]) -> str:
    """A table in Markdown."""
    lines = [
        "| network | images | GMACs | M parameters | MACs after | ONNX | layers left whole |\n",
        "| --- | --- | --- | --- | --- | --- | --- |\n",
    ]
    for one in tried:
        numbers = f"{one.macs / 1e9:.3f} | {one.params / 1e6:.1f} | {one.ratio:.1%} | {one.onnx:.0e} | {one.whole:.0%}"
        lines.append(f"| `{one.name}` | {one.size} px | {numbers} |\n")
    versions = ", ".join(f"{n} {metadata.version(n)}" for n in ("torchvision", "timm", "segmentation-models-pytorch"))
    return f"{''.join(lines)}\nWith {versions}.\n"


def written(page: str, content: str) -> str:
    """The page with its table."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + content + END + rest.split(END, 1)[1]


def main(names: list[str]) -> int:
    """Try networks one by one. The status says whether all of them hold."""
    logging.basicConfig(level=logging.WARNING)
    done, failed = [], 0
    for name in names or NETWORKS:
        begin = time.perf_counter()
        done.append(attempt(name))
        failures = done[-1].failures
        failed += bool(failures)
        took = time.perf_counter() - begin
        what = f"{done[-1].ratio:.1%} of the MACs, ONNX {done[-1].onnx:.0e}, {done[-1].whole:.0%} whole"
        print(f"{name}: {'; '.join(failures) or what} ({took:.0f} s) {done[-1].why}", flush=True)
    if not names and not failed:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), table(done)), encoding="utf-8")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
