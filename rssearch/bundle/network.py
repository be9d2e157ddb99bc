"""The network of a bundle in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from rssearch import models, pruning
from rssearch.bundle.files import ARCHITECTURE, WEIGHTS, decode, read
from rssearch.errors import InputError, cut, shown
from rssearch.models.resnet_cifar import IndexShortcut

_LARGEST_IMAGE = 1 << 15  # pixels of a side


def rebuild(folder: Path, *, allow_imports: bool = False) -> nn.Module:
    """The network of a bundle, see `rssearch.bundle.load`."""
    return build(read(folder), folder, allow_imports=allow_imports)


def build(files: Mapping[str, bytes], where: Path, *, allow_imports: bool = False) -> nn.Module:
    """The network that the architecture and the weights describe, on the CPU and in eval mode.

    Nothing is taken on trust: the network takes memory only when the weights in the file are known to fit it, and has
    to give the logits that it says.

    Args:
        files: of a bundle.
        where: it is, for messages.
        allow_imports: import the module of a network that is named as ``MODULE:NAME``.

    Raises:
        InputError: they describe no network, or one whose code would have to be imported.
    """
    try:
        about = _architecture(decode(files, ARCHITECTURE))
        if models.is_own(about["model"]):
            if not allow_imports:
                raise InputError(
                    f"{where}: the network is {shown(about['model'])}, code that is not in the bundle: importing it "
                    "runs it. If you trust it: rssearch.bundle.load(..., allow_imports=True)"
                )
            model = _own(about, load_tensors(files[WEIGHTS]))
        else:
            model = _registered(about, load_tensors(files[WEIGHTS]))
    except Exception as error:  # the boundary: whatever is wrong with a bundle shows in some library's error
        if isinstance(error, InputError) and str(error).startswith(f"{where}: "):
            raise
        why = cut(" ".join(str(error).split()) or type(error).__name__, 500)
        raise InputError(f"{where}: the bundle does not describe a network of this version: {why}") from error
    return model.eval()


def _architecture(about: Any) -> dict[str, Any]:
    """The content of architecture.json, after a check of its types."""
    shape = about["input_shape"]
    if not isinstance(about["model"], str) or not isinstance(about["options"], dict):
        raise InputError(f"{ARCHITECTURE}: model and options are no text and no mapping")
    if about["options"].get("weights") is not None:
        raise InputError(f"{ARCHITECTURE}: options.weights would download what a bundle has to hold itself")
    numbers = [about["num_classes"], *shape]
    if len(shape) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
        raise InputError(f"{ARCHITECTURE}: num_classes and input_shape are {shown(numbers)}, no whole numbers above 0")
    if max(shape[1:]) > _LARGEST_IMAGE:
        raise InputError(f"{ARCHITECTURE}: images of {shape[1]} x {shape[2]} pixels are not read")
    return dict(about)


def _created(about: Mapping[str, Any], create: Callable[..., nn.Module] = models.create) -> nn.Module:
    channels, size, _ = about["input_shape"]
    model = create(about["model"], about["num_classes"], in_channels=channels, input_size=size, **about["options"])
    return pruning.apply_spec(model, about["spec"])


def _own(about: Mapping[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """A network by the user's own code, which may need memory while it is built."""
    model = _created(about)
    model.load_state_dict(weights)
    return model


def _registered(about: Mapping[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """A network of the registry: its shapes first, which take no memory, then the weights in their places."""
    largest = max((size for tensor in weights.values() for size in tensor.shape), default=0)
    if max(about["num_classes"], about["input_shape"][0]) > largest:  # neither is pruned
        raise InputError(f"{WEIGHTS} has no layer for {about['num_classes']} classes or so many bands")
    model = _created(about, models.without_numbers)
    for name, tensor in model.state_dict().items():
        if name in weights and weights[name].dtype != tensor.dtype:
            raise InputError(f"{WEIGHTS}: {name} is {weights[name].dtype}, not {tensor.dtype}")
    model.load_state_dict(weights, assign=True)
    if any(tensor.is_meta for tensor in _tensors(model)):  # which are no weights, such as a fixed filter
        _check_logits(model.eval(), about)
        return _own(about, weights)
    for name, layer in model.named_modules():
        if isinstance(layer, IndexShortcut) and not bool(
            ((layer.index >= 0) & (layer.index <= layer.in_channels)).all()
        ):
            raise InputError(f"{WEIGHTS}: {name}.index names channels that there are not")
    _check_logits(model.eval(), about)
    return model


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """All tensors that a network holds: parameters, buffers, and plain attributes of its layers."""
    yield from model.parameters()
    yield from model.buffers()
    for layer in model.modules():
        yield from (value for value in vars(layer).values() if isinstance(value, Tensor))


def _check_logits(model: nn.Module, about: Mapping[str, Any]) -> None:
    """Follow the shapes through a network, without computing."""
    state = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    with torch.device("meta"), torch.no_grad():
        logits = torch.func.functional_call(model, state, (torch.empty(1, *about["input_shape"]),))
    if logits.ndim not in (2, 4) or logits.shape[1] != about["num_classes"]:
        raise InputError(f"it gives logits {list(logits.shape)}, not {about['num_classes']} classes")
