"""An agent in another process, and networks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

TOKEN = "a-token-of-this-test-alone"
ROOT = Path(__file__).parents[2]


def network(channels: int = 4, size: int = 16) -> bytes:
    """One convolution of an image of three bands, as ONNX."""
    weight = np.ones((channels, 3, 3, 3), np.float32)
    node = helper.make_node("Conv", ["image", "weight"], ["logits"], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [node],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", channels, size, size])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def measurement(**changes: Any) -> dict[str, Any]:
    """What a device says of a network, but for the number of the job."""
    return {
        "times_ms": [1.0, 1.1, 1.2, 1.1, 1.0],
        "peak_rss_bytes": 50_000_000,
        "energy_mj": None,
        "energy_by": None,
        "device": "Raspberry Pi 5",
        "threads": 1,
        "provider": "CPUExecutionProvider",
        **changes,
    }


@contextmanager
def agent(
    url: str, *more: str, token: str | None = TOKEN, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """``python -m rssearch.agent`` in a process of its own, ended with the block."""
    variables = {name: value for name, value in os.environ.items() if name != "RSSEARCH_AGENT_TOKEN"}
    variables |= {"PYTHONPATH": str(ROOT), **({} if token is None else {"RSSEARCH_AGENT_TOKEN": token}), **(env or {})}
    command = [sys.executable, "-m", "rssearch.agent", url, "--name", "pi", *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=variables, cwd=cwd, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()
