"""ONNX models of a bundle beside ``model.onnx``, each compared with the network in every runtime that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rssearch.bundle import checks
from rssearch.bundle.files import END_TO_END, END_TO_END_FP16, FP16, ONNX
from rssearch.bundle.preprocessing import bands_of, factors_of, normalised
from rssearch.cost import openvino_runtime
from rssearch.cost.counting import duplicate
from rssearch.cost.onnx import INPUT, OPSET, TOLERANCE
from rssearch.cost.onnx_variants import FP16_TOLERANCE, PIXELS, end_to_end, to_fp16
from rssearch.errors import InputError, cut

__all__ = ["Wanted", "compared", "made", "multiple"]

MULTILABEL = "multilabel"  # the task whose probabilities are sigmoids
STEPS = (1, 2, 4, 8, 16, 32, 64)  # what sizes may have to be multiples of


class Wanted(NamedTuple):
    """What a bundle holds beside the float32 model.

    Attributes:
        int8: a quantised model.
        fp16: a model in 16 bits.
        end_to_end: a model from raw values to probabilities.
        any_size: all of them take images of any height and width.
        opset: of the ONNX operators, in which all of them are written.
    """

    int8: bool = False
    fp16: bool = False
    end_to_end: bool = False
    any_size: bool = False
    opset: int = OPSET


def made(content: bytes, about: Mapping[str, Any], wanted: Wanted) -> dict[str, bytes]:
    """The models that are wanted, but the quantised one, which needs images; by their names.

    Args:
        content: the float32 model.
        about: what was kept with the network.
        wanted: which.
    """
    models = {ONNX: content}
    if wanted.fp16:
        models[FP16] = to_fp16(content)
    if wanted.end_to_end:
        bands, factors = bands_of(about), factors_of(about)
        for inner, outer in ((ONNX, END_TO_END), (FP16, END_TO_END_FP16)):
            if inner in models:  # values of 16 bits are scaled in float32
                models[outer] = end_to_end(
                    models[inner], *factors, bands.dtype, bands.fill, bands.nodata, several=about["task"] == MULTILABEL
                )
    return models


def compared(model: nn.Module, models: Mapping[str, bytes], images: checks.Images) -> dict[str, Any]:
    """How far each model is from the network, on the images that `checks.parity` takes.

    Args:
        model: the network, on the CPU in eval mode.
        models: by their names, as `made` gives them.
        images: of the trial.

    Returns:
        for each model its output, the largest difference of it by each runtime, and the bound that was kept; for those
        in 16 bits also that of the network in float16 arithmetic in torch, as CPUs compute in float32 otherwise.

    Raises:
        InputError: a model computes something else.
    """
    pixels, _ = checks.samples(images)
    inputs = torch.from_numpy(normalised(pixels, images.about))
    with torch.inference_mode():
        logits = model(inputs)
    found = {}
    for name, content in models.items():
        raw, half = name in (END_TO_END, END_TO_END_FP16), name in (FP16, END_TO_END_FP16)
        chances = logits.sigmoid() if images.about["task"] == MULTILABEL else logits.softmax(1)
        expected = chances if raw else logits
        # Probabilities differ by at most half as much as their logits.
        tolerance = (FP16_TOLERANCE if half else TOLERANCE) * (0.5 if raw else 1)
        bound = tolerance * max(1.0, logits.abs().max().item())
        results = _run(content, pixels if raw else inputs.numpy(), PIXELS if raw else INPUT)
        if half and not raw:
            results["torch in float16"] = _in_float16(model, inputs)
        differences = {runtime: _difference(result, expected.numpy()) for runtime, result in results.items()}
        _check(name, differences, bound)
        output = "probabilities" if raw else "logits"
        found[name] = {"output": output, "bound": bound, "largest_difference": differences}
    return found


def multiple(model: nn.Module, content: bytes, shape: tuple[int, int, int]) -> int:
    """What height and width of images have to be multiples of, tried on two sizes of each candidate.

    Args:
        model: the network for segmentation, on the CPU in eval mode.
        content: its model, of any size.
        shape: (C, H, W) that it was made for.

    Raises:
        InputError: the network takes no other sizes, or the model computes something else with them.
    """
    channels, height, width = shape
    for step in STEPS:
        sizes = [
            (_above(height, step) + step, _above(width, step) + 3 * step),
            (_above(2 * height, step), step + width // step * step),
        ]
        if all(_fits(model, content, (channels, *size)) for size in sizes):
            return step
    raise InputError(f"--any-size: the network takes images of {height}x{width} alone")


def _above(length: int, step: int) -> int:
    return -(-length // step) * step


def _fits(model: nn.Module, content: bytes, shape: tuple[int, int, int]) -> bool:
    """Whether the network takes images of a shape; its model then gives the same."""
    images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            expected = model(images)
    except RuntimeError:  # what torch raises for shapes that do not fit one another
        return False
    if expected.shape[2:] != images.shape[2:]:
        return False
    bound = TOLERANCE * max(1.0, expected.abs().max().item())
    results = _run(content, images.numpy(), INPUT)
    size = f"{shape[1]}x{shape[2]}"
    _check(f"{ONNX} with images of {size}", {n: _difference(r, expected.numpy()) for n, r in results.items()}, bound)
    return True


def _run(content: bytes, images: npt.NDArray[Any], name: str) -> dict[str, npt.NDArray[np.float32] | str]:
    """The output of a model by each runtime; a sentence where it cannot be run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found: dict[str, npt.NDArray[np.float32] | str] = {"onnxruntime": session.run(None, {name: images})[0]}
    if openvino_runtime.is_installed():
        try:
            found["openvino"] = openvino_runtime.computed(content, images)
        except Exception as error:  # noqa: BLE001 - the boundary: it has an error of its own for each operation
            found["openvino"] = f"cannot run it: {cut(' '.join(str(error).split()), 200)}"
    return found


def _in_float16(model: nn.Module, inputs: torch.Tensor) -> npt.NDArray[np.float32] | str:
    try:
        with torch.inference_mode():
            return np.asarray(duplicate(model).half()(inputs.half()).float().numpy())
    except RuntimeError as error:  # an operation that torch has no such kernel of
        return f"cannot run it: {cut(' '.join(str(error).split()), 200)}"


def _difference(result: npt.NDArray[np.float32] | str, expected: npt.NDArray[np.float32]) -> float | str:
    if isinstance(result, str):
        return result
    return float(np.abs(result - expected).max()) if result.shape == expected.shape else float("inf")


def _check(name: str, differences: Mapping[str, float | str], bound: float) -> None:
    for runtime, largest in differences.items():
        if not isinstance(largest, str) and not largest <= bound:  # NaN is refused as well
            raise InputError(
                f"{name} is not the network: its output by {runtime} differs by up to {largest:.2g}, not {bound:.2g}"
            )
