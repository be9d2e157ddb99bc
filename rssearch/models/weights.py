"""Trained weights from a file: what it holds, and whether it fits a network.

Files are safetensors, or what ``torch.save`` wrote, read without running code that they may hold (`weights_only`). In
the latter the tensors may lie under a usual key, and their names may have a prefix, such as ``module.`` (of DDP) or
``model.`` (of Lightning).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from rssearch.config.weight_names import is_file
from rssearch.errors import InputError, cut, shown
from rssearch.storage.location import expand

__all__ = ["Shapes", "Weights", "is_file", "load_into", "parse", "read", "renamed", "shapes_of", "to_bytes"]

# Where checkpoints keep the tensors of the network, the most explicit name first.
KEYS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params")
# Training scripts keep their arguments and numbers beside the tensors; none of these runs code when it is read.
_HARMLESS = [
    argparse.Namespace,
    np.dtype,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]  # numpy has no public name for it
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "float32", "float64")),
]
# What a profiler leaves behind in a network's state (thop), which is no part of the network.
_LEFT_BEHIND = ("total_ops", "total_params")
# Heads of torchvision's networks that serve in training alone: networks are built without them.
AUXILIARY = ("aux1", "aux2", "AuxLogits", "aux_classifier")
_LISTED = 3
_MOST_COUNT = 2**16  # classes or bands of a file that a network is tried with
_COUNT = "num_batches_tracked"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Weights:
    """The tensors of a file.

    Attributes:
        name: of the file, for messages.
        sha256: of its bytes.
        tensors: by their names in the file.
        content: the file's bytes.
        beside: where the file holds other tensors by name, such as an average of the network's.
    """

    name: str
    sha256: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    content: bytes = field(repr=False)
    beside: tuple[str, ...] = ()

    @cached_property
    def is_plain(self) -> bool:
        """Whether all tensors are finite floating-point numbers, so that no network can object to their values."""
        return all(
            tensor.is_floating_point() and bool(tensor.float().isfinite().all())
            for name, tensor in self.tensors.items()
            if not name.endswith(_COUNT)
        )


def read(path: str | Path) -> Weights:
    """The weights of a file.

    Raises:
        InputError: it cannot be read, or holds no tensors by name.
    """
    place = expand(path)
    try:
        found = place.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):  # a pipe or a device has no end
            raise InputError(f"weights {cut(str(path), 300)}: cannot be read: it is no regular file")
        return _read(place, found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError as error:
        raise InputError(f"weights {cut(str(path), 300)}: cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=4)
def _read(place: Path, *_: int) -> Weights:
    """A file, read again when its time, size or inode has changed."""
    return parse(str(place), place.read_bytes())


def parse(name: str, content: bytes) -> Weights:
    """The weights that the bytes of a file hold. Raises InputError, see `read`."""
    with_name = f"weights {cut(name, 300)}"
    if name.lower().endswith(".safetensors"):
        try:
            tensors: Mapping[str, Tensor] = load_safetensors(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise InputError(f"{with_name}: is no safetensors file: {cut(str(error), 200)}") from None
        beside: tuple[str, ...] = ()
    else:
        tensors, beside = _state_dict(with_name, _unpickled(with_name, content))
    if not tensors:
        raise InputError(f"{with_name}: holds no tensors")
    for known, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            kind = "quantized" if tensor.is_quantized else "sparse" if tensor.device.type == "cpu" else "without values"
            raise InputError(f"{with_name}: the tensor {shown(known)} is {kind}; save one that is dense")
    return Weights(name, hashlib.sha256(content).hexdigest(), tensors, content, beside)


def _check_archive(with_name: str, content: bytes) -> None:
    """Refuse an archive that unpacks to more than it holds; `torch.save` compresses nothing. Raises InputError."""
    if not content.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except Exception:  # noqa: BLE001  # what is no whole archive raises many things
        raise InputError(f"{with_name}: is cut off or damaged, or no file that torch.save wrote") from None
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > len(content):
        raise InputError(
            f"{with_name}: is a compressed archive, which torch.save does not write, so it is not unpacked"
        )


def _unpickled(with_name: str, content: bytes) -> Any:
    _check_archive(with_name, content)
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a file that is refused below
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not content.startswith((b"PK", b"\x80")):
            raise InputError(f"{with_name}: is no file that torch.save wrote") from None
        raise InputError(
            f"{with_name}: holds more than tensors: {_what(error)} Reading it could run code, so it is not read. "
            "Save the tensors alone: torch.save(model.state_dict(), 'weights.pt')"
        ) from None
    except Exception as error:  # noqa: BLE001  # damaged bytes raise anything, also assertions and out of memory
        if "TorchScript" in str(error):
            raise InputError(f"{with_name}: is a TorchScript archive, which is code; save model.state_dict()") from None
        raise InputError(f"{with_name}: is cut off or damaged, or no file that torch.save wrote") from None


def _what(error: Exception) -> str:
    """The class that torch refuses to make, from its message."""
    _, found, rest = str(error).partition("GLOBAL ")
    return f"an object of {cut(rest.split(' ')[0], 100)}." if found else "an object that is no tensor."


def _state_dict(with_name: str, loaded: Any) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """The tensors of the network in what a file holds: at its top, or under one of `KEYS`; and what lies beside them.

    Raises:
        InputError: there are none, or several of `KEYS` hold some.
    """
    if _is_state_dict(loaded):
        return dict(loaded), ()
    if not isinstance(loaded, Mapping):
        raise InputError(f"{with_name}: holds {type(loaded).__name__}, no tensors by name (a state_dict)")
    here = [key for key in loaded if _is_state_dict(loaded[key])]
    known = [key for key in KEYS if key in here]
    if len(known) > 1:
        raise InputError(f"{with_name}: has a state_dict under each of {', '.join(known)}; save the one that is meant")
    if known:
        return dict(loaded[known[0]]), tuple(str(key) for key in here if key != known[0])
    keys = ", ".join(shown(key) for key in list(loaded)[:10])
    raise InputError(f"{with_name}: has no state_dict under {', '.join(KEYS)}; its keys: {keys or 'none'}")


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a network, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


class Difference(NamedTuple):
    """What of a file does not fit a network, by the network's names; those of the file for what is unexpected."""

    prefix: str
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    @property
    def total(self) -> int:
        """How many tensors do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)


def difference(found: Shapes, expected: Shapes) -> Difference:
    """Compare a file with a network, under the prefix that leaves the least to complain of.

    Outside of that prefix there may be more: a loss with weights, a teacher; see `renamed`.
    """
    return min((_compare(found, expected, prefix) for prefix in _prefixes(found, expected)), key=lambda d: d.total)


def _prefixes(found: Shapes, expected: Shapes) -> list[str]:
    """What the names in a file may have before those of the network: nothing, or what most of them begin with."""
    first = list(expected)[:_LISTED]
    ends = {name[: -len(known)] for known in first for name in found if name.endswith(f".{known}")}
    most = [end for end in ends if sum(name.startswith(end) for name in found) > len(found) / 2]
    return ["", *sorted(most)]


def _compare(found: Shapes, expected: Shapes, prefix: str) -> Difference:
    here = {name.removeprefix(prefix): shape for name, shape in found.items() if name.startswith(prefix)}
    # Files of before batch normalisation counted its batches lack the count, which changes no result.
    missing = [name for name in expected if name not in here and not name.endswith(_COUNT)]
    unexpected = [prefix + name for name in here if name not in expected and not _is_left_behind(name)]
    reshaped = [name for name, shape in here.items() if name in expected and shape != tuple(expected[name])]
    return Difference(prefix, missing, unexpected, reshaped)


def _is_left_behind(name: str) -> bool:
    return name.rpartition(".")[2] in _LEFT_BEHIND or name.partition(".")[0] in AUXILIARY


def renamed(weights: Weights, expected: Shapes, what: str, fits: Callable[[Shapes], str | None]) -> dict[str, Tensor]:
    """The tensors of a file under the names that a network has.

    Args:
        weights: of the file.
        expected: the network's tensors.
        what: it is, for messages.
        fits: called with the file's shapes where they do not fit; says what would.

    Raises:
        InputError: how many tensors are missing, unexpected or of another shape, and the first of each.
    """
    found = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    unlike = difference(found, expected)
    if unlike.total:
        said = "; ".join(_complaints(unlike, found, expected))
        would = fits(found)
        raise InputError(
            f"weights {cut(weights.name, 300)} do not fit {what}: {said}." + (f" They fit {would}." if would else "")
        )
    here = {n.removeprefix(unlike.prefix): t for n, t in weights.tensors.items() if n.startswith(unlike.prefix)}
    return {name: tensor for name, tensor in here.items() if name in expected}


def left_out(weights: Weights, expected: Shapes) -> list[str]:
    """The tensors of a fitting file that are none of the network's, such as those of a loss or of a profiler."""
    prefix = difference({name: tuple(t.shape) for name, t in weights.tensors.items()}, expected).prefix
    return [n for n in weights.tensors if not n.startswith(prefix) or n.removeprefix(prefix) not in expected]


