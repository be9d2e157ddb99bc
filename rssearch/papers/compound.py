"""Compound pruning: table 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rssearch.papers.table import Network, Paper, Row, Trained

if TYPE_CHECKING:
    from rssearch.pruning.channels import Group


def _inner(group: Group) -> bool:
    """Whether the method cuts these channels: one convolution computes them, and one convolution reads them.

    These are the inner convolutions of ResNet-50's blocks, and all of VGG's but the last.
    """
    return len(group.producers) == 1 and [m.kind for m in group.consumers] == ["conv"]


_R50, _VGG = Network("resnet50", 45, 224), Network("vgg16_bn", 45, 224)
_PRUNED = Trained(_inner)
_THOP = "thop-2019"

COMPOUND = Paper(
    name="compound",
    title="Scene classification of remote sensing image based on compound pruning",
    summary="both baselines to every printed digit; the pruned rows need training",
    counters=("MAC", _THOP),
    rows=(
        Row("ResNet-50", _R50, None, "23.60M", "4.13G", _THOP),
        Row("ResNet-50 0.5, 20 %", _R50, _PRUNED, "18.32M", "3.33G", _THOP, "92.81"),
        Row("ResNet-50 0.6, 20 %", _R50, _PRUNED, "11.4M", "2.63G", _THOP, "91.94"),
        Row("ResNet-50 0.5, 10 %", _R50, _PRUNED, "18.71M", "3.42G", _THOP, "89.49"),
        Row("ResNet-50 0.6, 10 %", _R50, _PRUNED, "11.42M", "2.67G", _THOP, "88.72"),
        Row("VGG16-BN", _VGG, None, "134.45M", "15.65G", _THOP),
        Row("VGG16-BN 0.5, 20 %", _VGG, _PRUNED, "126.81M", "10.12G", _THOP, "91.66"),
        Row("VGG16-BN 0.7, 20 %", _VGG, _PRUNED, "122.25M", "6.88G", _THOP, "90.62"),
        Row("VGG16-BN 0.5, 10 %", _VGG, _PRUNED, "126.78M", "10.28G", _THOP, "88.05"),
        Row("VGG16-BN 0.7, 10 %", _VGG, _PRUNED, "122.33M", "7.04G", _THOP, "86.46"),
    ),
    notes=(
        "NWPU-RESISC45: 45 classes, 224 x 224 pixels. Pruned rows are named by the pruning rate and the share of the "
        "images for training. Top-1 accuracies are the paper's; the baselines have 92.99 and 89.57 (ResNet-50), "
        "92.14 and 88.79 (VGG16-BN) with 20 and 10 %.",
        "thop-2019 is the counter of that autumn: 4 operations for each element of a batch normalisation, 1 for each "
        "output of a convolution with bias, 2 for each weight of a linear layer.",
        "What a pruned network costs depends on its training, since two rankings must agree on each filter. Shown is "
        "what can be attained if the inner convolutions of residual blocks, and all of VGG's but the last, are cut.",
        "The paper does not say which layers are cut. Each filter of VGG's last convolution takes 200,704 weights of "
        "the first linear layer along, so at most 38 of its 512 can be gone at rate 0.5, and 60 at 0.7.",
        "Training: rssearch search papers/compound.",
    ),
)
