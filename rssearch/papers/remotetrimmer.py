"""RemoteTrimmer: what its uniform cut leaves."""

from __future__ import annotations

from rssearch.papers.table import Network, Paper, Row, Uniform

_NETWORKS = {
    "ResNet-18 EuroSAT": Network("resnet18", 10, 64),
    "VGG16-BN EuroSAT": Network("vgg16_bn", 10, 64),
    "ResNet-18 UCM": Network("resnet18", 21, 256),
    "VGG16-BN UCM": Network("vgg16_bn", 21, 256),
}
_RATES = (0.3, 0.5, 0.7, 0.9)

REMOTETRIMMER = Paper(
    name="remotetrimmer",
    title="RemoteTrimmer: Adaptive Structural Pruning for Remote Sensing Image Classification, ICASSP 2025",
    summary="parameters and MACs at each pruning rate; the paper's own table is not at hand",
    counters=("MAC",),
    rows=tuple(
        Row(f"{name} {rate}" if rate else name, network, Uniform(rate) if rate else None)
        for name, network in _NETWORKS.items()
        for rate in (0.0, *_RATES)
    ),
    notes=(
        "The table of the paper itself (accuracies, parameters, MACs) was not at hand, so nothing is compared.",
        "The published code cuts each group of coupled channels to int(n (1 - rate)), and no hidden linear layer; so "
        "the costs follow from the rate alone. Attention is folded into the batch normalisation before, and costs "
        "nothing.",
        "The networks are torchvision's, with its classifiers, at the native sizes: 64 x 64 pixels for EuroSAT, 256 x "
        "256 for UC Merced. The size that the paper used for UC Merced, and its classifier of VGG, are not known.",
        "Accuracies need training: rssearch search papers/remotetrimmer.",
    ),
)
