"""cost.device_table, device_layers and device_latencies: what a device has measured, and what it says of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rssearch import models
from rssearch.cost.counting import profile
from rssearch.cost.device_latencies import layers_file, predicted, remember, tables
from rssearch.cost.device_layers import layers
from rssearch.cost.device_table import FEWEST, Layer, Sample, fit
from rssearch.storage.artifacts import Store

ON_PI, GUESSED = "latency_ms@pi", "predicted_latency_ms@pi"


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "unet", "micronet"])
def test_the_layers_of_a_network_have_its_macs(name: str) -> None:
    model = models.create(name, 5, in_channels=3, input_size=32).train()
    found = layers(model, (3, 32, 32), "fp32")
    assert sum(layer.macs for layer in found) == profile(model, (3, 32, 32)).conv_linear_macs
    assert model.training


def test_a_layer_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 4, 2, stride=2)
    )
    assert layers(model, (3, 16, 16), "int8_qat") == [
        Layer("int8 Conv2d 3x3 stride 2x2 dilation 1x1, 1 groups, 8x8", 3 * 8 * 9 * 64, 3 * 256 + 8 * 64),
        Layer("int8 Conv2d 3x3 stride 1x1 dilation 1x1, depthwise, 6x6", 8 * 9 * 36, 8 * 64 + 8 * 36),
        Layer("int8 ConvTranspose2d 2x2 stride 2x2 dilation 1x1, 1 groups, 12x12", 8 * 4 * 4 * 36, 8 * 36 + 4 * 144),
    ]
    with torch.device("meta"):  # shapes alone are enough
        twin = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1))
    assert layers(twin, (3, 16, 16), "int8") == layers(model[:1], (3, 16, 16), "int8")


RATES = {"early": 4e-6, "late": 1e-6, "head": 2e-6}  # milliseconds of a MAC
PER_VALUE, CONSTANT = 3e-6, 0.05


def drawn(count: int, seed: int, noise: float = 0.0) -> list[Sample]:
    """Networks of three kinds of layers in any widths, on a device that takes as long as it is told here."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        widths = rng.integers(8, 64, 4)
        sizes = {"early": 32 * 32 * 9, "late": 8 * 8 * 9, "head": 64}
        pairs = zip(sizes.items(), widths[:-1], widths[1:], strict=True)
        made = [Layer(kind, int(size * a * b), int(size * (a + b) // 9)) for (kind, size), a, b in pairs]
        exact = CONSTANT + sum(RATES[layer.kind] * layer.macs + PER_VALUE * layer.moved for layer in made)
        found.append(Sample(made, float(exact * (1 + noise * rng.standard_normal()))))
    return found


def off(samples: Sequence[Sample], guesses: Sequence[float | None]) -> float:
    pairs = zip(samples, guesses, strict=True)
    return float(np.mean([abs((guess or 0) / sample.milliseconds - 1) for sample, guess in pairs]))


def test_networks_that_were_not_measured_are_predicted_by_their_kinds_of_layers() -> None:
    learned, others = drawn(12, seed=0, noise=0.02), drawn(40, seed=1)
    table = fit(learned)
    assert table is not None
    error = off(others, [table.predict(sample.layers) for sample in others])
    assert error < 0.05
    assert table.error < 0.08
    assert table.networks == 12
    macs = [sum(layer.macs for layer in sample.layers) for sample in (*learned, *others)]
    times = [sample.milliseconds for sample in learned]
    line = np.polyfit(macs[:12], times, 1, w=1 / np.array(times))
    assert error < 0.5 * off(others, [float(np.polyval(line, value)) for value in macs[12:]])


def test_the_error_that_is_told_is_that_of_networks_that_are_left_out() -> None:
    """On a device whose times mean nothing, it is large."""
    rng = np.random.default_rng(0)
    table = fit([Sample(sample.layers, float(rng.uniform(1, 10))) for sample in drawn(12, seed=0)])
    assert table is not None
    assert table.error > 0.3


def test_a_table_needs_some_networks_and_knows_no_other_kinds() -> None:
    samples = drawn(FEWEST, seed=0)
    assert fit(samples[:-1]) is None
    assert fit([samples[0]] * FEWEST) is None
    table = fit(samples)
    assert table is not None
    assert table.predict([*samples[0].layers, Layer("another", 1, 1)]) is None
    guess = table.predict([Layer("early", 0, 0)])
    assert guess is not None
    assert guess >= 0


def measured(milliseconds: float | None, device: str = "A Pi", threads: int = 1) -> dict[str, Any]:
    about = {"latency_device": device, "latency_threads": threads, "latency_provider": "CPUExecutionProvider"}
    return {ON_PI: milliseconds, **{f"{name}@pi": value for name, value in about.items()}}


def test_what_devices_measure_is_kept_and_the_latest_machine_counts(tmp_path: Path) -> None:
    store, samples = Store(tmp_path), drawn(8, seed=0)
    asked = [sample.layers for sample in samples]
    assert predicted(store, [ON_PI], lambda: pytest.fail("nobody can tell, so nobody asks")) == {}
    for sample in samples[:FEWEST]:
        remember(store, "pi", layers_file(sample.layers), measured(sample.milliseconds))
    remember(store, "pi", layers_file(asked[5]), measured(None))  # the device could not run it
    (first,) = tables(store, "pi").values()
    assert first.networks == FEWEST
    found = predicted(store, ["val_accuracy", ON_PI, GUESSED, "latency_ms@other"], lambda: asked[6])
    assert found == {GUESSED: pytest.approx(samples[6].milliseconds, rel=0.3)}
    assert predicted(store, ["val_accuracy", "energy_mj@pi"], lambda: asked[6]) == {}
    assert predicted(store, [GUESSED], lambda: [Layer("another", 1, 1)]) == {}

    remember(store, "pi", layers_file(asked[0]), measured(1.0, device="A faster Pi"))
    assert tables(store, "pi") == {}  # of it too little is known by now
    for sample in samples[1:FEWEST]:
        remember(store, "pi", layers_file(sample.layers), measured(0.5 * sample.milliseconds, device="A faster Pi"))
    (again,) = tables(store, "pi").values()
    assert again.networks == FEWEST
    assert tables(store, "other") == {}
