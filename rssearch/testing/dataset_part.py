"""A dataset under test, and what its pixels are to a network."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssearch import data
from rssearch.config.settings import Patches
from rssearch.data import ImageSet, SceneSet
from rssearch.data.listing import Listing
from rssearch.data.registry import listing
from rssearch.data.scenes import SceneListing
from rssearch.imaging.rasters import missing

__all__ = ["DatasetPart", "normalised", "scaled"]


class DatasetPart:
    """A dataset under test.

    Args:
        name: of the registry, ``folder:PATH`` or ``seg-folder:PATH``.
        root: folder of the datasets.
        size: pixels; images are scaled to it, scenes are cut into patches of it.
    """

    def __init__(self, name: str, root: Path, size: int = 16) -> None:
        self.name, self.root, self.size = name, root, size
        self.task = data.task(name) or data.task_in(name, root)
        self.options: dict[str, Any] = {"input_size": size}
        if self.task == "segmentation":
            self.options = {"patches": Patches(size=size, overlap=size // 3)}

    def load(self, **more: Any) -> Any:
        """The set, loaded now."""
        return data.load(self.name, self.root, **self.options, **{"workers": 1, **more})

    @cached_property
    def images(self) -> ImageSet:
        """The set of images, loaded once."""
        found = self.load()
        assert isinstance(found, ImageSet)
        return found

    @property
    def pixels(self) -> NDArray[Any]:
        """The images [N, C, H, W], in memory."""
        pixels = self.images.images
        assert isinstance(pixels, np.ndarray)
        return pixels

    @cached_property
    def scenes(self) -> SceneSet:
        """The set of scenes, loaded once."""
        found = self.load()
        assert isinstance(found, SceneSet)
        return found

    @cached_property
    def listing(self) -> Listing | SceneListing:
        """What it holds, before a pixel is read."""
        return listing(self.name, self.root)

    @property
    def divided(self) -> bool:
        """Whether it comes divided into all of train, val and test, so that no seed changes anything."""
        return {"train", "val", "test"} == set(self.listing.fixed or ())


def scaled(pixels: NDArray[Any], found: ImageSet | SceneSet) -> NDArray[np.float64]:
    """Pixels [..., C, H, W] as their scaling says; NaN without data."""
    low, high = found.scaling.ends(len(found.mean))
    scaled = (pixels.astype(np.float64) - low) / (high.astype(np.float64) - low)
    lost = missing(pixels, found.scaling.nodata)
    return scaled if lost is None else np.where(lost, np.nan, scaled)


def normalised(pixels: NDArray[Any], found: ImageSet | SceneSet) -> NDArray[np.float64]:
    """Pixels [C, H, W] as a network gets them: mean 0 and deviation 1, and 0 without data."""
    return np.nan_to_num((scaled(pixels, found) - found.mean[:, None, None]) / found.std[:, None, None])
