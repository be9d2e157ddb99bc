"""A small real-image study for the tests of trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rssearch.config.settings import Settings

RECIPE = {"epochs": 2, "batch_size": 16, "lr": 0.05}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 noisy pictures that differ in colour."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for index, name in enumerate(("forest", "river", "town")):
        folder = root / "scenes" / name
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 120, (16, 16, 3))
            pixels[..., index] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.model_validate(
        {
            "split": {"train": 0.6, "val": 0.2, "test": 0.2},
            "train": RECIPE,
            "finetune": RECIPE | {"lr": 0.01},
            "augment": {"crop": 2},
            "pruning": {"score_batches": 2, "score_batch_size": 16},
        }
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")
