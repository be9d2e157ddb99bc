"""Squeeze-and-excitation that is there for the training only (channel attention pruning, CAP, of RemoteTrimmer).

``insert`` puts a module behind the batch normalisations of a network, ``mean_attention`` measures what the trained
modules say of each channel, and ``fold`` multiplies that into the normalisation and takes the modules away. What is
left has the structure of the original network, and scales that say how much its channels matter.

A batch normalisation is replaced by a module that holds it, so that the code of the networks stays as it is. Where a
ReLU follows the normalisation, the attention comes behind the ReLU: it is applied here already, and the network's own
does nothing to values that are not negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rssearch.cost.counting import forward_hooks
from rssearch.device import mode
from rssearch.errors import InputError
from rssearch.models.resnet_cifar import BasicBlock, CifarResNet
from rssearch.models.vgg_cifar import CifarVGG16

REDUCTION = 16  # channels for one hidden unit (Hu et al., CVPR 2018)


class SqueezeExcitation(nn.Module):
    """The attention of each channel in (0, 1): global average, Linear(C, C/16), ReLU, Linear(C/16, C), sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        # Without initialisation, which would draw from the global random state: `insert` does it.
        self.squeeze = nn.Linear(channels, hidden, device="meta").to_empty(device="cpu")
        self.excite = nn.Linear(hidden, channels, device="meta").to_empty(device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to attention [N, C]."""
        hidden = torch.relu(self.squeeze(x.mean((2, 3))))
        return torch.sigmoid(self.excite(hidden))


class AttendedNorm(nn.Module):
    """A batch normalisation, the ReLU that follows it in the network if there is one, and attention."""

    def __init__(self, norm: _BatchNorm, *, rectified: bool) -> None:
        super().__init__()
        self.norm, self.rectified = norm, rectified
        self.attention = SqueezeExcitation(norm.num_features)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to the same shape."""
        y: Tensor = self.norm(x)
        if self.rectified:
            y = torch.relu(y)
        attention: Tensor = self.attention(y)
        return y * attention[:, :, None, None]

    def extra_repr(self) -> str:
        """Where the attention stands, for ``print``."""
        return "behind ReLU" if self.rectified else "behind the normalisation"


def insert(model: nn.Module, *, seed: int = 0) -> int:
    """Put squeeze-and-excitation into a network, in place.

    Residual networks get it behind the stem's ReLU (before any pooling), behind the ReLU of each inner normalisation of
    a block, and behind a block's last normalisation, before the addition; shortcuts get none. A VGG gets it behind the
    ReLU of each convolution.

    Args:
        model: a ResNet (also ResNeXt, Wide ResNet) or VGG with batch normalisation of torchvision, or one of the
            networks for CIFAR.
        seed: of the new parameters, drawn as `torch.nn.Linear` draws them; the global random state is not used.

    Returns:
        How many modules were inserted.

    Raises:
        InputError: another network, or one that has them already.
    """
    if is_in(model):
        raise InputError(f"{type(model).__name__} has its attention modules already")
    norms, places = check(model), _places(model)
    generator = torch.Generator().manual_seed(seed)
    for name, norm in norms.items():
        attended = AttendedNorm(norm, rectified=places[name]).train(norm.training)
        for layer in (attended.attention.squeeze, attended.attention.excite):
            bound = layer.in_features**-0.5
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
        attended.attention.to(norm.weight.device, norm.weight.dtype)
        _replace(model, name, attended)
    return len(norms)


def check(model: nn.Module) -> dict[str, _BatchNorm]:
    """The normalisations that attention would be inserted behind. Raises InputError for a network without a rule."""
    layers = {name: model.get_submodule(name) for name in _places(model)}
    norms = {name: layer for name, layer in layers.items() if isinstance(layer, _BatchNorm) and layer.affine}
    if not norms or norms.keys() != layers.keys():
        raise InputError(
            "attention can be inserted into the ResNets and VGGs with batch normalisation of torchvision, and into "
            f"resnet20, resnet56, resnet110 and vgg16_cifar, but not into {type(model).__name__}"
        )
    return norms


def is_in(model: nn.Module) -> bool:
    """Whether a network has attention modules now."""
    return any(True for _ in _inserted(model))


def mean_attention(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The attention of each channel, the mean over all images, in eval mode.

    Args:
        model: a network with attention, see `insert`; the mode of each module is restored.
        batches: images [B, C, H, W] on the device of the model, and labels, which are not used.

    Returns:
        Name of the normalisation -> [C], float64. Every image counts the same, whatever the sizes of the batches.

    Raises:
        InputError: the network has no attention, or there are no images.
    """
    names = {attended.attention: name for name, attended in _inserted(model)}
    if not names:
        raise InputError(f"{type(model).__name__} has no attention modules: insert them first")
    totals: dict[str, Tensor] = {}

    def add(module: SqueezeExcitation, _: tuple[Tensor, ...], output: Tensor) -> None:
        name, batch = names[module], output.sum(0, dtype=torch.float64)
        totals[name] = totals[name] + batch if name in totals else batch

    images = 0
    with (
        mode(model, training=False),
        forward_hooks(model, lambda module: module in names, add),
        torch.no_grad(),
    ):
        for x, _ in batches:
            model(x)
            images += len(x)
    if not images:
        raise InputError("there are no images to measure the attention on")
    return {name: total / images for name, total in totals.items()}


def fold(model: nn.Module, attention: Mapping[str, Tensor]) -> None:
    """Multiply attention into the normalisations and remove its modules, in place.

    The scale and the shift of channel c are multiplied by a_c. As ReLU commutes with factors that are not negative, the
    network then gives what it gave with attention, as far as the attention was the same for all images.

    Args:
        model: a network with attention, see `insert`.
        attention: normalisation -> [C], as `mean_attention` gives it.

    Raises:
        InputError: other names or shapes than the network has, or values that are negative or not finite.
    """
    inserted = dict(_inserted(model))
    if attention.keys() != inserted.keys():
        raise InputError(f"the network has attention at {_list(inserted)}; values are given for {_list(attention)}")
    for name, value in attention.items():
        if value.shape != (inserted[name].norm.num_features,):
            raise InputError(f"{name!r} has {inserted[name].norm.num_features} channels, attention {[*value.shape]}")
        if not bool((value.isfinite() & (value >= 0)).all()):
            raise InputError(f"the attention of {name!r} has values that are negative or not finite")
    with torch.no_grad():
        for name, attended in inserted.items():
            for parameter in (attended.norm.weight, attended.norm.bias):
                parameter.copy_(parameter * attention[name].to(parameter.device))
    remove(model)


def remove(model: nn.Module) -> None:
    """Take the attention modules out again, in place, and leave the normalisations as they are."""
    for name, attended in list(_inserted(model)):
        _replace(model, name, attended.norm)


def _places(model: nn.Module) -> dict[str, bool]:
    """The normalisations that get attention, and whether a ReLU follows at once."""
    from torchvision.models import VGG, ResNet, resnet

    match model:
        case ResNet() | CifarResNet():
            places = {"bn1": True}
            for name, block in model.named_modules():
                match block:
                    case resnet.Bottleneck():
                        places |= {f"{name}.bn1": True, f"{name}.bn2": True, f"{name}.bn3": False}
                    case resnet.BasicBlock() | BasicBlock():
                        places |= {f"{name}.bn1": True, f"{name}.bn2": False}
            return places
        case VGG() | CifarVGG16():
            features = model.features.named_children()
            return {f"features.{name}": True for name, layer in features if isinstance(layer, _BatchNorm)}
    return {}


def _inserted(model: nn.Module) -> Iterator[tuple[str, AttendedNorm]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, AttendedNorm))


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Set a module under a name that exists, so that the order of the children stays."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
