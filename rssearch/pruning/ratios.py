"""The lists of pruning ratios that the filter-pruning papers print, expanded to layers.

The convention is that of the HRankPlus / CHIP family: the ratios of the stem, of the stages' outputs, and of the inner
layers, in this order. A layer of n channels keeps ``int(n * (1 - ratio))``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rssearch.errors import InputError, unknown

# Name -> network -> list, as printed. LFP (Low Frequency Preference), table 1: the milder list of each network first.
PUBLISHED: dict[str, dict[str, str]] = {
    "lfp-1": {
        "resnet20": "[0.0]+[0.1]*2+[0.25]*9",
        "resnet56": "[0.0]+[0.15]*2+[0.4]*27",
        "resnet110": "[0.0]+[0.2]*2+[0.3]*18+[0.35]*36",
        "vgg16_cifar": "[0.3]*7+[0.75]*5",
        "resnet50": "[0.0]+[0.1]*3+[0.35]*16",
    },
    "lfp-2": {
        "resnet20": "[0.0]+[0.3]*2+[0.3]*3+[0.4]*3+[0.5]*3",
        "resnet56": "[0.0]+[0.4]*2+[0.5]*9+[0.6]*9+[0.7]*9",
        "resnet110": "[0.0]+[0.4]*2+[0.5]*18+[0.65]*36",
        "vgg16_cifar": "[0.45]*7+[0.78]*5",
        "resnet50": "[0.0]+[0.5]*3+[0.6]*16",
    },
}

_CIFAR_BLOCKS = {"resnet20": 3, "resnet56": 9, "resnet110": 18}
_RESNET50_BLOCKS = (3, 4, 6, 3)
_NUMBER = r"\s*(?:\d+\.?\d*|\.\d+)\s*"
_TERM = re.compile(rf"\s*\[({_NUMBER}(?:,{_NUMBER})*)\]\s*(?:[*×]\s*(\d{{1,3}})\s*)?")


def ratios_of(text: str, model: str) -> dict[str, float]:
    """The rate of each layer, from the name of a published list or from a list in the papers' notation.

    Args:
        text: such as ``lfp-1`` or ``[0.]+[0.4]*2+[0.5]*9+[0.6]*9+[0.7]*9``.
        model: the network's name.

    Raises:
        InputError: no such list, or one that does not fit the network; see `layer_rates`.
    """
    return layer_rates(model, parse_ratios(text) if "[" in str(text) else published_ratios(text, model))


def published_ratios(name: str, model: str) -> list[float]:
    """A published list of ratios, such as ``lfp-1`` of ``resnet56``. Raises InputError if there is none."""
    if name not in PUBLISHED:
        raise unknown("list of ratios", name, [*PUBLISHED, "a list such as [0.]+[0.4]*11"])
    if model not in PUBLISHED[name]:
        raise InputError(f"{name} has no ratios for {model!r}; it has them for: {', '.join(PUBLISHED[name])}")
    return parse_ratios(PUBLISHED[name][model])


def parse_ratios(text: str) -> list[float]:
    """The numbers of a list in the papers' notation: lists of ratios, each perhaps repeated, joined by ``+``.

    Raises:
        InputError: the text is none, with the part that is wrong.
    """
    ratios: list[float] = []
    for part in text.split("+"):
        term = _TERM.fullmatch(part)
        if term is None:
            raise InputError(
                f"{text!r} is no list of ratios: {part.strip()!r} must be like [0.4], [0.4, 0.5] or [0.4]*9, "
                "and such lists are joined by +"
            )
        ratios += [float(number) for number in term[1].split(",")] * int(term[2] or 1)
    return ratios


def layer_rates(model_name: str, ratio_list: Sequence[float]) -> dict[str, float]:
    """The rate of each layer, as `rssearch.pruning.prune` takes them.

    * ``resnet20|56|110`` (n blocks per stage): the stem, the outputs of stages 1 and 2, then the first convolution of
      each of the 3 n blocks. The outputs of stage 3 stay whole.
    * ``vgg16_cifar``: convolutions 1 to 12. The 13th stays whole.
    * ``resnet50``: the stem, the outputs of stages 1 to 3, then for each of the 16 blocks the first two convolutions.
      The outputs of stage 4 stay whole.

    Raises:
        InputError: a network without such a convention, a list of the wrong length, a ratio outside [0, 1).
    """
    if model_name in _CIFAR_BLOCKS:
        n = _CIFAR_BLOCKS[model_name]
        layers = [["conv1"], ["layer1.0.conv2"], ["layer2.0.conv2"]]
        layers += [[f"layer{stage}.{block}.conv1"] for stage in (1, 2, 3) for block in range(n)]
    elif model_name == "vgg16_cifar":
        layers = [[f"features.conv{number}"] for number in range(1, 13)]
    elif model_name == "resnet50":
        layers = [["conv1"], ["layer1.0.conv3"], ["layer2.0.conv3"], ["layer3.0.conv3"]]
        blocks = [f"layer{stage}.{i}" for stage, n in enumerate(_RESNET50_BLOCKS, 1) for i in range(n)]
        layers += [[f"{block}.conv1", f"{block}.conv2"] for block in blocks]
    else:
        raise unknown(
            "model with a convention for lists of ratios", model_name, [*_CIFAR_BLOCKS, "vgg16_cifar", "resnet50"]
        )
    if len(ratio_list) != len(layers):
        raise InputError(f"{model_name} takes a list of {len(layers)} ratios, not {len(ratio_list)}")
    for position, ratio in enumerate(ratio_list):
        if not 0 <= ratio < 1:
            raise InputError(f"{model_name}: ratio {position} is {ratio}, but must be in [0, 1)")
    return {layer: ratio for names, ratio in zip(layers, ratio_list, strict=True) for layer in names}
