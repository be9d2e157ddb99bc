"""Micro-Net: tables 1 to 3."""

from __future__ import annotations

from typing import Any

from rssearch.papers.table import Network, Paper, Row


def _micronet(*rates: Any, part: str = "") -> Network:
    return Network("micronet", 2, 500, options=(("rates", rates),), part=part)


_MICRO_NET = (1, 1, 2, 3)
_LAYERS = (
    ("fm 1", "encoder.0.0", "5158"),
    ("fm 2~4", "encoder.0.1", "6144"),
    ("fm 5", "encoder.1.0", "22528"),
    ("fm 6~8", "encoder.1.1", "24576"),
    ("fm 9", "encoder.2.0", "90112"),
    ("fm 10~12", "encoder.2.1", "98304"),
    ("dfm 9~7", "decoder.2.0", "98304"),
    ("dec 1", "up.1", "131072"),
    ("dfm 6~4", "decoder.1.0", "24576"),
    ("dec 2", "up.0", "32768"),
    ("dfm 3~1", "decoder.0.0", "6144"),
    ("conv", "head", "128"),
)

MICRONET = Paper(
    name="micronet",
    title="A Miniaturized Semantic Segmentation Method for Remote Sensing Image (Micro-Net)",
    summary="the parameters of all networks, and of each layer but for one misprint",
    counters=("MAC", "thop-0.1.1"),
    rows=(
        Row("U-Net", Network("unet", 2, 500), params="31.02M", accuracy="79.48"),
        Row("Miniaturized-Net (BM1)", Network("miniaturized_net", 2, 500), params="5.36M", accuracy="75.59"),
        Row("4x U-Net (BM2)", _micronet(1, 1, 1), params="0.93M", accuracy="75.65"),
        Row("(1,2,3) x 3 (BM3)", _micronet(1, 2, 3), params="0.93M", accuracy="75.78"),
        Row("(1,2,5) (1,2,3) (1,1,2)", _micronet((1, 2, 5), (1, 2, 3), (1, 1, 2)), params="0.93M", accuracy="75.70"),
        Row("(1,1,2,3), Micro-Net", _micronet(*_MICRO_NET), params="1.06M", accuracy="76.81"),
        Row("(1,1,1,2,3)", _micronet(1, 1, 1, 2, 3), params="1.18M", accuracy="76.37"),
        *(Row(name, _micronet(*_MICRO_NET, part=part), params=printed) for name, part, printed in _LAYERS),
    ),
    notes=(
        "Two classes, 500 x 500 pixels, no bias and no normalisation. The rows from fm 1 on are Micro-Net's layers, "
        "each module counted once. The paper gives no MACs.",
        "fm 1 has 3 * 16 + 16 * 32 + 9 * 16 * 32 = 5168 parameters: one digit is misprinted. With 5168 the table adds "
        "up to the 1,055,920 of the network.",
        "The paper states a squeeze ratio of 0.125. Only 0.25 and additive skips, as in its table of layers and its "
        "published code, give all counts of Micro-Net and its variants; only 0.125 and concatenation that of BM1.",
        "Compression by 5.79 and 29.26 is the ratio of the rounded counts; that of the exact ones is 5.79 and 29.38.",
        "thop counts a transposed convolution of stride 2 four times, and so more than the convolutions compute.",
        "mIoU is the paper's, in per cent, on 10 % of the patches of 18 images of Austin (Inria); it needs training.",
    ),
    accuracy="mIoU",
)
