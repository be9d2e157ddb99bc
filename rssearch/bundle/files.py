"""The files of a bundle, and the manifest that they are checked against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rssearch.errors import InputError

ARCHITECTURE, WEIGHTS, PREPROCESSING, CARD = (
    "architecture.json",
    "model.safetensors",
    "preprocessing.json",
    "model_card.md",
)
ONNX, INT8, MEASURED, MANIFEST = "model.onnx", "model.int8.onnx", "measured.json", "manifest.json"
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


def read(folder: Path, names: Sequence[str] | None = None) -> dict[str, bytes]:
    """Files of a bundle, each of them as it was written. What was read is what is used.

    Args:
        folder: the bundle.
        names: of the files; None: all of them.

    Raises:
        InputError: the folder is no bundle, a file is missing or has been changed, or the bundle has none of that name.
    """
    try:
        about = json.loads((folder / MANIFEST).read_bytes())
        digests, kind = about["sha256"], about["format"]
        if kind not in FORMATS:
            raise InputError(f"{folder}: the bundle has format {kind!r}; this version reads {', '.join(FORMATS)}")
        held = (*FORMATS[kind], *(name for name in (INT8,) if name in digests))
        if absent := [name for name in names or () if name not in held]:
            raise InputError(f"{folder}: the bundle (format {kind}) has no {', '.join(absent)}; {_how(absent[0])}")
        files = {name: (folder / name).read_bytes() for name in names or held}
        changed = [name for name, content in files.items() if hashlib.sha256(content).hexdigest() != digests[name]]
    except OSError as error:
        raise InputError(f"{folder}: is no bundle, or not a whole one: {error.filename}: {error.strerror}") from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: {MANIFEST} is damaged ({type(error).__name__}: {error})") from None
    if changed:
        raise InputError(
            f"{folder}: {', '.join(changed)} changed after the export: the sha256 is not that of {MANIFEST}"
        )
    return files


def _how(name: str) -> str:
    return "`rssearch export --int8` writes it" if name == INT8 else "export the network again"
