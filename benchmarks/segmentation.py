"""Time and memory of training encoder-decoders at the size of Micro-Net's paper, against U-Net.

    python benchmarks/segmentation.py

Images are random, 500 x 500 pixels, in batches of 2. In each round every network takes one step (forward, backward,
SGD), so that each round gives a ratio to U-Net's. Memory is the peak of a process of its own that takes two steps: what
the GPU's allocator held, or on a CPU what the process grew by. Rows go to benchmarks/segmentation-<device>.csv.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from _common import load, write_rows

from rssearch import models
from rssearch.config.settings import Recipe
from rssearch.cost.counting import profile
from rssearch.device import pick_device, place, to_memory_format
from rssearch.train.loop import make_optimizer
from rssearch.train.losses import cross_entropy

NETWORKS = ("unet", "miniaturized_net", "micronet:1,2,3", "micronet")


class Training:
    """One network, one batch of noise."""

    def __init__(self, name: str, size: int, batch: int) -> None:
        self.device = pick_device()
        torch.manual_seed(0)
        self.model = place(models.create(name, 2), self.device, (3, size, size)).train()
        self.optimizer = make_optimizer(self.model, Recipe(lr=1e-3))
        self.x = to_memory_format(torch.randn(batch, 3, size, size, device=self.device), self.model)
        self.y = torch.randint(2, (batch, size, size), device=self.device)

    def step(self) -> float:
        """Seconds of a step."""
        begin = time.perf_counter()
        loss = cross_entropy(self.model(self.x), self.y)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        loss.item()  # waits for a GPU
        return time.perf_counter() - begin


def peak_megabytes(name: str, size: int, batch: int) -> float:
    """Of a training in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--size", str(size), "--batch-size", str(batch)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def own_peak(name: str, size: int, batch: int) -> float:
    """Megabytes that two steps take of a GPU, or that they make this process grow by."""
    if pick_device().type == "cuda":
        Training(name, size, batch).step()
        return torch.cuda.max_memory_allocated() / 1e6
    torch.autograd.backward(torch.randn(8, 8, requires_grad=True).sum())  # what PyTorch takes for itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    training = Training(name, size, batch)
    training.step()
    training.step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6


def main() -> None:
    """Memory of each network, then rounds of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--memory-of", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    if args.memory_of:
        print(own_peak(args.memory_of, args.size, args.batch_size))
        return
    memory = {name: peak_megabytes(name, args.size, args.batch_size) for name in NETWORKS}
    trainings = {name: Training(name, args.size, args.batch_size) for name in NETWORKS}
    for training in trainings.values():  # kernels are chosen and memory is taken outside of what is measured
        training.step()
    costs = {name: profile(training.model, (3, args.size, args.size)) for name, training in trainings.items()}
    rows = []
    for number in range(args.rounds):
        took = {name: trainings[name].step() for name in (NETWORKS if number % 2 == 0 else NETWORKS[::-1])}
        for name in NETWORKS:
            rows.append(
                {
                    "model": name,
                    "size": args.size,
                    "batch_size": args.batch_size,
                    "round": number,
                    "seconds": round(took[name], 4),
                    "images_per_second": round(args.batch_size / took[name], 4),
                    "time_of_unet": round(took[name] / took["unet"], 4),
                    "peak_megabytes": round(memory[name]),
                    "conv_linear_macs": costs[name].conv_linear_macs,
                    "params": costs[name].params,
                    "threads": torch.get_num_threads(),
                    "load_average": load(),
                }
            )
    for name in NETWORKS:
        ratio = statistics.median(row["time_of_unet"] for row in rows if row["model"] == name)
        print(f"{name:16s} {ratio:.3f} of U-Net's time, {memory[name]:,.0f} MB at most")
    print(write_rows("segmentation", rows, ("torch",), args.out))


if __name__ == "__main__":
    main()
