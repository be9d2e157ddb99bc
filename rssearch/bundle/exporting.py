"""From a trial of a study to a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from rssearch.bundle import checks, mlm, variants
from rssearch.bundle.card import card
from rssearch.bundle.files import (
    ARCHITECTURE,
    BF16,
    CARD,
    END_TO_END,
    END_TO_END_FP16,
    FP16,
    INT8,
    MANIFEST,
    MEASURED,
    MLM,
    ONNX,
    PREPROCESSING,
    WEIGHTS,
    encode,
    manifest,
)
from rssearch.bundle.network import build, rebuild
from rssearch.bundle.preprocessing import bands_of
from rssearch.bundle.variants import Wanted
from rssearch.config.loading import load_study
from rssearch.cost.onnx import INPUT, OUTPUT, to_onnx, to_onnx_of_any_size
from rssearch.cost.onnx_opset import lowered
from rssearch.cost.precision import FP32
from rssearch.errors import InputError
from rssearch.report.look import shade
from rssearch.report.recorded import Recorded
from rssearch.storage import scratch, uris
from rssearch.storage.artifacts import Files, Store
from rssearch.storage.location import absolute, check_folder, write_atomic
from rssearch.trial.interface import CONVERTED
from rssearch.trial.session import image_settings

EIGHT_BITS = {"low": 0.0, "high": 255.0}


def write(
    found: Recorded, row: Mapping[str, Any], out: Path, *, data_root: Path | None, check: bool, wanted: Wanted
) -> Path:
    """Write a bundle, see `rssearch.bundle.export`."""
    target = absolute(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"--out {out}: is there already; a bundle needs a new or an empty folder")
    check_folder(target.parent)
    files = _contents(found, row, data_root, check=check or wanted.int8, wanted=wanted)
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch.folder(f".{target.name}.", target.parent) as draft:
        for name, content in files.items():
            write_atomic(draft / name, content)
        rebuild(draft, allow_imports=True)  # what cannot be read back is not handed out
        draft.chmod(0o755)  # mkdtemp makes it private
        draft.rename(target)
    return target


def _contents(found: Recorded, row: Mapping[str, Any], data_root: Path | None, *, check: bool, wanted: Wanted) -> Files:
    """All files of the bundle by name."""
    stored = Store(found.storage).get("models", row["key"])
    if stored is None:
        raise InputError(
            f"trial {row['key']}: its weights are not in {found.storage}/store. At its end a study keeps those of its "
            "front; with settings.keep_models: all, `rssearch search --fresh` trains the others again and keeps them"
        )
    about = json.loads(stored["about.json"])
    about.setdefault("task", "classification")  # stores of before segmentation do not say it
    architecture = {
        "model": about["model"],
        # The trained weights that the baseline began with are not needed again, and nothing may be downloaded for them.
        "options": {name: value for name, value in about["options"].items() if name != "weights"},
        "num_classes": len(about["classes"]),
        "input_shape": about["input_shape"],
        "task": about["task"],
        "spec": json.loads(stored["spec.json"]),
    }
    files = {ARCHITECTURE: encode(architecture), WEIGHTS: stored["model.safetensors"]}
    model = build(files, Path(f"trial {row['key']}"), allow_imports=True)
    shape = tuple(about["input_shape"])
    deployed = {} if (content := stored.get(CONVERTED)) is None else {_name_of(row): content}
    if FP16 in deployed:
        wanted = wanted._replace(fp16=True)
    if INT8 in deployed:
        wanted = wanted._replace(int8=False)  # it is there already, as it was measured
    networks, sizes = _networks(model, about, shape, wanted)
    networks |= {name: lowered(content, wanted.opset) for name, content in deployed.items()}
    config = load_study(found.folder / "study.yaml")
    images = checks.Images(
        name=row.get("dataset"),
        root=Path(config.data_root) if data_root is None else data_root,
        settings=image_settings(config.settings, row),
        about=about,
        split_hash=row.get("split_hash"),
    )
    measured = _measured(model, networks, images, row, check=check, wanted=wanted)
    preprocessing = _preprocessing(about, {"opset": wanted.opset, **sizes})
    files |= {
        **networks,
        PREPROCESSING: encode(preprocessing),
        MEASURED: encode(measured),
        CARD: card(found, uris.hidden_in(row), about, measured).encode(),
    }
    described = mlm.item(found.study, row, {**about, **preprocessing}, files, any_size=wanted.any_size)
    files[MLM] = encode(described)
    return {**files, MANIFEST: manifest(files)}


def _name_of(row: Mapping[str, Any]) -> str:
    """The file of a network that was measured in fewer bits."""
    return {"fp16": FP16, "bf16": BF16}.get(row["precision"], INT8)


def _measured(
    model: nn.Module,
    networks: dict[str, bytes],
    images: checks.Images,
    row: Mapping[str, Any],
    *,
    check: bool,
    wanted: Wanted,
) -> dict[str, Any]:
    """What is measured of the ONNX models. The quantised one, which images give its ranges, is added to them."""
    measured: dict[str, Any] = {"opset": wanted.opset, "parity": checks.parity(model, networks[ONNX], images)}
    if wanted[1:] != Wanted()[1:]:
        exact = {name: content for name, content in networks.items() if name not in (INT8, BF16)}
        measured["models"] = variants.compared(model, exact, images)
    if not check:
        return measured
    source = checks.load(images)
    if wanted.int8:
        networks[INT8], measured["calibration_images"] = checks.calibrated(networks[ONNX], source)
    split = "val" if all(row.get(f"test_{name}") is None for name in ("accuracy", "miou", "map")) else "test"
    chosen = source.split(split)
    count, unit = checks.counted(chosen)
    measured |= {"split": split, "images": count, "unit": unit}
    # Those that take normalised images.
    plain = {name: content for name, content in networks.items() if name not in (END_TO_END, END_TO_END_FP16)}
    quality = {name: checks.quality(content, chosen, images) for name, content in plain.items()}
    if row.get("precision", FP32) != FP32:
        measured["recorded_in"] = f"{row['precision']} by onnxruntime"
    measured["quality"] = {"recorded": {n: row.get(f"{split}_{n}") for n in quality[ONNX]}, **quality}
    measured["latency"] = checks.latency(model, plain, tuple(images.about["input_shape"]))
    return measured


def _networks(
    model: nn.Module, about: Mapping[str, Any], shape: tuple[int, int, int], wanted: Wanted
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The ONNX models, and what is said of the sizes that they take."""
    if not wanted.any_size:
        return variants.made(lowered(to_onnx(model, shape), wanted.opset), about, wanted), {}
    if about["task"] != "segmentation":
        raise InputError("--any-size: is for networks that give each pixel a class; this one classifies images")
    content = lowered(to_onnx_of_any_size(model, shape), wanted.opset)
    multiple = variants.multiple(model, content, shape)
    return variants.made(content, about, wanted), {"sizes": {"multiple_of": multiple}}


