"""What the picture of scores shows."""

import pytest
import torch

from rssearch.errors import InputError
from rssearch.pruning.picture import KEPT, REMOVED, draw

SCORES = {"conv1": torch.tensor([0.1, 0.9, 0.5]), "conv2": [1.0, 2.0]}


def test_every_channel_is_drawn_once_as_kept_or_removed():
    figure = draw(SCORES, {"conv1": (1, 2)})
    left, right = figure.axes
    drawn = {
        colour: sorted(float(x) for line in left.lines if line.get_color() == colour for x in line.get_xdata())
        for colour in (KEPT, REMOVED)
    }
    assert drawn[KEPT] == pytest.approx([0.5, 0.9, 1.0, 2.0])
    assert drawn[REMOVED] == pytest.approx([0.1])
    assert [text.get_text() for text in right.texts] == ["2 of 3", "2 of 2"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["conv1", "conv2"]


@pytest.mark.parametrize(("kept", "words"), [({"conv3": (0,)}, "no scores of conv3"), ({"conv2": (2,)}, "conv2 has 2")])
def test_what_does_not_fit_is_refused(kept, words):
    with pytest.raises(InputError, match=words):
        draw(SCORES, kept)
