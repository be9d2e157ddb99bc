import numpy as np
import pytest
import torch
from torch import nn

from rssearch import data
from rssearch.config.settings import Augment, Patches
from rssearch.data import buildings
from rssearch.data.loader import batches


def test_a_scene_depends_on_seed_and_number_alone():
    image, mask = buildings.draw(3)
    again, same = buildings.draw(3)
    assert np.array_equal(image, again)
    assert np.array_equal(mask, same)
    assert image.shape == (128, 128, 3)
    assert mask.shape == (128, 128)
    assert image.dtype == mask.dtype == np.uint8
    everything = [buildings.draw(index) for index in range(buildings.SCENES)]
    assert len({image.tobytes() for image, _ in everything}) == buildings.SCENES
    assert not np.array_equal(buildings.draw(3, seed=1)[1], mask)


def test_every_scene_has_buildings_and_more_of_what_is_not():
    shares = [buildings.draw(index)[1].mean() for index in range(buildings.SCENES)]
    assert min(shares) > 0.1
    assert max(shares) < 0.35


@pytest.mark.parametrize("index", range(4))
def test_a_scene_keeps_its_content_at_every_size(index):
    small, large = buildings.draw(index, 64)[1], buildings.draw(index, 256)[1]
    assert ((large.reshape(64, 4, 64, 4).mean((1, 3)) > 0.5) == small).mean() > 0.97


def test_masks_lie_where_the_buildings_are():
    """Edges of the mask are edges of the image; a mask that is moved by a few pixels fits worse."""

    def contrast(image, mask):
        grey = image.astype(float).mean(2)
        edge = mask[:, 1:] != mask[:, :-1]
        return np.abs(np.diff(grey, axis=1))[edge].mean()

    scenes = [buildings.draw(index) for index in range(8)]
    at_place = np.mean([contrast(image, mask) for image, mask in scenes])
    for move in ((3, 0), (-3, 0), (0, 3), (0, -3)):
        assert at_place > 1.5 * np.mean([contrast(image, np.roll(mask, move, (0, 1))) for image, mask in scenes])


def test_a_small_network_learns_it_in_seconds():
    scenes = data.load("synthetic_buildings", ".", patches=Patches(size=64), workers=1)

    def block(inputs, outputs, dilation):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(block(3, 16, 1), block(16, 16, 2), block(16, 16, 4), nn.Conv2d(16, 2, 1))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for epoch in range(10):
            for x, y in batches(
                scenes.split("train"), 16, device="cpu", train=True, augment=Augment(), seed=0, epoch=epoch
            ):
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
    with torch.no_grad():
        x, y = next(iter(batches(scenes.split("test"), 64, device="cpu", train=False)))
        found = model.eval()(x).argmax(1)
    overlap = ((found == 1) & (y == 1)).sum() / ((found == 1) | (y == 1)).sum()
    assert 0.25 < overlap < 0.9
