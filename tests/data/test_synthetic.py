import time

import numpy as np
import pytest

from rssearch import data
from rssearch.data import synthetic
from rssearch.data.brushes import Sheet
from rssearch.errors import InputError


def test_a_scene_depends_on_its_number_alone():
    for label in range(len(synthetic.SCENES)):
        together = synthetic.draw(label, np.arange(100, 106), 32)
        assert np.array_equal(synthetic.draw(label, np.array([103]), 32)[0], together[3])
        assert len({image.tobytes() for image in together}) == 6
    assert not np.array_equal(synthetic.draw(0, np.arange(2), 32), synthetic.draw(0, np.arange(2), 32, seed=1))


def test_scenes_are_drawn_as_ever():
    """Literals: results on other pixels, or under another fingerprint, are of another dataset."""
    drawn = synthetic.draw_all(16)
    assert data.fingerprint("synthetic_scenes", ".").startswith("b2f2f74ad2c99a29")
    # Sums instead of a hash: processors may round a value in a million to the other side.
    assert abs(int(drawn.sum(dtype=np.int64)) - 244_941_065) < 245


def test_the_number_of_threads_does_not_matter():
    assert np.array_equal(synthetic.draw_all(16, workers=1), synthetic.draw_all(16, workers=3))


@pytest.mark.parametrize("size", [16, 33, 64, 128])
def test_every_size_is_drawn(size):
    for label in range(len(synthetic.SCENES)):
        images = synthetic.draw(label, np.arange(2), size)
        assert images.shape == (2, 3, size, size)
        assert images.dtype == np.uint8
        assert images.std() > 4


def test_a_scene_keeps_its_content_at_every_size():
    """The mean over 4x4 pixels of a large drawing looks like the small drawing, noise apart."""
    for label, name in enumerate(synthetic.SCENES):
        small = synthetic.draw(label, np.arange(8), 32).astype(float)
        large = synthetic.draw(label, np.arange(8), 128).astype(float)
        large = large.reshape(8, 3, 32, 4, 32, 4).mean((3, 5))
        close = np.abs(small.mean((2, 3)) - large.mean((2, 3))).mean()
        other = np.abs(small.mean((2, 3)) - np.roll(large, 1, axis=0).mean((2, 3))).mean()
        assert close < 0.35 * other, name


def test_impossible_sizes():
    for size in (8, 1024):
        with pytest.raises(InputError, match="16 to 512"):
            data.load("synthetic_scenes", ".", input_size=size)


def test_float32_throughout():
    sheet = Sheet(0, np.arange(2), 16, synthetic.METRES)
    synthetic.industrial(sheet)
    assert sheet.canvas.dtype == np.float32
    assert sheet.x.dtype == np.float32
    assert synthetic.finish(sheet).dtype == np.uint8


def test_drawing_is_fast():
    start = time.process_time()
    synthetic.draw_all(32, workers=1)
    assert 3000 / (time.process_time() - start) > 500  # about 3,000 images/s on a core of 2024


def test_no_root_is_needed(tmp_path):
    images = data.load("synthetic_scenes", tmp_path / "nowhere")
    assert images.images.shape == (3000, 3, 32, 32)
    assert {split: len(members) for split, members in images.indices.items()} == {
        "train": 2100,
        "val": 300,
        "test": 600,
    }


@pytest.mark.slow
def test_a_small_network_learns_much_but_not_all():
    """Between chance (8 %) and certainty, so that pruning methods can be told apart."""
    import torch
    from torch import nn

    from rssearch.config.settings import Augment
    from rssearch.data.loader import batches

    torch.manual_seed(0)
    images = data.load("synthetic_scenes", ".")
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.Conv2d(outputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for epoch in range(8):
        for x, y in batches(images.split("train"), 64, device="cpu", train=True, augment=Augment(), epoch=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.7
    model.eval()
    with torch.no_grad():
        hits = [
            (model(x).argmax(1) == y).sum() for x, y in batches(images.split("test"), 200, device="cpu", train=False)
        ]
    assert 0.5 < sum(hits) / 600 < 0.97
