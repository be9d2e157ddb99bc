"""What packing gives: the images that 1, 2 and 4 trials together train on one GPU in a second.

    python benchmarks/packing.py

Each trial is a process that trains a network on noise that lies on the GPU, as `rssearch.train` does: mixed precision,
channels last, SGD. All start their clocks together once every one of them has warmed up. `ratio` is the throughput of
all trials together to that of one alone, in the same repeat; `footprint` is what `resources.gpus: auto` would measure,
and `packed` how many trials it would put on this GPU. It needs a GPU: without one it ends with status 2.
Rows go to benchmarks/packing-<device>.csv.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from _common import load, write_rows

from rssearch import models
from rssearch.backend import gpu_sharing
from rssearch.config.settings import Recipe
from rssearch.cost import memory
from rssearch.device import autocast, place, to_memory_format
from rssearch.train.loop import make_optimizer
from rssearch.train.losses import cross_entropy

TOGETHER = (1, 2, 4)
NETWORKS = {"resnet20": 32, "resnet18": 64}  # and the size of their images
WARMUP = 20  # steps


class Training:
    """A network and a batch of noise."""

    def __init__(self, name: str, size: int, batch: int) -> None:
        self.device = torch.device("cuda")
        self.model = place(models.create(name, 10, input_size=size), self.device, (3, size, size)).train()
        self.optimizer = make_optimizer(self.model, Recipe(lr=1e-3))
        self.x = to_memory_format(torch.randn(batch, 3, size, size, device=self.device), self.model)
        self.y = torch.randint(10, (batch,), device=self.device)

    def steps(self, number: int) -> None:
        """Take so many steps, and wait for them."""
        for _ in range(number):
            self.optimizer.zero_grad()
            with autocast(self.device, "auto"):
                loss = cross_entropy(self.model(self.x), self.y)
            torch.autograd.backward(loss)
            self.optimizer.step()
        torch.cuda.synchronize()


def trial(name: str, size: int, batch: int, seconds: float, ready: Any, rates: Any) -> None:
    """One trial in its own process: images per second."""
    torch.set_num_threads(1)
    training = Training(name, size, batch)
    training.steps(WARMUP)
    ready.wait()
    begin, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        training.steps(10)
        done += 10 * batch
    rates.put(done / passed)


def throughput(name: str, batch: int, together: int, seconds: float) -> float:
    """Images per second of all trials together."""
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(together), context.SimpleQueue()
    arguments = (name, NETWORKS[name], batch, seconds, ready, rates)
    trials = [context.Process(target=trial, args=arguments) for _ in range(together)]
    for process in trials:
        process.start()
    for process in trials:
        process.join()
    if any(process.exitcode for process in trials):
        raise RuntimeError(f"{together} trials of {name}: a process failed")
    return float(sum(rates.get() for _ in trials))


def footprint(name: str, batch: int, results: Any) -> None:
    """What `gpus: auto` measures, in a process of its own."""
    found = memory.measure(lambda: Training(name, NETWORKS[name], batch).steps(3))
    results.put((found.taken, found.memory))


def measured(name: str, batch: int) -> memory.Footprint:
    """The footprint of a network's training."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=footprint, args=(name, batch, results))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the footprint of {name} could not be measured")
    return memory.Footprint(*results.get())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/packing.py measures trials that share a GPU, and this machine has none", file=sys.stderr)
        sys.exit(2)

    rows = []
    for name, size in NETWORKS.items():
        taken = measured(name, options.batch)
        packed = int(1 / gpu_sharing.fraction(taken.taken, taken.memory))
        for repeat in range(options.repeats):
            order = TOGETHER[:: 1 if repeat % 2 == 0 else -1]
            rates = {k: throughput(name, options.batch, k, options.seconds) for k in order}
            for k in TOGETHER:
                print(f"{name:9} {repeat}  {k} trials {rates[k]:9.0f} images/s, {rates[k] / rates[1]:.2f} of one alone")
                rows.append(
                    {
                        "network": name, "size": size, "batch": options.batch, "repeat": repeat, "together": k,
                        "images_per_second": f"{rates[k]:.4g}", "ratio": f"{rates[k] / rates[1]:.4g}",
                        "footprint": taken.taken, "gpu_memory": taken.memory, "packed": packed, "load_average": load(),
                    }
                )  # fmt: skip
    for name in NETWORKS:
        for k in TOGETHER[1:]:
            ratios = [float(r["ratio"]) for r in rows if (r["network"], r["together"]) == (name, k)]
            print(f"{name}: {k} trials train {statistics.median(ratios):.2f} times the images of one")
    print(write_rows("packing", rows, ("torch",), options.out))


if __name__ == "__main__":
    main()
