"""The lists of pruning ratios that the filter-pruning papers print, expanded to layers.

The convention is that of the HRankPlus / CHIP family: the ratios of the stem, of the stages' outputs, and of the inner
layers, in this order. A layer of n channels keeps ``int(n * (1 - ratio))``.
"""

from __future__ import annotations

from collections.abc import Sequence

from rssearch.errors import InputError, unknown

_CIFAR_BLOCKS = {"resnet20": 3, "resnet56": 9, "resnet110": 18}
_RESNET50_BLOCKS = (3, 4, 6, 3)


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
