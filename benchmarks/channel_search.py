"""Time of a step of the channel search, against a plain training step of the same network.

    python benchmarks/channel_search.py

Three things take turns in one process, on random images: a plain step of training (`plain`), a step of the weights and
one of the scores with gates on every channel (`pair`), and the expected cost with its gradient alone (`cost`). A round
gives one ratio of each to the plain step. Rows go to benchmarks/channel_search-<device>.csv.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _common import load, write_rows
from torch import Tensor

from rssearch import models, nas
from rssearch.config.settings import Recipe
from rssearch.data import ImageSet
from rssearch.device import pick_device, place, to_memory_format
from rssearch.train.loop import make_optimizer

SIZE, CLASSES = 32, 10


def images(count: int) -> ImageSet:
    """Random pixels."""
    rng = np.random.default_rng(0)
    return ImageSet(
        name="noise",
        classes=tuple(str(number) for number in range(CLASSES)),
        images=rng.integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8),
        labels=np.arange(count) % CLASSES,
        indices={"train": np.arange(count)},
        mean=np.full(3, 0.5, np.float32),
        std=np.full(3, 0.25, np.float32),
        fingerprint="",
        split_hash="",
    )


class Sides:
    """One network in a search, and a copy of it in plain training."""

    def __init__(self, name: str, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        recipe = Recipe(epochs=1, batch_size=batch, lr=0.01, precision="fp32")
        model = models.create(name, CLASSES)
        data = images(4 * batch).split("train")
        self.run = nas.Run(model, data, 0.5, recipe, nas.ChannelSearch(), None, 0, device)
        self.plain_model = place(model, device, (3, SIZE, SIZE)).train()
        self.optimizer = make_optimizer(self.plain_model, recipe)
        self.run.model.train()
        self.x = to_memory_format(torch.randn(batch, 3, SIZE, SIZE).to(device), model)
        self.y = (torch.arange(batch) % CLASSES).to(device)

    def plain(self) -> None:
        """A step of training."""
        loss = F.cross_entropy(self.plain_model(self.x), self.y)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()

    def pair(self) -> None:
        """A step of the weights and a step of the scores."""
        with self.run.gates.attached(self.run.model):
            self.run._weight_step(self.x, self.y, 0)
            self.run._score_step(self.x, self.y)

    def cost(self) -> None:
        """The cost loss and its gradient."""
        gates: nas.Gates = self.run.gates
        loss: Tensor = nas.cost_loss(gates.expected_ratio(gates.soft()), 0.5)
        torch.autograd.grad(loss, [gates.scores])


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def main() -> None:
    """Every network, `rounds` times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    device = pick_device()
    torch.set_num_threads(1)
    rows = []
    for name in ("resnet20", "resnet18", "vgg16_cifar"):
        sides = Sides(name, args.batch_size, device)
        steps = {"plain": sides.plain, "pair": sides.pair, "cost": sides.cost}
        for step in steps.values():  # kernels are chosen and memory is taken outside of what is measured
            step()
        for number in range(args.rounds):
            order = list(steps) if number % 2 == 0 else list(reversed(steps))
            took = {side: seconds(steps[side], device) for side in order}
            rows.append(
                {
                    "model": name,
                    "batch_size": args.batch_size,
                    "round": number,
                    **{f"{side}_seconds": round(value, 6) for side, value in took.items()},
                    "pair_ratio": round(took["pair"] / took["plain"], 4),
                    "cost_ratio": round(took["cost"] / took["plain"], 4),
                    "load_average": load(),
                }
            )
        mine = rows[-args.rounds :]
        for ratio in ("pair_ratio", "cost_ratio"):
            low, middle, high = statistics.quantiles([row[ratio] for row in mine], n=4)
            print(f"{name:12s} {ratio}: {middle:.3f} (middle half {low:.3f} to {high:.3f})")
    print(write_rows("channel_search", rows, ("torch",), args.out))


if __name__ == "__main__":
    main()
