"""The precisions that a network can be deployed in, and the bits of their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rssearch.errors import unknown

__all__ = ["BITS", "FP32", "Bits", "check_precision", "costs"]


class Bits(NamedTuple):
    """Bits of one value.

    Attributes:
        weight: of a parameter.
        activation: of a value of a map.
    """

    weight: int
    activation: int


FP32 = "fp32"
BITS: Mapping[str, Bits] = {
    FP32: Bits(32, 32),
    "fp16": Bits(16, 16),
    "bf16": Bits(16, 16),
    "int8": Bits(8, 8),
    "int8_qat": Bits(8, 8),
}


def costs(macs: int, params: int, precision: str) -> dict[str, int]:
    """What follows from MACs, parameters and the bits of a precision.

    Returns:
        ``weight_bytes``, of the parameters alone, and ``bops``, bit operations: MACs times the bits of a weight times
        those of an activation.
    """
    bits = BITS[precision]
    return {"weight_bytes": params * bits.weight // 8, "bops": macs * bits.weight * bits.activation}


def check_precision(name: object) -> None:
    """Raise an InputError for what is no precision."""
    if name not in BITS:
        raise unknown("precision", name, BITS)
