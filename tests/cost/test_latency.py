"""rssearch.cost.latency: what is timed, under which names, and what becomes of a runtime that cannot run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rssearch.cost import latency, openvino_runtime
from rssearch.cost.latency import Latency, NotMeasured, measure, measure_all, metric
from rssearch.cost.onnx import to_onnx
from rssearch.errors import InputError

SHAPE = (3, 8, 8)


class Sleeper(nn.Module):
    """Takes a given time, and notes what it was given."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.seen = seconds, []  # type: ignore[var-annotated]

    def __deepcopy__(self, memo: object) -> Sleeper:
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((tuple(x.shape), self.training, torch.get_num_threads(), torch.is_inference_mode_enabled()))
        time.sleep(self.seconds)
        return x


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def test_names() -> None:
    assert metric("eager", 1) == "latency_ms"
    assert metric("eager", 1, "p95_ms") == "latency_p95_ms"
    assert metric("eager", 32) == "latency_ms_eager_b32"
    assert metric("onnxruntime", 1) == "latency_ms_onnxruntime_b1"
    found = Latency(2.0, 0.5, 3.0, 1.5, 40, "onnxruntime", 32, "a CPU", 2).metrics()
    assert found == {
        "latency_ms_onnxruntime_b32": 2.0,
        "latency_iqr_ms_onnxruntime_b32": 0.5,
        "latency_p95_ms_onnxruntime_b32": 3.0,
        "latency_passes_onnxruntime_b32": 40,
        "latency_device": "a CPU",
        "latency_threads": 2,
    }


def test_passes_are_warm_in_eval_mode_and_all_alike() -> None:
    model, threads = Sleeper(0.002).train(), torch.get_num_threads()
    entered: list[int] = []

    @contextmanager
    def alone() -> Iterator[None]:
        entered.append(len(model.seen))
        yield

    found = measure(model, SHAPE, batch=3, threads=2, alone=alone)
    assert set(model.seen) == {((3, *SHAPE), False, 2, True)}
    assert len(model.seen) == 1 + latency.WARMUP + latency.PASSES
    assert entered == [1]  # the first pass, which may compile, needs nobody to wait
    assert found.passes == latency.PASSES
    assert 2 <= found.fastest_ms <= found.median_ms <= found.p95_ms
    assert found.iqr_ms >= 0
    assert (found.runtime, found.batch, found.threads) == ("eager", 3, 2)
    assert torch.get_num_threads() == threads


def test_slow_passes_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    assert measure(Sleeper(0.01), SHAPE).passes == latency.FEWEST


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_is_left_as_it_is(runtime: latency.Runtime, batch: int) -> None:
    model = small().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure(model, SHAPE, runtime=runtime, batch=batch, threads=1)
    assert found.median_ms > 0
    assert (found.runtime, found.batch, found.threads) == (runtime, batch, 1)
    assert found.device == latency.device_name(torch.device("cpu")) != ""
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_have_the_precision_of_the_weights(dtype: torch.dtype) -> None:
    assert measure(small().to(dtype), SHAPE).median_ms > 0


def test_openvino_is_named_where_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_runtime, "is_installed", lambda: False)
    with pytest.raises(NotMeasured, match="the extra openvino brings it"):
        measure(small(), SHAPE, runtime="openvino")


def test_a_pass_of_openvino_computes_the_network() -> None:
    model, images = small().eval(), torch.randn(2, *SHAPE)
    run: Any = openvino_runtime.passes(to_onnx(model, SHAPE), images.numpy(), 1)
    with torch.inference_mode():
        assert torch.allclose(torch.from_numpy(next(iter(run().values()))), model(images), atol=1e-5)


@pytest.mark.slow
def test_compiled() -> None:
    found = measure(small(), SHAPE, runtime="compile")
    assert found.median_ms > 0
    assert found.runtime == "compile"


def test_a_network_that_no_compiler_takes_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(model: nn.Module, **_: object) -> nn.Module:
        class Broken(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise RuntimeError("No working C++ compiler found\nand more lines")

        return Broken()

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(NotMeasured, match=r"^torch.compile failed: RuntimeError: No working C\+\+ compiler found$"):
        measure(small(), SHAPE, runtime="compile")
    with caplog.at_level(logging.WARNING, logger="rssearch"):
        found = measure_all(small(), SHAPE, [("compile", 1), ("eager", 1)])
    assert found["latency_ms_compile_b1"] is None
    assert found["latency_ms"] > 0
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("latency_ms_compile_b1 is not measured: torch.compile failed")


def test_a_network_that_cannot_be_exported_is_named() -> None:
    class Unexportable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort().values if x.sum().item() > 1e9 else x * float(x.mean().item())

    with pytest.raises(NotMeasured, match=r"^onnxruntime cannot run the network: "):
        measure(Unexportable(), SHAPE, runtime="onnxruntime")


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown runtime 'onyx'. Known: compile, eager, onnxruntime"):
        measure(small(), SHAPE, runtime="onyx")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", ["eager", "compile"])
def test_on_a_gpu(runtime: latency.Runtime) -> None:
    found = measure(small(), SHAPE, runtime=runtime, batch=2, device="cuda")
    assert found.device == torch.cuda.get_device_name()
    assert found.median_ms > 0


@pytest.mark.gpu
def test_onnxruntime_without_its_cuda_provider_gives_no_number_of_the_cpu() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert measure(small(), SHAPE, runtime="onnxruntime", device="cuda").median_ms > 0
        return
    with pytest.raises(NotMeasured, match="CUDAExecutionProvider"):
        measure(small(), SHAPE, runtime="onnxruntime", device="cuda")
