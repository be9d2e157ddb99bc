"""Scenes of six bands: the drawing of RGB scenes, with spectra that tell apart what looks alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rssearch import data
from rssearch.config.settings import Augment, Recipe
from rssearch.data import synthetic, synthetic_bands
from rssearch.data.describe import describe
from rssearch.data.reading import Options
from rssearch.data.synthetic_bands import BANDS, CLASSES, INFRARED, MATERIALS, SpectralSheet
from rssearch.errors import InputError
from rssearch.train.loop import evaluate
from tests.support.training import CPU, fit

NAMES = list(CLASSES)
NEAR_INFRARED, SHORT_WAVE = BANDS.index("B08"), BANDS.index("B11")
ALIKE = (("forest", "stressed_forest"), ("meadow", "dry_meadow"), ("fields", "irrigated_fields"))


def drawn(name: str, count: int = 16, size: int = 16) -> np.ndarray:
    return synthetic_bands.draw(NAMES.index(name), np.arange(count), size).astype(float)


def test_a_scene_depends_on_its_number_alone() -> None:
    for label in range(len(CLASSES)):
        together = synthetic_bands.draw(label, np.arange(100, 104), 16)
        assert together.dtype == np.uint16
        assert together.shape == (4, len(BANDS), 16, 16)
        assert np.array_equal(synthetic_bands.draw(label, np.array([103]), 16)[0], together[3])
        assert len({image.tobytes() for image in together}) == 4
        assert together.max() <= 10_000  # a reflectance of 1


def test_what_is_said_of_it_is_what_it_holds() -> None:
    found = data.registry.listing("synthetic_bands", ".")
    assert found.bands == BANDS
    assert found.fingerprint != data.fingerprint("synthetic_scenes", ".")
    assert data.registry.listing("synthetic_scenes", ".").bands is None
    described = describe("synthetic_bands", ".", input_size=16)
    assert described.input_shape == (6, 16, 16)
    assert described.classes == tuple(NAMES)
    with pytest.raises(InputError, match="synthetic_bands: input_size 8 is not allowed"):
        synthetic_bands.draw_all(8)


def test_every_colour_of_the_scenes_has_a_material() -> None:
    palettes = ("GRASS", "CROPS", "SOIL", "TREES", "WATER", "ASPHALT", "TILES", "METAL", "PANEL")
    assert {colour for name in palettes for colour in getattr(synthetic, name)} <= MATERIALS.keys()
    assert set(MATERIALS.values()) | {new for kind in CLASSES.values() for new in kind.instead.values()} == {*INFRARED}
    sheet = SpectralSheet(np.arange(1), 16, 0, {"tree": "stressed tree"})
    red, green, blue = synthetic.TREES[0]
    assert sheet.spectrum(synthetic.TREES[0]) == (blue, green, red, *INFRARED["stressed tree"])
    assert sheet.spectrum(synthetic.WATER[0])[3:] == INFRARED["water"]


def test_bands_are_what_sensors_see() -> None:
    lake, forest, soil = (drawn(name).mean((0, 2, 3)) for name in ("lake", "forest", "bare_land"))
    red = BANDS.index("B04")
    assert forest[NEAR_INFRARED] > 3 * forest[red]
    assert forest[NEAR_INFRARED] > 1.5 * lake[NEAR_INFRARED]
    assert soil[SHORT_WAVE] > soil[NEAR_INFRARED] > soil[red]
    assert soil[SHORT_WAVE] > 1.5 * forest[SHORT_WAVE]
    water = np.percentile(drawn("lake")[:, NEAR_INFRARED], 5)
    assert water < 500 < np.percentile(forest[NEAR_INFRARED], 5)


@pytest.mark.parametrize(("plain", "other"), ALIKE)
def test_pairs_differ_in_infrared_alone(plain: str, other: str) -> None:
    """In the visible bands they are the same to the last bit where their numbers are."""
    first, second = drawn(plain), drawn(other)
    assert np.array_equal(first[:, :3], second[:, :3])
    assert CLASSES[plain].scene is CLASSES[other].scene
    gap = np.abs(first.mean((2, 3)) - second.mean((2, 3)))[:, [NEAR_INFRARED, SHORT_WAVE]].max(1)
    assert np.median(gap) > 200
    spread = first.mean((2, 3)).std(0)[[NEAR_INFRARED, SHORT_WAVE]]
    assert np.median(gap) < 6 * spread.max()  # not so far apart that nothing is to be learned


def network(bands: int) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((bands, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(CLASSES)))


@pytest.mark.slow
def test_a_network_needs_the_bands() -> None:
    images = data.load("synthetic_bands", ".", input_size=16)
    assert isinstance(images, data.ImageSet)
    recipe = Recipe(epochs=8, batch_size=64, optimizer="adamw", lr=1e-2)
    reached = {}
    for name, bands in (("visible", [0, 1, 2]), ("all", [*range(6)])):
        numbers = tuple(band + 1 for band in bands)
        chosen = data.load("synthetic_bands", ".", input_size=16, bands=Options(bands=numbers))
        model = network(len(bands))
        fit(model, chosen, recipe, augment=Augment(crop=2))
        reached[name] = evaluate(model, chosen.split("test"), batch_size=200, device=CPU)["accuracy"]
    assert reached["all"] > reached["visible"] + 0.1
    assert 0.6 < reached["all"] < 0.99


def test_its_images_are_augmented_and_normalised() -> None:
    images = data.load("synthetic_bands", ".", input_size=16)
    augment = Augment(crop=2, jitter=0.1, band_dropout=0.1)
    x, y = next(data.loader.batches(images.split("train"), 512, device="cpu", train=True, augment=augment))
    assert x.shape == (512, 6, 16, 16)
    assert len(y.unique()) == len(CLASSES)
    lost = (x == 0).all(3).all(2)
    assert 20 < lost.sum() < 90
    assert lost.sum(1).max() == 1
    kept = x[~lost.any(1)]
    torch.testing.assert_close(kept.mean((0, 2, 3)), torch.zeros(6), atol=0.15, rtol=0)
    torch.testing.assert_close(kept.std((0, 2, 3)), torch.ones(6), atol=0.2, rtol=0)
