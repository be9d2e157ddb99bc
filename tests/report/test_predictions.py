"""rssearch.report.predictions: pictures of scenes, their masks and what a network makes of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rssearch.data import IGNORE, SceneSet
from rssearch.data.imageset import normalise
from rssearch.errors import InputError
from rssearch.report import predictions
from rssearch.report.look import COLOURS, shade
from rssearch.report.predictions import Example, coloured, draw, examples, png
from tests.support.scenes import LEVELS, scene_set

CPU = torch.device("cpu")
TILES: dict[str, Any] = {"size": 8, "overlap": 2, "batch_size": 4, "device": CPU}


class Brightness(nn.Module):
    """Knows the classes of `scene_set`: the nearest level of brightness."""

    def __init__(self, source: SceneSet) -> None:
        super().__init__()
        grey = torch.tensor(LEVELS)[:, None, None, None].expand(-1, 3, 1, 1)
        self.levels = normalise(grey, source).mean((1, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return -(x.mean(1, keepdim=True) - self.levels[:, None, None]).abs()


def example(mask: Tensor, predicted: Tensor | None = None, name: str = "scene") -> Example:
    pixels = np.zeros((*mask.shape, 3), np.uint8)
    return Example(name, pixels, mask, mask.clamp_max(2) if predicted is None else predicted)


def titles(found: list[Example]) -> list[str]:
    return [panel.get_title() for panel in draw(found, ("dark", "grey", "bright")).axes]


def legend(found: list[Example]) -> list[str]:
    return [text.get_text() for text in draw(found, ("dark", "grey", "bright")).legends[0].get_texts()]


def test_examples_are_the_pixels_the_mask_and_the_classes_of_a_scene() -> None:
    source = scene_set()
    model = Brightness(source).train()
    found = examples(model, source.split("test"), **TILES)
    assert [one.name for one in found] == ["scene 8", "scene 9"]
    for one, number in zip(found, (8, 9), strict=True):
        assert (one.pixels == source.scenes.image(number)).all()
        assert (one.mask.numpy() == source.scenes.mask(number)).all()
        assert one.predicted.shape == one.mask.shape
        labelled = one.mask != IGNORE
        assert (one.predicted[labelled] == one.mask[labelled]).all()
    assert model.training


@pytest.mark.parametrize(
    ("count", "names"), [(1, [0]), (2, [0, 5]), (3, [0, 2, 5]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])]
)
def test_scenes_are_spaced_evenly_over_the_split(count: int, names: list[int]) -> None:
    source = scene_set()
    found = examples(Brightness(source), source.split("train"), count=count, **TILES)
    assert [one.name for one in found] == [f"scene {number}" for number in names]


def test_of_a_large_scene_the_middle_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "SIDE", 10)
    source = scene_set(shape=(24, 9))
    (found,) = examples(Brightness(source), source.split("test"), count=1, **TILES)
    assert (found.pixels == source.scenes.image(8)[7:17]).all()
    assert (found.mask.numpy() == source.scenes.mask(8)[7:17]).all()
    assert found.predicted.shape == (10, 9)


def test_an_empty_split_has_no_examples() -> None:
    source = scene_set()
    split = source.split("test").part(np.array([], dtype=np.int64))
    assert examples(Brightness(source), split, **TILES) == []


def test_tiles_that_cannot_overlap_so_are_refused() -> None:
    source = scene_set()
    with pytest.raises(InputError, match="tiles of 8 pixels cannot overlap by 8"):
        examples(Brightness(source), source.split("test"), **(TILES | {"overlap": 8}))


def test_the_scenes_pixels_stay_as_they_are() -> None:
    source = scene_set()
    before = source.scenes.image(8).copy()
    source.scenes.image(8).setflags(write=False)
    examples(Brightness(source), source.split("test"), **TILES)
    assert (source.scenes.image(8) == before).all()


def test_classes_have_colours_of_their_own() -> None:
    colours = [shade(index) for index in range(36)]
    assert len(set(colours)) == 36
    assert ["#{:02X}{:02X}{:02X}".format(*found) for found in colours[:12]] == list(COLOURS)
    assert not {predictions.PALE, predictions.STRIPE} & set(colours)


def test_pixels_without_a_label_are_hatched() -> None:
    labels = torch.zeros(16, 20, dtype=torch.int64)
    labels[:, 10:], labels[8:] = 1, IGNORE
    picture = coloured(labels)
    assert picture.dtype == np.uint8
    assert (picture[:8, :10] == shade(0)).all()
    assert (picture[:8, 10:] == shade(1)).all()
    rest = {tuple(pixel) for pixel in picture[8:].reshape(-1, 3).tolist()}
    assert rest == {predictions.PALE, predictions.STRIPE}


def test_titles_tell_the_iou_of_what_is_shown() -> None:
    mask = torch.zeros(4, 4, dtype=torch.int64)
    mask[:2], mask[0, 0] = 1, IGNORE
    wrong = mask.clone()
    wrong[0, 0], wrong[1, 0] = 2, 0  # the first does not count: IoUs 8/9 and 6/7
    ignored = torch.full((4, 4), IGNORE)
    found = [example(mask, wrong, "a" * 40), example(mask, mask.clamp_max(1)), example(ignored, ignored * 0, "$x_1$")]
    assert titles(found) == [
        *("…" + "a" * 25, "mask", "prediction, mIoU 87.3 %"),
        *("scene", "mask", "prediction, mIoU 100.0 %"),
        *(r"\$x_1\$", "mask", "prediction, no label"),
    ]


def test_the_legend_names_what_is_seen() -> None:
    mask = torch.zeros(4, 4, dtype=torch.int64)
    assert legend([example(mask)]) == ["dark"]
    assert legend([example(mask, mask + 2)]) == ["dark", "bright"]
    mask[0] = IGNORE
    assert legend([example(mask, mask * 0 + 1)]) == ["dark", "grey", "no label"]


def test_png_is_small_and_always_the_same() -> None:
    rng = np.random.default_rng(0)
    blocks = torch.from_numpy(rng.integers(0, 3, (32, 32))).repeat_interleave(16, 0).repeat_interleave(16, 1)
    pixels = np.clip(90 + rng.normal(0, 25, (512, 512, 3)), 0, 255).astype(np.uint8)
    found = [Example(f"scene {i}", pixels, blocks, blocks.roll(9 * i, 0)) for i in range(3)]
    content = png(found, ("dark", "grey", "bright"))
    assert len(content) < predictions.LIMIT
    assert content == png(found, ("dark", "grey", "bright"))
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).reshape(-1, 3).astype(int)
    for index in range(3):  # the palette keeps the colours of large areas
        assert (np.abs(picture - shade(index)).max(1) <= 3).mean() > 0.1


def test_png_that_is_too_large_has_the_lowest_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [example(torch.zeros(8, 8, dtype=torch.int64))]
    large = Image.open(io.BytesIO(png(found, ("dark",))))
    monkeypatch.setattr(predictions, "LIMIT", 0)
    small = Image.open(io.BytesIO(png(found, ("dark",))))
    assert large.width / small.width == pytest.approx(110 / 70, rel=0.01)


def test_pictures_leave_no_global_state() -> None:
    import matplotlib.pyplot as plt

    png([example(torch.zeros(8, 8, dtype=torch.int64))], ("dark",))
    assert plt.get_fignums() == []
