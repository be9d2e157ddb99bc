"""Predict a network's latency from those of its layers.

Each distinct layer (its configuration with the shapes that go in and out) is timed once; a network's prediction is a
line over the sum of its layers' times. The line, fitted on a few networks that were measured whole, stands for what no
layer shows: additions, the interpreter, caches that layers find warm. (A look-up table of layers as in NetAdapt, Yang
et al. 2018, arXiv:1804.03230, whose sum has no line.)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rssearch.cost.counting import duplicate, forward_hooks, is_layer
from rssearch.errors import InputError

SAMPLES, FEWEST, SECONDS = 50, 5, 1.0  # of a layer: SAMPLES, but after SECONDS no more than FEWEST
CALLS, SHORT = 5, 0.2  # calls that are timed together if one takes less than so many milliseconds

Table = dict[str, float]  # layer -> milliseconds of one call


class Line(NamedTuple):
    """Milliseconds of a network over the sum of its layers' times."""

    slope: float
    intercept: float

    def __call__(self, milliseconds: float) -> float:
        """The prediction for a sum of layers."""
        return self.slope * milliseconds + self.intercept


def layers(model: nn.Module, input_shape: tuple[int, int, int]) -> list[str]:
    """The layers of a network in the order of their calls, each by its configuration and shapes.

    Args:
        model: takes a batch of images; left as it is.
        input_shape: (C, H, W). The batch has one image.
    """
    return [name for name, _, _ in _calls(model, input_shape)]


def time_layers(
    model: nn.Module, input_shape: tuple[int, int, int], known: Iterable[str] = (), device: torch.device | str = "cpu"
) -> Table:
    """Time each distinct layer of a network that is not known yet.

    Returns:
        layer -> milliseconds of one call with a batch of one image: the fastest one, as other work on the machine only
        ever adds to it.
    """
    twin, seen = duplicate(model).to(device), set(known)
    timed: Table = {}
    for name, layer, x in _calls(twin, input_shape):
        if name not in seen and name not in timed:
            timed[name] = _milliseconds(layer, x)
    return timed


def layer_sum(names: Iterable[str], table: Mapping[str, float]) -> float | None:
    """The sum of the layers' times, in milliseconds; None where the table lacks one."""
    times = [table.get(name) for name in names]
    known = [value for value in times if value is not None]
    return sum(known) if len(known) == len(times) else None


def fit(sums: Sequence[float], measured: Sequence[float]) -> Line:
    """The line that predicts the measured times from the sums with the least squared relative error.

    Raises:
        InputError: fewer than two different sums.
    """
    if len(sums) != len(measured) or len(set(sums)) < 2:
        raise InputError(f"a line needs two networks with different sums of their layers, not {list(sums)}")
    weights = 1 / np.asarray(measured)
    slope, intercept = np.polyfit(sums, measured, 1, w=weights)
    return Line(float(slope), float(intercept))


def errors(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """How good predictions are: mean absolute percentage error, and Spearman's and Kendall's rank correlations."""
    from scipy import stats

    guess, truth = np.asarray(predicted), np.asarray(measured)
    return {
        "mape": float(100 * np.mean(np.abs(guess - truth) / truth)),
        "spearman": float(stats.spearmanr(guess, truth).statistic),
        "kendall": float(stats.kendalltau(guess, truth).statistic),
    }


def _calls(model: nn.Module, input_shape: tuple[int, int, int]) -> list[tuple[str, nn.Module, Tensor]]:
    """Each call of a layer in a forward pass: name, layer, input."""
    found: list[tuple[str, nn.Module, Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            shapes = " -> ".join("x".join(map(str, tensor.shape[1:])) for tensor in (inputs[0], output))
            found.append((f"{layer}: {shapes}", layer, inputs[0]))

    modes = {module: module.training for module in model.modules()}
    reference = next(model.parameters(), torch.empty(0))
    image = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0))
    try:
        model.eval()
        with forward_hooks(model, _layers(model).__contains__, note), torch.inference_mode():
            model(image.to(reference.device, reference.dtype))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return found


def _layers(model: nn.Module) -> set[nn.Module]:
    """The modules that compute by themselves, without those inside of them; an identity takes no time."""
    found = {module for module in model.modules() if is_layer(module) and not isinstance(module, nn.Identity)}
    inside = {part for layer in found for part in layer.modules() if part is not layer}
    return found - inside


def _milliseconds(layer: nn.Module, x: Tensor) -> float:
    """Of one call: short ones are timed together, as they take no longer than the clock or the GPU's answer."""
    layer.eval()
    times: list[float] = []
    begun, calls = time.perf_counter(), 1
    with torch.inference_mode():
        while len(times) < SAMPLES and (len(times) < FEWEST or time.perf_counter() - begun < SECONDS):
            start = time.perf_counter()
            for _ in range(calls):
                layer(x)
            if x.device.type == "cuda":
                torch.cuda.synchronize(x.device)
            times.append(1000 * (time.perf_counter() - start) / calls)
            calls = CALLS if times[-1] < SHORT else 1
    return min(times[1:])
