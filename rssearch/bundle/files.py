"""The files of a bundle, and the manifest that they are checked against."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rssearch.errors import InputError, cut, shown

ARCHITECTURE, WEIGHTS, PREPROCESSING, CARD = (
    "architecture.json",
    "model.safetensors",
    "preprocessing.json",
    "model_card.md",
)
ONNX, INT8, MEASURED, MANIFEST = "model.onnx", "model.int8.onnx", "measured.json", "manifest.json"
FP16, BF16 = "model.fp16.onnx", "model.bf16.onnx"
END_TO_END, END_TO_END_FP16 = "model.end_to_end.onnx", "model.end_to_end.fp16.onnx"
MLM = "mlm.json"  # bundles of earlier versions have none
# What a bundle may hold besides, and the option of `rssearch export` that writes it.
OPTIONAL = {
    INT8: "--int8",
    FP16: "--fp16",
    BF16: "--trial KEY, of a trial in bf16",
    END_TO_END: "--end-to-end",
    END_TO_END_FP16: "--end-to-end --fp16",
}
# The number grows when a reader of the old layout would misread the new one.
FORMATS = {
    "rssearch.bundle/1": (ARCHITECTURE, WEIGHTS, PREPROCESSING, CARD),
    "rssearch.bundle/2": (ARCHITECTURE, WEIGHTS, PREPROCESSING, CARD, ONNX, MEASURED),
}
FORMAT = "rssearch.bundle/2"


def manifest(files: Mapping[str, bytes]) -> bytes:
    """What `read` checks the files against."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return encode({"format": FORMAT, "sha256": digests})


def encode(value: Any) -> bytes:
    """A plain value as the text of a file."""
    return (json.dumps(value, indent=1) + "\n").encode()


def decode(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The mapping that a JSON file of a bundle holds.

    Raises:
        ValueError: it holds something else, a number that JSON does not have, or a key twice.
    """

    def refuse(text: str) -> Any:
        raise ValueError(f"{name} has the number {text}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError(f"{name} has a key twice")
        return found

    try:
        content = json.loads(files[name].decode(), parse_constant=refuse, object_pairs_hook=once)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"{name} is no mapping")
    return content


def _content(path: Path) -> bytes:
    """A file, which is no device or pipe that would never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return path.read_bytes()


def read(folder: Path, names: Sequence[str] | None = None) -> dict[str, bytes]:
    """Files of a bundle, each of them as it was written. What was read is what is used.

    Args:
        folder: the bundle.
        names: of the files; None: all of them.

    Raises:
        InputError: the folder is no bundle, a file is missing or has been changed, or the bundle has none of that name.
    """
    place = cut(str(folder), 300)
    try:
        about = decode({MANIFEST: _content(folder / MANIFEST)}, MANIFEST)
        digests, kind = about["sha256"], about["format"]
        if not isinstance(digests, dict) or not isinstance(kind, str):
            raise ValueError("format is no text, or sha256 no mapping")
        if kind not in FORMATS:
            raise InputError(f"{place}: the bundle has format {shown(kind)}; this version reads {', '.join(FORMATS)}")
        held = (*FORMATS[kind], *(name for name in (MLM, *OPTIONAL) if name in digests))
        if absent := [name for name in names or () if name not in held]:
            raise InputError(f"{place}: the bundle (format {kind}) has no {', '.join(absent)}; {_how(absent[0])}")
        files = {name: _content(folder / name) for name in names or held}
        changed = [name for name, content in files.items() if hashlib.sha256(content).hexdigest() != digests[name]]
    except OSError as error:
        raise InputError(
            f"{place}: is no bundle, or not a whole one: {cut(str(error.filename), 300)}: {error.strerror}"
        ) from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place}: {MANIFEST} is damaged ({type(error).__name__}: {cut(str(error))})") from None
    if changed:
        raise InputError(
            f"{place}: {', '.join(changed)} changed after the export: the sha256 is not that of {MANIFEST}"
        )
    return files


def _how(name: str) -> str:
    return f"`rssearch export {OPTIONAL[name]}` writes it" if name in OPTIONAL else "export the network again"
