"""rssearch.cost.activations: by hand, and beside what onnxruntime says of its own run."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rssearch import models
from rssearch.cost.activations import Step, peak_activation_bytes, peak_of, steps
from rssearch.cost.onnx import INPUT, to_onnx


def test_a_chain_holds_two_maps_at_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    first, hidden, last = 3 * 64, 8 * 64, 2 * 64
    assert peak_activation_bytes(model, (3, 8, 8), 1) == max(first + hidden, hidden + last)
    assert peak_activation_bytes(model, (3, 8, 8)) == 4 * (hidden + first)
    assert model.training


class Residual(nn.Module):
    """x + conv(relu(conv(x))): the input stays until the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(torch.relu(self.one(x)))


def test_what_an_addition_reads_later_stays() -> None:
    assert peak_activation_bytes(Residual(), (4, 8, 8), 1) == (4 + 16 + 4) * 64


class Joins(nn.Module):
    """A concatenation needs both of its parts beside the whole; the places of the maximum are never there."""

    def forward(self, x: Tensor) -> Tensor:
        small = nn.functional.max_pool2d(x, 2)
        return torch.cat([small, small * 2], 1)


def test_a_concatenation_and_what_nobody_reads() -> None:
    pooled = 4 * 16
    assert peak_activation_bytes(Joins(), (4, 8, 8), 1) == max(4 * 64 + pooled, 2 * pooled + 2 * pooled)


def test_views_take_nothing() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    assert peak_activation_bytes(flat, (3, 2, 2), 1) == 12 + 2


def test_a_step_in_place_takes_over_one_map_alone() -> None:
    added = Step(frozenset({0, 1}), {2: 10}, in_place=True)
    assert peak_of([added], {0: 10, 1: 10}, frozenset({2})) == 20
    assert peak_of([added], {0: 10, 1: 10}, frozenset({0, 1, 2})) == 30
    assert peak_of([Step(frozenset({0, 1}), {2: 10}, in_place=False)], {0: 10, 1: 10}, frozenset({2})) == 30


def naive(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """The same by looking at each moment at all maps, one after the other."""
    found, result = steps(model, shape)
    values = {0: int(torch.Size(shape).numel())} | {n: v for step in found for n, v in step.writes.items()}
    born = {0: -1} | {n: place for place, step in enumerate(found) for n in step.writes}
    dies = {n: max([p for p, s in enumerate(found) if n in s.reads], default=-2) for n in values}
    dies |= dict.fromkeys(result, len(found))
    peak = 0
    for place, step in enumerate(found):
        alive = [n for n in values if born[n] <= place <= dies[n]]
        total = sum(values[n] for n in alive)
        if step.in_place:  # each new map lies over one that ends here, of the same size
            ending = [values[n] for n in step.reads if dies[n] == place and born[n] < place]
            for n in (n for n in alive if born[n] == place):
                if values[n] in ending:
                    ending.remove(values[n])
                    total -= values[n]
        peak = max(peak, total)
    return peak


@pytest.mark.parametrize(
    ("name", "size"), [("resnet20", 32), ("resnet18", 32), ("mobilenet_v2", 32), ("vgg16_bn", 32), ("unet", 32)]
)
def test_networks(name: str, size: int) -> None:
    model = models.create(name, 4, **({} if name == "unet" else {"input_size": size}))
    assert peak_activation_bytes(model, (3, size, size), 1) == naive(model, (3, size, size))


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn"])
def test_onnxruntime_makes_maps_of_these_sizes(name: str, tmp_path: Path) -> None:
    """Its profile says what each node of the optimised graph writes; the largest neighbours are the peak of a chain."""
    model, shape = models.create(name, 4, input_size=32).eval(), (3, 32, 32)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(to_onnx(model, shape), options, providers=["CPUExecutionProvider"])
    session.run(None, {INPUT: torch.zeros(1, *shape).numpy()})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event["args"] for event in events if str(event.get("name", "")).endswith("_kernel_time")]
    largest = max(int(args["activation_size"]) + int(args["output_size"]) for args in kernels)
    found = peak_activation_bytes(model, shape)
    assert largest <= found  # an operation's inputs and outputs are there at once
    # What else is alive then: a shortcut at most.
    assert found - largest <= max(int(args["output_size"]) for args in kernels)
