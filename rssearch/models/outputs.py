"""Which entry of a network's output is the logits, and what a network gives for an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rssearch.errors import InputError, cut, shown

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Pick:
    """A forward hook that takes one entry of what a network gives.

    As a hook it leaves the names of the network's layers and tensors as they are, so that files of its weights fit.

    Attributes:
        entry: a key of a dictionary, a name of a named tuple or an object, or a position in a tuple or list.
    """

    entry: str | int

    def __call__(self, module: nn.Module, _: Any, output: Any) -> Any:
        """The entry. Raises InputError if there is none of that name or position."""
        if isinstance(output, Tensor):  # one whose other outputs exist in training only
            return output
        try:
            if isinstance(output, Mapping) or isinstance(self.entry, int):
                return output[self.entry]
            return getattr(output, self.entry)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise InputError(
                f"{type(module).__name__} gives {described(output)}, which has no entry {self.entry!r} for the logits"
            ) from None


def pick(model: nn.Module, entry: str | int) -> nn.Module:
    """Let a network give one entry of its output, in place; see `Pick`."""
    model.register_forward_hook(Pick(entry))
    return model


def described(output: Any) -> str:
    """What a network gives, in words."""
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with {', '.join(shown(key) for key in output) or 'nothing in it'}"
    fields = getattr(output, "_fields", None)
    if fields:
        return f"a {type(output).__name__} with {', '.join(fields)}"
    if isinstance(output, Sequence) and not isinstance(output, str):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def check(name: str, build: Callable[[], nn.Module], shape: Shape, classes: int, *, maps: bool) -> None:
    """Refuse a network that does not give logits for images of a size, before anything is trained.

    It is followed by shapes alone where its code allows that, and runs once on an empty image where not.

    Args:
        name: of the network, for messages.
        build: makes it.
        shape: (C, H, W) of an image.
        classes: how many it is built for.
        maps: whether it has to give a map of logits, for segmentation, and not a vector.

    Raises:
        InputError: it does not run on such images, or gives something else.
    """
    images = "x".join(map(str, shape))
    output = _output(name, build, shape)
    if not isinstance(output, Tensor):
        raise InputError(
            f"{name} gives {described(output)}, not one tensor of logits. Say which entry is the logits: "
            f"NAME = rssearch.models.Entry(BUILD, logits={_example(output)!r}) in its module, and the network is "
            "MODULE:NAME"
        )
    trained = _in_training(build, shape)
    if trained is not None and not isinstance(trained, Tensor):
        raise InputError(
            f"{name} gives {described(trained)} in training mode, not one tensor of logits; "
            "Entry(BUILD, logits=...) says which entry they are"
        )
    expected = (1, classes, *shape[1:]) if maps else (1, classes)
    if tuple(output.shape) != expected:
        raise InputError(
            f"{name} gives {_axes(output.shape)} for an image of {images} and {classes} classes, not {_axes(expected)}"
        )


def _output(name: str, build: Callable[[], nn.Module], shape: Shape) -> Any:
    try:
        with torch.device("meta"), torch.no_grad():
            return build().eval()(torch.empty(1, *shape))
    except Exception:  # noqa: BLE001  # its code may need values, which only a pass with numbers has
        model = build().eval()
    try:
        with torch.no_grad():
            return model(torch.zeros(1, *shape))
    except InputError:
        raise
    except Exception as error:  # the network's own code may raise anything
        why = cut(" ".join(str(error).split()) or type(error).__name__, 300)
        raise InputError(f"{name} does not run on an image of {'x'.join(map(str, shape))}: {why}") from error


def _in_training(build: Callable[[], nn.Module], shape: Shape) -> Any:
    """What a network gives in training mode, by shapes alone; None where its code needs more."""
    with suppress(Exception), torch.device("meta"), torch.no_grad():
        return build().train()(torch.empty(2, *shape))
    return None


def _example(output: Any) -> str | int:
    """An entry that could be the logits."""
    keys = list(output) if isinstance(output, Mapping) else list(getattr(output, "_fields", ()))
    return next((key for key in ("out", "logits", *keys) if key in keys), 0)


def _axes(shape: Sequence[int]) -> str:
    return f"logits [{', '.join(map(str, shape))}]"
