"""Which multiples of channels a machine computes fastest: its kernels work on blocks of channels.

onnxruntime's convolutions on a CPU with AVX-512, for example, take blocks of 16 channels, and other widths go another,
slower way: a network whose widths are odd keeps much of its time when it loses its MACs.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MULTIPLES = (1, 2, 4, 8, 16, 32)
WORTH = 0.93  # a smaller multiple is taken where it is so nearly as fast as the best
_WIDTHS = (33, 34, 36, 39, 40, 44, 47, 48, 52, 56, 59, 60, 64, 80, 96)
_SIZE, _LAYERS, _PASSES = 24, 3, 40


@lru_cache(maxsize=4)
def learned(threads: int = 1) -> int:
    """The multiple that pays on this machine's CPU in onnxruntime, from networks of a few widths; takes seconds."""
    return best(_seconds(threads))


def best(seconds: Mapping[int, float]) -> int:
    """The smallest of `MULTIPLES` whose widths do nearly as many MACs in a second as those of any.

    Each is judged by widths that are no multiples of the next one, which may be faster for its sake.

    Args:
        seconds: of a pass, by the width of networks whose MACs grow with its square. There are such widths for each.
    """
    speeds = {
        multiple: float(
            np.mean([width**2 / took for width, took in seconds.items() if math.gcd(width, 32) == multiple])
        )
        for multiple in MULTIPLES
    }
    return next(multiple for multiple in MULTIPLES if speeds[multiple] >= WORTH * max(speeds.values()))


def _seconds(threads: int) -> dict[int, float]:
    """Of the fastest pass of each width, in turns: what else the machine does disturbs all widths alike."""
    runs = {width: _network(width, threads) for width in _WIDTHS}
    fastest = dict.fromkeys(_WIDTHS, math.inf)
    for _ in range(_PASSES):
        for width, run in runs.items():
            start = time.perf_counter()
            run()
            fastest[width] = min(fastest[width], time.perf_counter() - start)
    return fastest


def _network(width: int, threads: int) -> Callable[[], object]:
    """Passes through convolutions of so many channels in and out."""
    rng, shape = np.random.default_rng(0), [1, width, _SIZE, _SIZE]
    kernel = rng.standard_normal((width, width, 3, 3)).astype(np.float32)
    names = ["image", *(f"map{number}" for number in range(1, _LAYERS)), "output"]
    graph = helper.make_graph(
        [helper.make_node("Conv", [a, "kernel"], [b], pads=[1] * 4) for a, b in itertools.pairwise(names)],
        "widths",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = rng.standard_normal(shape).astype(np.float32)
    return lambda: session.run(None, {"image": images})
