"""The networks that can be named in a study.

``MODELS`` is the registry: a name, how the network is built, and the options that it has beside ``num_classes``,
``in_channels`` and ``input_size``. Model zoos follow by their own names: ``torchvision:NAME`` (for classification and
segmentation), ``timm:NAME``, and ``smp:ARCH/ENCODER`` of segmentation_models_pytorch; the last two are extras of the
package. ``micronet:RATES`` is a Micro-Net by its cascades: ``micronet:1,1,2,3``, or ``micronet:1,2,5/1,2,3/1,1,2``, one
for each level. ``MODULE:NAME`` is a user-defined network: a function or class of a module that can be imported, called
as ``NAME(num_classes, in_channels=..., **options)``, or an `Entry`. Networks for classification give logits
[N, classes], those for segmentation [N, classes, H, W].
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import nn

from rssearch.config import imports
from rssearch.errors import InputError, shown, unknown
from rssearch.models import extras, fitting, listing, outputs, smp_networks, timm_networks, torchgeo_weights, vision
from rssearch.models import weights as weight_files
from rssearch.models.fitting import Network, without_weights
from rssearch.models.micronet import micronet, miniaturized_net, parse_rates
from rssearch.models.own_networks import build as build_network
from rssearch.models.resnet_cifar import cifar_resnet
from rssearch.models.torchgeo_weights import sensor_scaling
from rssearch.models.unet import Design, EncoderDecoder, unet
from rssearch.models.vgg_cifar import vgg16_cifar

__all__ = [
    "MODELS",
    "Entry",
    "Network",
    "Task",
    "check_logits",
    "check_options",
    "check_weights",
    "code_of",
    "create",
    "design_of",
    "is_own",
    "list_models",
    "load_weights",
    "normalisation_of",
    "options_of",
    "sensor_scaling",
    "takes_weights",
    "task_of",
    "values_of",
    "without_numbers",
]

Task = Literal["classification", "segmentation"]
STEMS = ("imagenet", "small")
_CLASSES = 10  # of a network that is only looked at
SHORTCUTS = ("A", "B")
_ENCODER_DECODER = dict.fromkeys(("levels", "base", "batch_norm", "bias"))
_FIRE = {**_ENCODER_DECODER, "squeeze": None, "p3x3": None, "skips": ("add", "concat")}


@dataclass(frozen=True)
class Entry:
    """A network of the registry.

    Attributes:
        build: called as ``build(num_classes, in_channels=..., **options)``.
        options: allowed values by option; None leaves the check of the value to `build`.
        sized: whether `build` takes ``input_size``.
        design: of an encoder-decoder, called as ``design(**options)``; checks the values of the options.
        task: what the network is for.
        normalisation: called with a name of trained weights; mean and deviation of each band, of values in [0, 1],
            that their images were normalised by, or None.
        logits: where the network gives a dictionary, tuple or object: the key, position or name of its logits.
    """

    build: Callable[..., nn.Module]
    options: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    sized: bool = False
    design: Callable[..., Design] | None = None
    task: Task = "classification"
    normalisation: Callable[[str], tuple[tuple[float, ...], tuple[float, ...]] | None] | None = None
    logits: str | int | None = None


def _vision(name: str) -> Entry:
    return Entry(
        partial(vision.build, name), vision.Options(name, STEMS), normalisation=partial(vision.normalisation, name)
    )


def _encoder_decoder(design: Callable[..., Design], options: Mapping[str, tuple[str, ...] | None]) -> Entry:
    def build(num_classes: int, *, in_channels: int, **given: Any) -> nn.Module:
        return EncoderDecoder(num_classes, in_channels, design(**given))

    return Entry(build, options, design=design, task="segmentation")


def _torchvision(name: str) -> Entry:
    if name in vision.segmenters():
        build = partial(vision.build, name)
        options = {"weights": tuple(vision.weights_of(name))}
        known = partial(vision.normalisation, name)
        return Entry(build, options, task="segmentation", normalisation=known, logits="out")
    if name not in vision.names():
        raise unknown("torchvision model", name, [*vision.names(), *vision.segmenters()])
    return _vision(name)


def _timm(name: str) -> Entry:
    timm_networks.check(name)
    options = {"weights": tuple(timm_networks.weights_of(name))}
    return Entry(partial(timm_networks.build, name), options, normalisation=partial(timm_networks.normalisation, name))


def _smp(name: str) -> Entry:
    options = {"weights": tuple(smp_networks.weights_of(name))}
    known = partial(smp_networks.normalisation, name)
    return Entry(partial(smp_networks.build, name), options, task="segmentation", normalisation=known)


def _micronet(name: str) -> Entry:
    options = {option: allowed for option, allowed in MODELS["micronet"].options.items() if option != "rates"}
    return _encoder_decoder(partial(micronet, rates=parse_rates(name)), options)


# The networks of a prefix, by what stands behind it. Extras of the package carry their module.
FAMILIES: dict[str, Callable[[str], Entry]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "smp": _smp,
    "micronet": _micronet,
}
_MODULES = {"timm": timm_networks.MODULE, "smp": smp_networks.MODULE}

MODELS: dict[str, Entry] = {
    "resnet20": Entry(partial(cifar_resnet, 20), {"shortcut": SHORTCUTS}),
    "resnet56": Entry(partial(cifar_resnet, 56), {"shortcut": SHORTCUTS}),
    "resnet110": Entry(partial(cifar_resnet, 110), {"shortcut": SHORTCUTS}),
    "vgg16_cifar": Entry(vgg16_cifar, sized=True),
    "resnet18": _vision("resnet18"),
    "resnet34": _vision("resnet34"),
    "resnet50": _vision("resnet50"),
    "vgg16_bn": _vision("vgg16_bn"),
    "mobilenet_v2": _vision("mobilenet_v2"),
    "unet": _encoder_decoder(unet, _ENCODER_DECODER),
    "miniaturized_net": _encoder_decoder(miniaturized_net, _FIRE),
    "micronet": _encoder_decoder(micronet, {"rates": None, "decoder_rates": None, **_FIRE}),
}


def list_models() -> list[str]:
    """The names of the registry; those of zoos and user-defined networks are understood, too."""
    return sorted(MODELS)


def task_of(name: str) -> Task:
    """What a network is for. Raises InputError for an unknown name."""
    return _entry(name).task


def code_of(name: str) -> str | None:
    """What the code of a user-defined network is, see `rssearch.config.imports.fingerprint`; the version of an extra.

    None for all others.
    """
    if module := _MODULES.get(name.partition(":")[0]):
        _entry(name)  # refuses what is not installed
        return extras.code_of(module)
    return imports.fingerprint(name) if is_own(name) else None


def options_of(name: str) -> list[str]:
    """The options that a network has. Raises InputError for an unknown name."""
    return sorted(_entry(name).options)


def values_of(name: str) -> Mapping[str, tuple[str, ...] | None]:
    """The options that a network has with their allowed values; None where the network checks them itself."""
    return _entry(name).options


def normalisation_of(name: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of each band that the images of trained weights were normalised by; None: not known."""
    known = _entry(name).normalisation
    return None if known is None else known(weights)