def _complaints(unlike: Difference, found: Shapes, expected: Shapes) -> Iterator[str]:
    if unlike.missing:
        yield f"{_number(unlike.missing)} missing ({_first(unlike.missing)})"
    if unlike.unexpected:
        yield f"{_number(unlike.unexpected)} unexpected ({_first(unlike.unexpected)})"
    if unlike.reshaped:
        name = unlike.reshaped[0]
        shapes = f"{list(found[unlike.prefix + name])}, not {list(expected[name])}"
        many = "has another shape" if len(unlike.reshaped) == 1 else "have another shape"
        first = "" if len(unlike.reshaped) == 1 else "the first: "
        yield f"{_tensors(len(unlike.reshaped))} {many} ({first}{name} is {shapes})"


def _number(names: Sequence[str]) -> str:
    return f"{_tensors(len(names))} {'is' if len(names) == 1 else 'are'}"


def _tensors(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"


def _first(names: Sequence[str]) -> str:
    return shown(names[0]) if len(names) == 1 else f"the first: {shown(names[0])}"


def to_bytes(module: nn.Module) -> bytes:
    """The tensors of a module as safetensors; those that several of its layers share are written for each.

    Raises:
        InputError: its state holds more than tensors.
    """
    written: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{type(module).__name__}: {shown(name)} in its state is {type(value).__name__}, no tensor"
            )
        tensor = value.detach().contiguous().cpu()
        storage = tensor.untyped_storage().data_ptr()
        written[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return save_safetensors(written)


def load_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors that fit, see `renamed`, into a network; a count of batches that is not there stays.

    Raises:
        InputError: values that the network cannot have: integers or complex numbers for its floating-point numbers, or
            what is not finite, where its own values are.
    """
    state = model.state_dict()
    new = {name: _converted(name, tensor, state[name]) for name, tensor in tensors.items()}
    model.load_state_dict({**state, **new})


def _converted(name: str, tensor: Tensor, own: Tensor) -> Tensor:
    kind = str(tensor.dtype).removeprefix("torch.")
    if own.is_floating_point() and not tensor.is_floating_point():
        raise InputError(f"tensor {shown(name)} holds {kind}, which are no values of a floating-point weight")
    if tensor.is_complex() and not own.is_complex():
        raise InputError(f"tensor {shown(name)} holds {kind}, and the network's is {own.dtype}")
    new = tensor.to(own.dtype)
    if not bool(new.isfinite().all()) and bool(own.isfinite().all()):  # a mask of a network may hold infinities
        raise InputError(f"tensor {shown(name)} has values that are not finite (NaN, or infinite as {own.dtype})")
    return new


def num_classes(found: Shapes) -> int | None:
    """The outputs of the last layer in a file: the last matrix or convolution of it."""
    return _plausible(shape[0] for shape in reversed(list(found.values())) if len(shape) in (2, 4))


def num_bands(found: Shapes) -> int | None:
    """The inputs of the first convolution in a file."""
    return _plausible(shape[1] for shape in found.values() if len(shape) == 4)


def _plausible(counts: Iterator[int]) -> int | None:
    """The first count, unless no network is built with so many: a shape costs a file nothing."""
    first = next(counts, 0)
    return first if 0 < first <= _MOST_COUNT else None
