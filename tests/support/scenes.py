"""What the tests of segmentation share: scenes whose classes are easy to tell, and a small encoder-decoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rssearch.data import IGNORE, SceneSet
from rssearch.data.scenestore import Memory
from rssearch.data.windows import cut

LEVELS = (40, 130, 220)  # the brightness of each class


def scene_set(counts: tuple[int, int, int] = (6, 2, 2), shape: tuple[int, int] = (24, 16), size: int = 8) -> SceneSet:
    """Scenes of 4x4 blocks, whose class is their brightness; one pixel of each block is ignored."""
    rng = np.random.default_rng(0)
    images, masks, names = [], [], []
    for number in range(sum(counts)):
        blocks = rng.integers(0, len(LEVELS), (shape[0] // 4 + 1, shape[1] // 4 + 1))
        mask = blocks.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]].astype(np.uint8)
        pixels = np.array(LEVELS)[mask][..., None] + rng.normal(0, 10, (*shape, 3))
        mask[::4, ::4] = IGNORE
        images.append(pixels.clip(0, 255).astype(np.uint8))
        masks.append(mask)
        names.append(f"scene {number}")
    starts = np.cumsum((0, *counts))
    sides = {name: range(starts[i], starts[i + 1]) for i, name in enumerate(("train", "val", "test"))}
    windows = {name: cut([shape] * len(names), scenes, size) for name, scenes in sides.items()}
    ends = np.cumsum([len(found) for found in windows.values()])
    indices = {name: np.arange(end - len(windows[name]), end) for name, end in zip(windows, ends, strict=True)}
    return SceneSet(
        name="levels",
        classes=("dark", "grey", "bright"),
        scenes=Memory(images, masks),
        names=tuple(names),
        groups=tuple(names),
        windows=np.concatenate(list(windows.values())),
        size=size,
        indices=indices,
        mean=np.full(3, 0.5, np.float32),
        std=np.full(3, 0.3, np.float32),
        fingerprint="",
        split_hash="",
    )


class TinyUNet(nn.Module):
    """Two levels, a transposed convolution and a skip: [N, 3, H, W] to logits [N, K, H, W], H and W even."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.bottom = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.fuse = nn.Sequential(nn.Conv2d(12, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        low = self.up(self.bottom(self.pool(skip)))
        logits: Tensor = self.head(self.fuse(torch.cat([skip, low], 1)))
        return logits


def tiny(seed: int = 0, classes: int = 3) -> TinyUNet:
    """A `TinyUNet` with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyUNet(classes)