def takes_weights(name: str) -> bool:
    """Whether a user-defined network reads a file of weights itself: it has a parameter `weights`."""
    return is_own(name) and "weights" in _entry(name).options


def design_of(name: str, options: Mapping[str, Any]) -> Design:
    """What an encoder-decoder is made of. Raises InputError if the network is none, or as `check_options`."""
    check_options(name, options)
    entry = _entry(name)
    if entry.design is None:
        raise InputError(f"{name!r} is no encoder-decoder; {', '.join(n for n in MODELS if MODELS[n].design)} are")
    return entry.design(**without_weights(options))


def create(
    name: str,
    num_classes: int,
    *,
    in_channels: int = 3,
    input_size: int | None = None,
    stem: str | None = None,
    shortcut: str | None = None,
    weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network with fresh (or, if `weights` are named, trained) parameters.

    Args:
        name: see `list_models`, or of a zoo, or ``MODULE:NAME`` for a user-defined one.
        num_classes: outputs of the classifier.
        in_channels: bands of the images.
        input_size: height and width of the images, for networks whose head depends on it.
        stem: ``"imagenet"`` or ``"small"`` (3x3, stride 1, no max-pooling: for images of 32 to 64 pixels).
        shortcut: ``"A"`` or ``"B"``, of the CIFAR ResNets.
        weights: name of trained weights, as the zoo calls them; ``torchgeo:NAME`` for torchgeo's, of the ResNets; or
            a file of weights, see `rssearch.models.weights`.
        options: what else the network has, see `rssearch.models.unet.unet` and the functions of
            `rssearch.models.micronet`, which give an encoder-decoder's design.

    Raises:
        InputError: unknown name, option or value, or weights that do not fit.
    """
    given = {"stem": stem, "shortcut": shortcut, "weights": weights, **options}
    given = {key: value for key, value in given.items() if value is not None}
    check_options(name, given)
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise InputError(f"{name}: {what} is {value}, but must be at least 1")
    entry = _entry(name)
    file = given.pop("weights") if _is_read_here(name, given.get("weights")) else None
    sized = {"input_size": input_size} if entry.sized else {}
    make = partial(entry.build, num_classes, in_channels=in_channels, **given, **sized)
    model = build_network(name, make, weights, own=is_own(name))
    if entry.logits is not None:
        model = outputs.pick(model, entry.logits)
    if file is not None:
        load_weights(model, weight_files.read(file), Network(name, num_classes, in_channels, given), input_size)
    return model


def load_weights(model: nn.Module, weights: weight_files.Weights, network: Network, input_size: int | None) -> None:
    """Put the weights of a file into a network, in place.

    Args:
        model: the network.
        weights: as `rssearch.models.weights.read` gives them.
        network: what it is made of.
        input_size: height and width of the images.

    Raises:
        InputError: they do not fit, see `rssearch.models.fitting.check`.
    """
    fitting.load(model, weights, network, _known(network, input_size))


def check_weights(weights: weight_files.Weights, network: Network, input_size: int | None) -> None:
    """Refuse weights that do not fit a network, as `load_weights` does.

    More than its shapes is built only where the weights have values that a network may object to.
    """
    known = _known(network, input_size)
    fitting.check(weights, network, known)
    if not weights.is_plain:
        given = {"in_channels": network.bands, "input_size": input_size, **network.options}
        fitting.load(create(network.name, network.classes, **given), weights, network, known)


def _known(network: Network, input_size: int | None) -> fitting.Known:
    def shapes(other: Network) -> weight_files.Shapes:
        return _shapes_of(other.name, other.classes, other.bands, json.dumps(other.options), input_size)

    return fitting.Known(shapes, values_of, lambda found: _others(network, found))


@lru_cache(maxsize=256)
def _shapes_of(name: str, classes: int, bands: int, options: str, input_size: int | None) -> weight_files.Shapes:
    given = json.loads(options)
    return weight_files.shapes_of(without_numbers(name, classes, in_channels=bands, input_size=input_size, **given))


def _others(network: Network, found: weight_files.Shapes) -> Iterator[Network]:
    """The networks of the registry that a file may be of instead, those of its task first; and those around it."""
    task = task_of(network.name)
    for name in sorted(MODELS, key=lambda name: MODELS[name].task != task):
        if name != network.name:
            yield network._replace(name=name, options={})
    for name in smp_networks.around(network.name.rpartition(":")[2], found):
        yield network._replace(name=name, options={})


def _is_read_here(name: str, weights: object) -> bool:
    return isinstance(weights, str) and weight_files.is_file(weights) and not takes_weights(name)


def without_numbers(name: str, num_classes: int, **given: Any) -> nn.Module:
    """A network to look at: its tensors have shapes and no values, but where its code needs values to build it.

    Takes what `create` takes.
    """
    try:
        with torch.device("meta"):
            return create(name, num_classes, **given)
    except (NotImplementedError, RuntimeError, InputError):  # an InputError from a zoo, and a user's: raised again here
        return create(name, num_classes, **given)


def check_logits(name: str, input_shape: tuple[int, int, int], options: Mapping[str, Any]) -> None:
    """Refuse a network that does not give logits for images of a size, before anything is trained.

    Args:
        name: as for `create`.
        input_shape: (C, H, W) of the images.
        options: of the network; its trained weights are left out.

    Raises:
        InputError: it does not run on such images, or gives no logits for each of them (or each of their pixels).
    """
    channels, size, _ = input_shape
    given = {option: value for option, value in options.items() if option != "weights"}
    build = partial(create, name, _CLASSES, in_channels=channels, input_size=size, **given)
    outputs.check(name, build, input_shape, _CLASSES, maps=task_of(name) == "segmentation")


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check the options of a network, at no cost; those that are None count as not given.

    Raises:
        InputError: unknown network, an option that it does not have, or a value that is not allowed.
    """
    entry = _entry(name)
    given = {option: value for option, value in options.items() if value is not None}
    if _is_read_here(name, given.get("weights")):
        del given["weights"]
    for option, value in given.items():
        if option not in entry.options:
            has = f"it has: {', '.join(sorted(entry.options))}" if entry.options else "it has none"
            raise InputError(f"model {name!r} has no option {option!r} ({value!r}); {has}")
        allowed = entry.options[option]
        if option == "weights" and str(value).startswith(torchgeo_weights.PREFIX):
            torchgeo_weights.check(name.removeprefix("torchvision:"), value)
        elif allowed is not None and value not in allowed:
            raise unknown(f"{option} of {name}", value, allowed)
    if entry.design is not None:
        try:
            entry.design(**given)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None


def _entry(name: str) -> Entry:
    if name in MODELS:
        return MODELS[name]
    prefix, colon, rest = name.partition(":")
    if colon and prefix in FAMILIES:
        return FAMILIES[prefix](rest)
    if is_own(name):
        return _own(name)
    if in_zoos := listing.near(name, MODELS):
        raise InputError(f"unknown model {shown(name)}. Did you mean {' or '.join(map(repr, in_zoos))}?")
    raise unknown("model", name, [*MODELS, *listing.FORMS])


def is_own(name: str) -> bool:
    """Whether a name is an import string, so that the network is user-defined code."""
    return imports.is_import(name) and name.partition(":")[0] not in FAMILIES


def _own(name: str) -> Entry:
    """A user-defined network. The options of a function are its parameters."""
    found, _ = imports.load(name)
    if isinstance(found, Entry):
        return found
    if not callable(found):
        raise InputError(f"{name}: is neither a function that builds a network nor a rssearch.models.Entry")
    parameters = inspect.signature(found).parameters
    for needed in ("num_classes", "in_channels"):
        if needed not in parameters:
            raise InputError(f"{name}: has no parameter {needed!r}; a network is built by num_classes and in_channels")
    fixed = {"num_classes", "in_channels", "input_size"}
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    options = [option for option, how in parameters.items() if how.kind in plain and option not in fixed]
    return Entry(found, dict.fromkeys(options), sized="input_size" in parameters)
