"""Predict a network's latency on a device from networks of its kind that the device has measured.

The table has milliseconds for a multiply-accumulate of each kind of layers: an operator with its kernel, stride and map
size, such as the 3x3 convolutions of 16 x 16 maps. All kinds are alike at first; how much longer or shorter each takes
is learned as far as the measured networks tell (ridge regression on relative errors). So it needs whole networks alone,
and predicts widths that were never measured. (A look-up table of layers as in NetAdapt, Yang et al. 2018,
arXiv:1804.03230, has to run each of them by itself.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["FEWEST", "DeviceTable", "Layer", "Sample", "fit"]

FEWEST = 4  # measured networks with different MACs that a table needs
_APART = 0.2  # noise of a measurement over the spread of the kinds' rates, both relative: how much is shrunk
_LOWEST = -0.9  # no kind is faster than a tenth of what all of them take
_FOLDS = 10

Floats = npt.NDArray[np.float64]


class Layer(NamedTuple):
    """A convolution or a linear layer.

    Attributes:
        kind: what is compared with each other.
        macs: multiply-accumulates.
        moved: values that are read and written, without the weights.
    """

    kind: str
    macs: int
    moved: int


class Sample(NamedTuple):
    """A network that a device has measured."""

    layers: Sequence[Layer]
    milliseconds: float

    @property
    def kinds(self) -> frozenset[str]:
        """Of its layers."""
        return frozenset(layer.kind for layer in self.layers)


@dataclass(frozen=True)
class DeviceTable:
    """What a device takes.

    Attributes:
        kinds: milliseconds of a MAC of each kind of layers.
        per_value: milliseconds of a value that a layer reads or writes.
        constant: milliseconds of any network.
        networks: how many it was learned from.
        error: mean absolute relative error for measured networks that were left out, each in turn (with more than ten
            of them, a tenth of them in turn).
    """

    kinds: Mapping[str, float]
    per_value: float
    constant: float
    networks: int
    error: float

    def predict(self, layers: Iterable[Layer]) -> float | None:
        """Milliseconds; None for a network with a kind of layers that no measured one has."""
        total = self.constant
        for layer in layers:
            if layer.kind not in self.kinds:
                return None
            total += layer.macs * self.kinds[layer.kind] + layer.moved * self.per_value
        return total


def fit(samples: Sequence[Sample]) -> DeviceTable | None:
    """The table of measured networks with the same kinds of layers; None where fewer than `FEWEST` differ in MACs."""
    if len({sum(layer.macs for layer in sample.layers) for sample in samples}) < FEWEST:
        return None
    folds, errors = min(len(samples), _FOLDS), []
    for fold in range(folds):
        table = _solved([sample for i, sample in enumerate(samples) if i % folds != fold], 0.0)
        for sample in samples[fold::folds]:
            guess = table.predict(sample.layers)
            assert guess is not None  # they have the same kinds
            errors.append(abs(guess / sample.milliseconds - 1))
    return _solved(samples, float(np.mean(errors)))


def _solved(samples: Sequence[Sample], error: float) -> DeviceTable:
    """The least squared relative error, with the kinds drawn to the rate that is common to all of them."""
    from scipy.optimize import lsq_linear

    kinds = sorted(samples[0].kinds)
    times = np.array([sample.milliseconds for sample in samples])
    of_kinds = np.array([[_macs(sample, kind) for kind in kinds] for sample in samples]) / times[:, None]
    moved = np.array([sum(layer.moved for layer in sample.layers) for sample in samples]) / times
    base = np.stack([of_kinds.sum(1), moved, 1 / times], 1)
    scale, count, target = base.mean(0), len(kinds), np.ones(len(samples))
    # A rate that says what "relative" means for the kinds; it is at least a tenth of what MACs alone would explain.
    rate = max(lsq_linear(base / scale, target, (0, np.inf)).x[0], 0.1) / scale[0]
    shrunk = np.block([[base / scale, of_kinds * rate], [np.zeros((count, 3)), _APART * np.eye(count)]])
    lowest = [0.0] * 3 + [_LOWEST] * count
    found: Floats = lsq_linear(shrunk, np.append(target, np.zeros(count)), (lowest, np.inf)).x
    common, per_value, constant = found[:3] / scale
    rates = np.maximum(common + rate * found[3:], 0.0)
    table = dict(zip(kinds, map(float, rates), strict=True))
    return DeviceTable(table, float(per_value), float(constant), len(samples), error)


def _macs(sample: Sample, kind: str) -> int:
    return sum(layer.macs for layer in sample.layers if layer.kind == kind)