def _preprocessing(about: Mapping[str, Any], onnx: Mapping[str, Any]) -> dict[str, Any]:
    """How a file becomes the network's input, and what its outputs are; with what is known of the ONNX models."""
    segments = about["task"] == "segmentation"
    resize = (
        "never; a whole scene is predicted in tiles that overlap"
        if segments
        else "the central square, scaled with an antialiased bilinear filter; the model card has the code"
    )
    return {
        "task": about["task"],
        "input_shape": about["input_shape"],
        **_pixels(about),
        "resize": resize,
        "mean": about["mean"],
        "std": about["std"],
        "normalize": about.get("normalize", "dataset"),  # networks of before it could be chosen
        "classes": about["classes"],
        "colours": [shade(i) for i in range(len(about["classes"]))],
        "onnx": {"input": INPUT, "output": OUTPUT, **onnx},
        **({"tiles": about["tiles"]} if segments else {}),
        **({"threshold": about["threshold"]} if "threshold" in about else {}),
    }


def _pixels(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the values of pixels are, in words for images of 8 bits."""
    if bands_of(about).pictures and not isinstance(about.get("scale"), Mapping):
        return {
            "pixels": "8 bits, upright as the orientation tag says",
            "channels": "RGB",
            "scale": "divide the 8-bit values by 255, subtract the mean, divide by the std",
            **{name: about[name] for name in ("bands", "fill") if about.get(name) is not None},
        }
    return {
        "pixels": "the values of the files in their own type; those without data are filled, then: subtract low, "
        "divide by high - low, subtract the mean, divide by the std",
        "bands": about.get("bands"),
        "dtype": about.get("dtype", "uint8"),
        "scale": about.get("scale") or {name: [end] * about["input_shape"][0] for name, end in EIGHT_BITS.items()},
        "fill": about.get("fill"),
        "nodata": about.get("nodata"),
        "file": about.get("file"),
    }
