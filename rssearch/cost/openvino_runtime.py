"""ONNX models in OpenVINO, where it is installed: a model that two runtimes agree on is not made for one of them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["computed", "is_installed"]


def is_installed() -> bool:
    """Whether OpenVINO can be imported."""
    return find_spec("openvino") is not None


def computed(content: bytes, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The output of an ONNX model on the CPU.

    Args:
        content: a model of one input and one output.
        images: [B, C, H, W], in the type of its input.

    Returns:
        float32. It is computed in float32 also where the processor has faster types.
    """
    import openvino

    core = openvino.Core()
    model = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(model(images)[0], dtype=np.float32)
