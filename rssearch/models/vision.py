"""Networks of torchvision, adapted to other bands, classes and small images.

It is imported when one of them is used: that takes longer than the import of torch, in each worker again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from torch import nn

from rssearch.errors import unknown
from rssearch.models import torchgeo_weights
from rssearch.models.fetching import not_fetched, torch_cache
from rssearch.models.weights import AUXILIARY

Stem = Literal["imagenet", "small"]

_INCEPTIONS = ("googlenet", "inception_v3")
_TWO_HEADS = ("classifier.low_classifier", "classifier.high_classifier")  # of LR-ASPP, whose logits are added up


def names() -> list[str]:
    """The classification networks that torchvision has."""
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def segmenters() -> list[str]:
    """The networks for segmentation that torchvision has."""
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models.segmentation))


def weights_of(name: str) -> list[str]:
    """The names of the trained weights of a network."""
    import torchvision

    return [entry.name for entry in torchvision.models.get_model_weights(name)]


def normalisation(name: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation, of values in [0, 1], that the transform of trained weights normalises images by."""
    if weights.startswith(torchgeo_weights.PREFIX):
        return torchgeo_weights.normalisation(name, weights)
    import torchvision

    transform = torchvision.models.get_model_weights(name)[weights].transforms()
    mean, std = getattr(transform, "mean", None), getattr(transform, "std", None)
    return None if mean is None or std is None else (tuple(mean), tuple(std))


class Options(Mapping[str, tuple[str, ...] | None]):
    """The options of a network and their values; torchvision is asked for its weights when they are looked at."""

    def __init__(self, name: str, stems: tuple[str, ...]) -> None:
        self._name = name
        self._stems = {"stem": stems} if has_stem(name) else {}

    def __getitem__(self, option: str) -> tuple[str, ...]:
        return tuple(weights_of(self._name)) if option == "weights" else self._stems[option]

    def __iter__(self) -> Iterator[str]:
        return iter(("weights", *self._stems))

    def __len__(self) -> int:
        return 1 + len(self._stems)


def has_stem(name: str) -> bool:
    """Whether the network can be asked for a stem: ResNets, MobileNetV2, and VGG, which has the small one already."""
    return name.startswith(("resnet", "resnext", "wide_resnet", "vgg")) or name == "mobilenet_v2"


def build(
    name: str, num_classes: int, *, in_channels: int = 3, stem: Stem = "imagenet", weights: str | None = None
) -> nn.Module:
    """A network of torchvision.

    The first convolution is replaced when the images do not have three bands, the last layer when trained weights
    have other classes. From trained weights, band i of the new first convolution starts as band i mod 3 of the old
    one, scaled by 3 / in_channels so that activations keep their size. The networks end in (adaptive) average pooling,
    so any input size of at least 32 pixels serves; VGG repeats its smaller maps to 7x7 before the first linear layer.
    Auxiliary heads, which serve in training alone, are left out. GoogLeNet and Inception V3 take images of three bands
    in ImageNet's normalisation, as their weights in torchvision do, and change it into their own.

    Args:
        name: as torchvision calls it.
        num_classes: outputs of the classifier.
        in_channels: bands of the images.
        stem: ``"small"`` for images of 32 to 64 pixels: a ResNet begins with a 3x3 convolution of stride 1 (not
            taken from trained weights) and has no max-pooling, MobileNetV2 begins with stride 1; a VGG is as it is.
        weights: name of trained weights, such as ``IMAGENET1K_V1``, or torchgeo's with the prefix ``torchgeo:``; they
            are downloaded once.

    Raises:
        InputError: unknown weights, or weights that cannot be fetched.
    """
    import torchvision

    if weights is not None and weights.startswith(torchgeo_weights.PREFIX):
        model = _untrained(name, num_classes, in_channels)
        torchgeo_weights.load_into(model, name, weights, in_channels)
    elif weights is None:
        model = _untrained(name, num_classes, in_channels)
    else:
        model = _trained(name, weights)
        _replace_heads(model, num_classes)
        if in_channels != 3:
            _replace_first_conv(model, in_channels, trained=True)
    if isinstance(model, torchvision.models.GoogLeNet | torchvision.models.Inception3):
        model.transform_input = in_channels == 3  # in torchvision with weights alone; a bundle is rebuilt without them
    if stem == "small":
        _shrink_stem(model)
    return model


def _untrained(name: str, num_classes: int, in_channels: int) -> nn.Module:
    import torchvision

    more: dict[str, object] = {}
    if name in _INCEPTIONS:
        more = {"aux_logits": False, "init_weights": True}
    elif name in segmenters():
        more = {"weights_backbone": None}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **more)
    if in_channels != 3:
        _replace_first_conv(model, in_channels, trained=False)
    return model


def _trained(name: str, weights: str) -> nn.Module:
    import torchvision

    if weights not in weights_of(name):
        raise unknown(f"weights of {name}", weights, weights_of(name))
    try:
        model: nn.Module = torchvision.models.get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:  # no connection, or a checksum that does not match
        url = str(torchvision.models.get_model_weights(name)[weights].url)
        raise not_fetched(f"{name}: the weights {weights}", error, torch_cache(), url) from error
    for head in AUXILIARY:
        if hasattr(model, head):
            setattr(model, head, None)
    if isinstance(model, torchvision.models.GoogLeNet | torchvision.models.Inception3):
        model.aux_logits = False
    return model


def _replace_heads(model: nn.Module, num_classes: int) -> None:
    layers = [(key, layer) for key, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    both = [(key, layer) for key, layer in layers if key in _TWO_HEADS]
    for key, old in both or layers[-1:]:
        _replace_head(model, key, old, num_classes)


def _replace_head(model: nn.Module, key: str, old: nn.Linear | nn.Conv2d, num_classes: int) -> None:
    if old.weight.shape[0] == num_classes:
        return
    if isinstance(old, nn.Linear):
        new: nn.Module = nn.Linear(old.in_features, num_classes)
    else:  # SqueezeNet ends in a 1x1 convolution, and so do networks for segmentation
        new = nn.Conv2d(old.in_channels, num_classes, 1)
    _set(model, key, new)


def _replace_first_conv(model: nn.Module, in_channels: int, *, trained: bool) -> None:
    key, old = next((key, layer) for key, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    size, stride, padding = old.kernel_size, old.stride, old.padding
    new = nn.Conv2d(in_channels, old.out_channels, size, stride, padding, bias=old.bias is not None)  # type: ignore[arg-type]
    if trained:
        bands = [band % 3 for band in range(in_channels)]
        new.weight.data.copy_(old.weight.data[:, bands] * (3 / in_channels))
        if old.bias is not None and new.bias is not None:
            new.bias.data.copy_(old.bias.data)
    else:
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    _set(model, key, new)


def _shrink_stem(model: nn.Module) -> None:
    import torchvision

    if isinstance(model, torchvision.models.ResNet):
        old = model.conv1
        model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    elif isinstance(model, torchvision.models.MobileNetV2):
        first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
        first.stride = (1, 1)


def _set(model: nn.Module, key: str, new: nn.Module) -> None:
    parent, _, child = key.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
