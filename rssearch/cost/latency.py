"""How long a network takes for a batch of images: measured on the machine that it runs on.

A pass is timed from the call until its result is there, on a GPU until the GPU is done. Networks compute in their own
precision (onnxruntime and OpenVINO in float32), in eval mode, on noise.
"""

from __future__ import annotations

import copy
import logging
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rssearch.config.settings import Runtime
from rssearch.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

_log = logging.getLogger(__name__)

WARMUP, PASSES, FEWEST, SECONDS = 10, 100, 20, 5.0  # passes: PASSES, but after SECONDS no more than FEWEST
Pass = Callable[[], object]


class NotMeasured(RuntimeError):  # noqa: N818 - it is a state
    """A runtime cannot run the network here, for the reason that the message gives."""


@dataclass(frozen=True)
class Latency:
    """The time of a pass.

    Attributes:
        median_ms: milliseconds of a pass over the whole batch.
        iqr_ms: from the first to the third quartile: what the machine's other work adds shows here.
        p95_ms: 95 of 100 passes take no longer.
        fastest_ms: of all passes; what other work on the machine disturbs least, for comparisons on a busy one.
        passes: how many were timed.
        runtime: ``eager``, ``compile``, ``onnxruntime`` or ``openvino``.
        batch: images of a pass.
        device: name of the GPU or the CPU.
        threads: of the CPU.
    """

    median_ms: float
    iqr_ms: float
    p95_ms: float
    fastest_ms: float
    passes: int
    runtime: Runtime
    batch: int
    device: str
    threads: int

    def metrics(self) -> dict[str, Any]:
        """What a trial reports, with the names of `metric`."""
        values = {"ms": self.median_ms, "iqr_ms": self.iqr_ms, "p95_ms": self.p95_ms, "passes": self.passes}
        named = {metric(self.runtime, self.batch, what): value for what, value in values.items()}
        return named | {"latency_device": self.device, "latency_threads": self.threads}


def metric(runtime: Runtime, batch: int, what: str = "ms") -> str:
    """The name of a metric: ``latency_ms``, or ``latency_ms_onnxruntime_b32`` where it is not eager with one image."""
    return f"latency_{what}" + ("" if (runtime, batch) == ("eager", 1) else f"_{runtime}_b{batch}")


def measure(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    *,
    runtime: Runtime = "eager",
    batch: int = 1,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    alone: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Latency:
    """Time passes of a network, after a warm-up.

    Args:
        model: from [B, C, H, W] to its output; it is left as it is, wherever it is.
        input_shape: (C, H, W).
        runtime: ``eager``; ``compile``: `torch.compile` with its default backend; ``onnxruntime``, on a GPU by its
            CUDA provider, with the images in the GPU's memory; ``openvino``, on the CPU.
        batch: B.
        device: where it runs.
        threads: of the CPU; None: torch's present number.
        alone: entered for the timing, not for a compilation before it; see `rssearch.trial.turns.measuring`.

    Raises:
        InputError: there is no such runtime.
        NotMeasured: the runtime cannot run the network here.
    """
    import numpy as np
    import torch

    if runtime not in get_args(Runtime):
        raise unknown("runtime", runtime, get_args(Runtime))
    place = torch.device(device)
    with torch_threads(threads) as used, torch.inference_mode():
        run = _prepare(model, (batch, *input_shape), runtime, place, used)
        with alone():
            times = _times(run, place)
    low, median, high, late = map(float, np.percentile(times, [25, 50, 75, 95]))
    return Latency(
        median_ms=median,
        iqr_ms=high - low,
        p95_ms=late,
        fastest_ms=min(times),
        passes=len(times),
        runtime=runtime,
        batch=batch,
        device=device_name(place),
        threads=used,
    )


def measure_all(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    wanted: Iterable[tuple[Runtime, int]],
    *,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    alone: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Any]:
    """The metrics of several runtimes and batches; None, with a warning, for the time of one that cannot run."""
    found: dict[str, Any] = {}
    how: dict[str, Any] = {"device": device, "threads": threads, "alone": alone}
    for runtime, batch in wanted:
        try:
            found |= measure(model, input_shape, runtime=runtime, batch=batch, **how).metrics()
        except NotMeasured as error:
            found[metric(runtime, batch)] = None
            _log.warning("%s is not measured: %s", metric(runtime, batch), error)
    return found


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the machine's CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    about = Path("/proc/cpuinfo")
    lines = about.read_text(errors="replace").splitlines() if about.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine() or "cpu")


