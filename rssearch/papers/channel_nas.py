"""NAS-based channel pruning: what its networks cost before they are searched."""

from __future__ import annotations

from rssearch.papers.table import Network, Paper, Row

CHANNEL_NAS = Paper(
    name="channel_nas",
    title="NAS-Based CNN Channel Pruning for Remote Sensing Scene Classification, IEEE GRSL 19 (2022) 6508605",
    summary="parameters and MACs of its networks, whole; the paper's own tables are not at hand",
    counters=("MAC",),
    rows=tuple(
        Row(f"{title} {dataset}", Network(model, classes, size))
        for dataset, classes, size in (("NWPU-RESISC45", 45, 224), ("UCM", 21, 224))
        for title, model in (("ResNet-34", "resnet34"), ("VGG16-BN", "vgg16_bn"))
    ),
    notes=(
        "The tables of the paper itself (accuracies, reductions of FLOPs) were not at hand, so nothing is compared. "
        "Its abstract names the networks, the datasets and the method, and prints no figure.",
        "What a searched network costs follows from trained scores. Here it is led to the macs_ratio that is asked "
        "for, and meets it within 1 %.",
        "The networks are torchvision's, at 224 x 224 pixels. The size that the paper used, its classifier of VGG-16, "
        "and whether that has batch normalisation, are not known.",
        "Accuracies need training: rssearch search papers/channel_nas.",
    ),
)
