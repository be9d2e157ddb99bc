"""cost.activations: the most activations at once, by hand, replayed, from the ONNX file, and in its runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rssearch import models
from rssearch.cost.activations import Program, traced
from rssearch.cost.onnx import INPUT, to_onnx


class Residual(nn.Module):
    """Two convolutions of 8 channels beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return torch.relu(self.norm(self.second(y)) + y)


class Looks(nn.Module):
    """A network whose code depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if y.sum().item() != 0 else y + 1


class Sliced(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        left, right = x.relu().chunk(2, 1)
        return torch.cat([left + 1, right], 1)


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.arange(4).float() + 1).sum()


@pytest.mark.parametrize(
    ("model", "shape", "elements"),
    [
        # the image of 3 x 16 beside the map of 8 x 16; then 8 x 16 in and out: the larger of the two
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)), (3, 4, 4), 256),
        # normalisation and sum write over what nobody reads: two maps, never three
        (Residual(), (3, 4, 4), 256),
        # 4 x 16, flattened where it lies, beside the 10 logits
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (4, 4, 4), 74),
        # the image is never overwritten
        (nn.ReLU(), (3, 4, 4), 96),
        # one half may not be overwritten while it is a part of the whole: 64, 32 for the half, 64 for both again
        (Sliced(), (4, 4, 4), 160),
        (Constant(), (4, 1, 1), 8),
        (Looks(), (3, 4, 4), 48 + 64),  # whose code is run on the CPU
    ],
)
def test_small_networks_as_counted_by_hand(model: nn.Module, shape: tuple[int, int, int], elements: int) -> None:
    assert traced(model, shape).peak() == elements
    assert model.training  # it is left as it was


def needed(program: Program, index: int, number: int) -> bool:
    """Whether a buffer has been written by a step, and is read by it or later."""
    written = number == 0 or any(number in step.writes for step in program.steps[: index + 1])
    read = number in program.outputs or any(number in step.reads for step in program.steps[index:])
    return written and read


def replayed(program: Program) -> int:
    """The peak by looking at every buffer at every step, from the definition."""
    most = program.sizes[0]
    for index, step in enumerate(program.steps):
        there = {n for n in range(len(program.sizes)) if needed(program, index, n)}
        after = program.steps[index + 1 :]
        later = {n for n in there if n in program.outputs or any(n in other.reads for other in after)}
        for written in step.writes:
            for place in sorted(step.over) if written in there else ():
                if place and place in there and place not in later and program.sizes[place] == program.sizes[written]:
                    there.discard(place)
                    break
        most = max(most, sum(program.sizes[n] for n in there))
    return most


NETWORKS = ("resnet20", "resnet18", "mobilenet_v2", "unet")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_what_a_replay_of_every_buffer_says(name: str) -> None:
    program = traced(models.create(name, 5, in_channels=3, input_size=32), (3, 32, 32))
    assert program.peak() == replayed(program) > 3 * 32 * 32


def kept_in_onnx(content: bytes) -> int:
    """The peak over the nodes of an ONNX file, whose sizes onnx infers itself, by the same rules."""
    model = onnx.load_from_string(content)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    for value in [*model.graph.output, *model.graph.value_info]:
        for dimension in value.type.tensor_type.shape.dim[:1]:
            dimension.ClearField("dim_param")
    del model.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    size = {v.name: torch.Size(d.dim_value or 1 for d in v.type.tensor_type.shape.dim).numel() for v in values}
    alias = {INPUT: INPUT}
    steps: list[tuple[set[str], str, bool]] = []
    for node in graph.node:
        read = {alias[name] for name in node.input if name in alias}
        if not read:
            continue
        (first, *_), output = list(read), node.output[0]
        if node.op_type in ("Reshape", "Flatten", "Identity"):
            alias[output] = first
            continue
        alias[output] = output
        steps.append((read, output, node.op_type in ("Relu", "Clip", "Add", "BatchNormalization")))
    last = {name: index for index, (read, _, _) in enumerate(steps) for name in read}
    last[alias[graph.output[0].name]] = len(steps)
    there, most = {INPUT}, size[INPUT]
    for index, (read, output, free) in enumerate(steps):
        over = [n for n in read if free and n != INPUT and last[n] == index and size[n] == size[output]]
        during = (there - {*over[:1]}) | {output}
        most = max(most, sum(size[n] for n in during))
        there = {n for n in during if last.get(n, -1) > index}
    return most


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "unet"])
def test_the_exported_file_says_the_same(name: str) -> None:
    """Another graph, from another tracer, with sizes from another library."""
    size, narrow = 32, {"base": 8} if name == "unet" else {}
    model = models.create(name, 5, in_channels=3, input_size=size, **narrow).eval()
    assert traced(model, (3, size, size)).peak() == kept_in_onnx(to_onnx(model, (3, size, size)))


def held_by_onnxruntime(content: bytes, shape: tuple[int, int, int], folder: Path) -> int:
    """The most bytes that the arena of its CPU provider holds between two operators of a pass, by its own profile.

    Without its optimisations, so that it runs the operators of the file; its first pass has no pattern of memory yet,
    and takes what the plan of its lifetimes says.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    session.run(None, {INPUT: np.zeros((1, *shape), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event["args"] for event in events if "mem_bytes_requested_in_use" in event.get("args", {})]
    held = [int(node["mem_bytes_requested_in_use"]) for node in nodes]
    return max(held) - (held[0] - int(nodes[0]["mem_requested_in_use_delta"]))  # what was there before the first


@pytest.mark.parametrize("name", [*NETWORKS, "vgg16_cifar"])
def test_the_arena_of_onnxruntime_holds_exactly_so_much(name: str, tmp_path: Path) -> None:
    """To the byte, as its profile counts what operators ask for; the image, which is not in the arena, is gone by then.

    While a convolution runs there is its workspace besides, which belongs to the runtime and is no map.
    """
    shape = (3, 32, 32)
    model = models.create(name, 5, in_channels=3, input_size=32).eval()
    assert 4 * traced(model, shape).peak() == held_by_onnxruntime(to_onnx(model, shape), shape, tmp_path)