@contextmanager
def torch_threads(number: int | None) -> Iterator[int]:
    """So many threads of torch."""
    import torch

    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _prepare(
    model: nn.Module, shape: tuple[int, int, int, int], runtime: Runtime, device: torch.device, threads: int
) -> Pass:
    """What runs one pass; it has run once. Raises NotMeasured."""
    import torch

    twin = copy.deepcopy(model).to(device).eval()
    dtype = next((p.dtype for p in twin.parameters() if p.is_floating_point()), torch.float32)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    match runtime:
        case "eager":
            twin(images)
            return lambda: twin(images)
        case "compile":
            return _compiled(twin, images)
        case "onnxruntime":
            return _onnxruntime(twin, images.float(), threads)
        case "openvino":
            return _openvino(twin, images.float(), threads)


def _compiled(model: nn.Module, images: torch.Tensor) -> Pass:
    import torch
    from torch._inductor import config

    from rssearch.cost.onnx import OnnxNetwork

    if isinstance(model, OnnxNetwork):
        raise NotMeasured("torch.compile does not take an ONNX model")
    # What a worker compiled for earlier networks of the same class would count against a limit of recompilations,
    # beyond which torch continues in eager mode without an error.
    torch.compiler.reset()
    compiled = torch.compile(model, dynamic=False)
    try:
        with config.patch(compile_threads=1):  # no processes that stay behind
            compiled(images)
    except Exception as error:  # a compiler may fail in any way
        raise NotMeasured(f"torch.compile failed: {_first_line(error)}") from error
    return lambda: compiled(images)


def _onnxruntime(model: nn.Module, images: torch.Tensor, threads: int) -> Pass:
    import onnxruntime
    import torch

    from rssearch.cost.onnx import INPUT, OUTPUT, OnnxNetwork, to_onnx

    cuda = images.device.type == "cuda"
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise NotMeasured(f"the installed onnxruntime has no {provider}; onnxruntime-gpu brings it")
    channels, height, width = images.shape[1:]
    try:
        with torch.inference_mode(False):
            content = model.content if isinstance(model, OnnxNetwork) else to_onnx(model, (channels, height, width))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        place = (images.device.type, images.device.index or 0)
        chosen = (provider, {"device_id": place[1]} if cuda else {})
        session = onnxruntime.InferenceSession(content, options, providers=[chosen])
        binding = session.io_binding()
        binding.bind_input(INPUT, *place, "float32", tuple(images.shape), images.data_ptr())
        binding.bind_output(OUTPUT, *place)
        session.run_with_iobinding(binding)
    except Exception as error:  # so may an exporter
        raise NotMeasured(f"onnxruntime cannot run the network: {_first_line(error)}") from error
    if session.get_providers()[0] != provider:
        raise NotMeasured(f"onnxruntime could not start its {provider}")
    # The binding keeps an address, not the tensor: `images` must live as long as what is returned.
    return lambda: (session.run_with_iobinding(binding), images)


def _openvino(model: nn.Module, images: torch.Tensor, threads: int) -> Pass:
    import torch

    from rssearch.cost import openvino_runtime
    from rssearch.cost.onnx import to_onnx

    if images.device.type != "cpu":
        raise NotMeasured(f"OpenVINO is measured on the CPU, not on {images.device.type}")
    if not openvino_runtime.is_installed():
        raise NotMeasured("OpenVINO is not installed; the extra openvino brings it")
    channels, height, width = images.shape[1:]
    try:
        with torch.inference_mode(False):
            content = to_onnx(model, (channels, height, width))
        return openvino_runtime.passes(content, images.numpy(), threads)
    except Exception as error:  # so may an exporter
        raise NotMeasured(f"OpenVINO cannot run the network: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")[:300]


def _times(run: Pass, device: torch.device) -> list[float]:
    """Milliseconds of each pass after the warm-up."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    begun = time.perf_counter()
    for index in range(WARMUP):
        run()
        wait()
        if index >= 1 and time.perf_counter() - begun > SECONDS / 2:
            break
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < PASSES and (len(times) < FEWEST or time.perf_counter() - begun < SECONDS):
        start = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - start))
    return times
