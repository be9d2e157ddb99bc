"""The real sets, where the environment variable RSSEARCH_DATA names a data root that holds them."""

import os

import numpy as np
import pytest

from rssearch import data
from rssearch.config.settings import Split

ROOT = os.environ.get("RSSEARCH_DATA", "")
pytestmark = [pytest.mark.slow, pytest.mark.real]


def test_eurosat():
    images = data.load("eurosat_rgb", ROOT)
    assert images.images.shape == (21_600, 3, 64, 64)
    assert {split: len(members) for split, members in images.indices.items()} == {
        "train": 15_120, "val": 2_160, "test": 4_320,
    }  # fmt: skip
    # Helber et al. give no moments; these are those of Sentinel-2 scenes stretched to 8 bits.
    np.testing.assert_allclose(images.mean, [0.345, 0.380, 0.408], atol=0.005)


def test_ucmerced():
    images = data.load("ucmerced", ROOT, input_size=64, split=Split.model_validate("80/20"))
    assert images.num_classes == 21
    assert np.bincount(images.labels[images.indices["test"]]).tolist() == [16] * 21
    report = data.verify("ucmerced", ROOT)
    assert report.ok
    assert report.images + len(report.missing) == 2_100


def test_dubai():
    scenes = data.load("dubai", ROOT)
    assert scenes.classes == ("building", "land", "road", "vegetation", "water")
    tiles = {split: {scenes.groups[s] for s in scenes.windows[members, 0]} for split, members in scenes.indices.items()}
    assert sum(map(len, tiles.values())) == len(set(scenes.groups)) == len(scenes.names) / 9
    pixels = {
        split: sum(scene.mask.numel() for scene in scenes.split(split).scenes()) for split in ("train", "val", "test")
    }
    shares = np.array(list(pixels.values())) / sum(pixels.values())
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.05)
    report = data.verify("dubai", ROOT)
    assert report.ok
    assert report.images + len(report.missing) == 72
    # The shares of the classes that the six tiles have, by their description.
    if report.images == 54:
        counts = np.array([*report.classes.values(), report.ignored])
        np.testing.assert_allclose(counts / counts.sum(), [0.146, 0.546, 0.101, 0.090, 0.107, 0.010], atol=5e-4)
