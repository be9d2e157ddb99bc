"""Measures one ONNX file in a process of its own: ``python -m rssearch.agent.measure THREADS PROVIDER < FILE``.

A process of its own has a peak of memory of its own, and whatever a network does to it does not end the agent.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from rssearch.agent import energy
from rssearch.agent.protocol import FEWEST

PASSES, ENOUGH_SECONDS, WARM_SECONDS, WARM_PASSES = 100, 5.0, 0.5, 3
IDLE_SECONDS, BUSY_SECONDS = 1.0, 2.0  # of a measurement of energy
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def measure(content: bytes, threads: int, provider: str) -> dict[str, Any]:
    """Time passes of one image on so many threads of their own processors; what `rssearch.agent.protocol` takes.

    Raises:
        ValueError: the network has another input than one of images.
        Exception: onnxruntime cannot run the network.
    """
    _pin(threads)
    meter = energy.find()
    idle = meter.during(lambda: time.sleep(IDLE_SECONDS)) if meter else None
    run = _prepare(content, threads, provider)
    begun = time.perf_counter()
    for warm in range(1_000_000):
        run()
        if warm + 1 >= WARM_PASSES and time.perf_counter() - begun > WARM_SECONDS:
            break
    times = _times(run)
    found = energy.per_pass(meter, idle, lambda: _busy(run)) if meter and idle else None
    return {
        "times_ms": times,
        "peak_rss_bytes": _peak_rss(),
        "energy_mj": found,
        "energy_by": meter.name if meter and found is not None else None,
        "device": _device(),
        "threads": threads,
        "provider": provider,
    }


def _pin(threads: int) -> None:
    """Stay on as many processors as there are threads, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _prepare(content: bytes, threads: int, provider: str) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(content, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise ValueError(f"onnxruntime could not start its {provider}")
    given = session.get_inputs()
    if len(given) != 1 or given[0].type not in _TYPES or len(given[0].shape) != 4:
        raise ValueError("the network must have one input, of images [B, C, H, W] in float32 or float16")
    shape = [size if isinstance(size, int) else 1 for size in (1, *given[0].shape[1:])]
    images = np.random.default_rng(0).standard_normal(shape).astype(_TYPES[given[0].type])
    feed = {given[0].name: images}
    return lambda: session.run(None, feed)


def _times(run: Callable[[], object]) -> list[float]:
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < PASSES and (len(times) < FEWEST or time.perf_counter() - begun < ENOUGH_SECONDS):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return times


def _busy(run: Callable[[], object]) -> int:
    begun, passes = time.perf_counter(), 0
    while time.perf_counter() - begun < BUSY_SECONDS:
        run()
        passes += 1
    return passes


def _peak_rss() -> int:
    """Bytes; of this process since it began, which `getrusage` does not say of a child."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _device() -> str:
    """What the machine calls itself, or else its processor."""
    model = Path("/proc/device-tree/model")
    if model.is_file():
        return model.read_text(errors="replace").strip("\0 \n")
    about = Path("/proc/cpuinfo")
    lines = about.read_text(errors="replace").splitlines() if about.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine() or "cpu")


def main() -> None:
    """Read the file, print the result as JSON; ``error`` where the network cannot be run here."""
    threads, provider = int(sys.argv[1]), sys.argv[2]
    content = sys.stdin.buffer.read()
    try:
        found = measure(content, threads, provider)
    except Exception as error:  # noqa: BLE001 - the boundary: onnxruntime refuses files by errors of many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        found = {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]}
    print(json.dumps(found, allow_nan=False))  # noqa: T201 - this is the answer


if __name__ == "__main__":
    main()
