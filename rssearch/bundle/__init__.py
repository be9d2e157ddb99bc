"""A deploy bundle: one trained, pruned network in a folder that needs neither the study nor its storage.

    architecture.json    the network's name, options and shapes, and the spec of the cut
    model.safetensors    the weights
    model.onnx           both as one file, for onnxruntime and others; a batch of any size
    model.int8.onnx      the same in 8 bits, where it was asked for; model.fp16.onnx in 16
    model.end_to_end.onnx    the same from raw pixels to probabilities, where it was asked for
    preprocessing.json   what turns an image into the network's input, and the names of its outputs
    measured.json        how near the ONNX models are to the network, and what was measured of them at the export
    mlm.json             the bundle as a STAC item of the Machine Learning Model extension, for catalogues
    model_card.md        where the network comes from, what it reaches and what it costs
    manifest.json        the format, and sha256 of each of them

Nothing in it is a pickle, and every file is checked before it is used. ``python -m rssearch.bundle DIR PATH...``
predicts with onnxruntime, NumPy and Pillow alone, by `rssearch.bundle.predict`. This package imports torch only where
`load` or `export` is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssearch.bundle.files import FORMAT

if TYPE_CHECKING:
    from torch import nn

    from rssearch.report.recorded import Recorded

__all__ = ["FORMAT", "export", "load"]


def load(folder: str | Path, *, allow_imports: bool = False) -> nn.Module:
    """Rebuild the network of a bundle on the CPU, in eval mode. Bundles of format 1, without ONNX, are read as well.

    A bundle is data: nothing that it names is imported or downloaded, and it cannot take more memory than its own
    weights do. Only the architectures of this package and of torchvision are built.

    Args:
        folder: a bundle, as `export` writes it.
        allow_imports: import the module of a user-defined network (``MODULE:NAME``), which runs whatever code a module
            of that name has on this machine: only for a bundle that you trust.

    Returns:
        The network: float32 [B, C, H, W], normalised as ``preprocessing.json`` says, to logits [B, classes], or
        [B, classes, H, W] for segmentation.

    Raises:
        InputError: the folder is no bundle, a file of it is missing, damaged or has been changed, or the network is one
            that would have to be imported.
    """
    from rssearch.bundle.network import rebuild
    from rssearch.storage.location import expand

    return rebuild(expand(folder), allow_imports=allow_imports)


def export(
    found: Recorded,
    row: Mapping[str, Any],
    out: Path,
    *,
    data_root: Path | None = None,
    check: bool = False,
    int8: bool = False,
    fp16: bool = False,
    end_to_end: bool = False,
    any_size: bool = False,
    opset: int | None = None,
) -> Path:
    """Write the network of a trial as a bundle. The folder appears whole or not at all.

    The ONNX model is compared with the network on a few images of the study's dataset; on noise where they are not
    found.

    Args:
        found: the study.
        row: the trial, see `rssearch.report.recorded.choose`.
        out: the folder, which must be new or empty.
        data_root: where the datasets are; None for where the study had them.
        check: measure the ONNX model on the images that the study's own number is of: those of the test split; of the
            validation split for a trial whose test images were never read.
        int8: write a quantised model as well, calibrated on training images; this includes `check`.
        fp16: write a model that computes in float16 as well.
        end_to_end: write a model that takes raw pixels and gives probabilities as well.
        any_size: the models take images of any height and width; for segmentation.
        opset: of the ONNX operators, 17 to 20; None: the newest, as torch writes it.

    Returns:
        The folder, absolute.

    Raises:
        InputError: the folder is in use, the trial's weights are not in the store, the ONNX model computes something
            else than the network or cannot be written in the opset, or the study's images are needed and not there.
    """
    from rssearch.bundle.exporting import write
    from rssearch.bundle.variants import Wanted
    from rssearch.cost.onnx_opset import OPSETS
    from rssearch.errors import InputError

    opset = OPSETS[-1] if opset is None else opset
    if opset not in OPSETS:
        raise InputError(f"--opset {opset}: must be one of {', '.join(map(str, OPSETS))}")
    wanted = Wanted(int8=int8, fp16=fp16, end_to_end=end_to_end, any_size=any_size, opset=opset)
    return write(found, row, out, data_root=data_root, check=check, wanted=wanted)
