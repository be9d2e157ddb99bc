"""The precisions that a network can be deployed in, and the bits of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16", "int8", "int8_qat"]

DEFAULT: Precision = "fp32"
BITS: Mapping[Precision, int] = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int8_qat": 8}  # weights, activations
