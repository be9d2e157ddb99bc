"""Checks of kept channels."""

import pytest

from rssearch.errors import InputError
from tests.support.networks import network


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"layer9.conv1": (0,)}, "no group of channels is called 'layer9.conv1'"),
        ({"conv1": ()}, "at least one, and in 0..15"),
        ({"conv1": (0, 0)}, "distinct"),
        ({"conv1": (16,)}, "in 0..15"),
        ({"conv1": (-1,)}, "in 0..15"),
    ],
)
def test_bad_channels(kept, message):
    _, _, graph = network("resnet20")
    with pytest.raises(InputError, match=message):
        graph.macs(kept)


def test_widths_in_the_order_of_the_groups():
    _, _, graph = network("resnet20")
    widths = graph.widths({"layer2.0.conv2": range(5)})
    position = list(graph.groups).index("layer2.0.conv2")
    assert widths[position] == 5
    assert widths.sum() == graph.widths().sum() - 27
