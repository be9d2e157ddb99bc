"""ONNX models in OpenVINO, where it is installed: a model that two runtimes agree on is not made for one of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["computed", "is_installed", "passes"]


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


def passes(content: bytes, images: npt.NDArray[np.float32], threads: int) -> Callable[[], object]:
    """What runs an ONNX model on the CPU, in float32, one pass a call; it has run once.

    Args:
        content: a model of one input and one output.
        images: [B, C, H, W].
        threads: of the CPU.
    """
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    model = core.read_model(content)
    model.reshape(list(images.shape))  # a fixed batch, as where the network is deployed
    request = core.compile_model(model, "CPU", options).create_infer_request()
    request.infer([images], share_inputs=True)
    return lambda: request.infer([images], share_inputs=True)
