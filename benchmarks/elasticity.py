"""Time that recording the elasticity of every filter adds to a training step.

    python benchmarks/elasticity.py

A network trains on random images (cross entropy, SGD with momentum), a few steps as it is and a few with
`rssearch.pruning.Elasticity` in each, in turns in one process; which comes first changes with each round, and a round
gives one ratio. `fit` records in the last epoch alone, so a whole training pays less. Rows go to
benchmarks/elasticity-<device>.csv.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _common import load, write_rows

from rssearch import models
from rssearch.device import pick_device, place, to_memory_format
from rssearch.pruning import Elasticity

SIZE, CLASSES = 32, 10


class Training:
    """A network in training, and a record of it."""

    def __init__(self, name: str, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.model = place(models.create(name, CLASSES), device, (3, SIZE, SIZE)).train()
        self.images = to_memory_format(torch.randn(batch, 3, SIZE, SIZE).to(device), self.model)
        self.labels = torch.randint(0, CLASSES, (batch,)).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.elasticity = Elasticity(self.model)

    def seconds(self, steps: int, *, record: bool) -> float:
        """Seconds of a step, the mean over some."""
        synchronise(self.images.device)
        begin = time.perf_counter()
        for _ in range(steps):
            loss = F.cross_entropy(self.model(self.images), self.labels)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            if record:
                self.elasticity.update(loss)
            self.optimizer.step()
        synchronise(self.images.device)
        return (time.perf_counter() - begin) / steps


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(name: str, batch: int, rounds: int, steps: int, device: torch.device) -> list[dict[str, Any]]:
    """A row for each round."""
    training = Training(name, batch, device)
    for record in (False, True):  # kernels are chosen and memory is taken outside of what is measured
        training.seconds(2, record=record)
    filters = sum(len(of_layer) for of_layer in training.elasticity.values().values())
    rows: list[dict[str, Any]] = []
    for number in range(rounds):
        order = (False, True) if number % 2 == 0 else (True, False)
        seconds = {record: training.seconds(steps, record=record) for record in order}
        rows.append(
            {
                "model": name,
                "batch_size": batch,
                "filters": filters,
                "round": number,
                "steps": steps,
                "plain_seconds_per_step": round(seconds[False], 6),
                "recorded_seconds_per_step": round(seconds[True], 6),
                "ratio": round(seconds[True] / seconds[False], 4),
                "load_average": load(),
            }
        )
    ratios = sorted(row["ratio"] for row in rows)
    quarter = len(ratios) // 4
    print(
        f"{name}, batches of {batch}: a step with the record takes {statistics.median(ratios):.3f} times as long "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}; the middle half {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}), "
        f"{statistics.median(row['plain_seconds_per_step'] for row in rows) * 1000:.1f} ms without"
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--steps", type=int, help="of one side in a round; by default 1, and 20 on a GPU")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    device = pick_device()
    gpu = device.type == "cuda"
    if not gpu:
        torch.set_num_threads(1)
    steps = options.steps or (20 if gpu else 1)
    rows = [
        row
        for name in ("resnet20", "resnet18")
        for row in measure(name, options.batch_size, options.rounds, steps, device)
    ]
    print(write_rows("elasticity", rows, ("torch",), options.out))


if __name__ == "__main__":
    main()
