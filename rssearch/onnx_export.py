"""A network as an ONNX file, with a batch of any size."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import nn

OPSET = 20  # what torch's exporter writes without conversion; onnxruntime reads it since 1.17
INPUT, OUTPUT = "image", "logits"


def to_onnx(model: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """Export a network in eval mode.

    Args:
        model: from float32 [B, C, H, W] to one tensor [B, ...]; it is left as it is, wherever it is.
        input_shape: (C, H, W), fixed in the file; B is free.

    Returns:
        The ONNX model, weights included: input ``image``, output ``logits``.
    """
    twin = copy.deepcopy(model).float().cpu().eval()
    images = torch.zeros(2, *input_shape)  # a batch of one would be taken for a constant
    with _quiet():
        program = torch.onnx.export(
            twin,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's messages about itself; its errors are raised."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
