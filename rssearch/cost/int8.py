"""A network in 8 bits: static quantisation of its ONNX model, after training.

onnxruntime rounds weights to the nearest and measures the ranges of the maps. Weights are then rounded once more, so
that the outputs of their layer change least (`rssearch.cost.weight_rounding`), and biases take back what is left of the
change in the mean (`rssearch.cost.bias_correction`). A network that has learned to be rounded to the nearest stays.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rssearch.cost.bias_correction import mean_shifts
from rssearch.cost.int8_layers import dequantised, layers_of
from rssearch.cost.onnx import INPUT, quiet
from rssearch.cost.weight_rounding import rounded_by_output
from rssearch.storage import scratch

__all__ = ["CALIBRATIONS", "to_int8"]

CALIBRATIONS = ("minmax", "percentile", "entropy")  # how a range follows from values


def to_int8(
    content: bytes, calibration: Iterable[Tensor], ways: Sequence[str] = CALIBRATIONS[:1], *, learned: bool = False
) -> dict[str, bytes]:
    """Quantise weights and activations to 8 bits (static; QDQ nodes; a scale for each channel of the weights).

    A transposed convolution in groups stays in float32: onnxruntime cannot round it.
    Activations are unsigned, over the range that the calibration images give them. Weights use 7 of their 8 bits: x86
    processors without VNNI add two products in 16 bits, which 8 bits each would overflow.

    Args:
        content: the float32 model, as `rssearch.cost.onnx.to_onnx` writes it.
        calibration: batches float32 [B, C, H, W] of training images, normalised, not augmented.
        ways: of `CALIBRATIONS`. ``minmax``: the range is that of all values; ``percentile``: of all but one in 100,000;
            ``entropy``: the one whose quantised distribution is nearest to the real one.
        learned: weights and biases have been trained while they were rounded to the nearest, and are so here.

    Returns:
        An ONNX model for each way, with the same input and output.
    """
    batches = list(calibration)
    made = {way: _static(content, batches, way) for way in ways}
    return made if learned else _adjusted(content, made, batches)


def _static(content: bytes, batches: list[Tensor], way: str) -> bytes:
    import onnx
    from onnxruntime import quantization

    method = quantization.CalibrationMethod
    methods = {"minmax": method.MinMax, "percentile": method.Percentile, "entropy": method.Entropy}

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = ({INPUT: images.numpy()} for images in batches)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    model = onnx.load_from_string(content)
    with scratch.folder("rssearch-int8-") as folder, quiet(), contextlib.redirect_stdout(io.StringIO()):
        target = folder / "int8.onnx"
        quantization.quantize_static(
            model,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=methods[way],
            nodes_to_exclude=[node.name for node in model.graph.node if _is_transposed_in_groups(node)],
        )
        return target.read_bytes()


def _is_transposed_in_groups(node: Any) -> bool:
    return node.op_type == "ConvTranspose" and any(each.name == "group" and each.i > 1 for each in node.attribute)


def _adjusted(content: bytes, made: dict[str, bytes], batches: list[Tensor]) -> dict[str, bytes]:
    """Round weights by the outputs of their layers, and correct biases.

    Weights, their scales and the mean shifts do not depend on the way of calibration; the scales of biases do.
    """
    import onnx

    whole = onnx.load_from_string(content)
    models = {way: onnx.load_from_string(each) for way, each in made.items()}
    layers = layers_of(whole, next(iter(models.values())))
    weights = {layer.rounded_name: layer.rounded for layer in layers} | rounded_by_output(whole, layers, batches)
    errors = {
        layer.node.name: dequantised(weights[layer.rounded_name], layer.scale, layer.axis) - layer.weight
        for layer in layers
    }
    shifts = mean_shifts(whole, layers, errors, batches)
    for model in models.values():
        constants = {each.name: each for each in model.graph.initializer}

        def put(name: str, values: np.ndarray[Any, Any], constants: dict[str, Any] = constants) -> None:
            constants[name].CopyFrom(onnx.numpy_helper.from_array(values, name))

        for layer in layers_of(whole, model):
            put(layer.rounded_name, weights[layer.rounded_name])
            if layer.bias is not None:
                steps = np.rint(shifts[layer.node.name] / layer.bias.scale)
                corrected = layer.bias.rounded.astype(np.float64) - steps
                limits = np.iinfo(layer.bias.rounded.dtype)
                put(layer.bias.name, np.clip(corrected, limits.min, limits.max).astype(layer.bias.rounded.dtype))
    return {way: bytes(model.SerializeToString()) for way, model in models.items()}
