"""Pruning studies on rasters: 13 bands as EuroSAT has them, from the files to what a deployment is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rssearch import data, models
from rssearch.config.settings import Settings
from rssearch.data.eurosat_ms import BANDS
from rssearch.errors import InputError
from rssearch.trial.session import Context, Session
from rssearch.trials import prune
from rssearch.trials.planned import PlannedTrial
from rssearch.trials.point import PruningPoint
from rssearch.trials.results import MODELS
from tests.support.fakes import multispectral

POINT = {"dataset": "eurosat_ms", "model": "resnet20", "method": "l1", "macs_ratio": 0.5, "seed": 0}
RECIPE = {"epochs": 1, "batch_size": 16, "lr": 0.05}
SETTINGS = Settings.model_validate({"train": RECIPE, "finetune": RECIPE, "augment": {"jitter": 0.1, "crop": 2}})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("data")
    multispectral(found)
    return found


def planned(point: dict[str, Any], root: Path, **settings: Any) -> PlannedTrial:
    given = Settings.model_validate(SETTINGS.model_dump(mode="json") | settings)
    return PlannedTrial(PruningPoint(point, given), root)


@pytest.mark.parametrize(("asked", "count"), [("all", 13), ("B04,B03,B02", 3), ("8, 4", 2)])
def test_a_trial_reads_the_bands_that_its_point_names(tmp_path: Path, root: Path, asked: str, count: int) -> None:
    point = POINT | {"bands": asked}
    prune.check(point, SETTINGS)
    session = Session(Context("s", str(tmp_path), str(root), SETTINGS), "trial", point)
    found = prune.run(point, session)
    assert abs(found["macs_ratio"] - 0.5) < 0.01
    measured = prune.measure(point, session)
    assert {"test_accuracy", "test_macro_f1", "baseline_test_accuracy"} <= set(measured)
    kept = session.store.get(MODELS, "trial")
    assert kept is not None
    about = json.loads(kept["about.json"])
    names = {"all": list(BANDS), "B04,B03,B02": ["B04", "B03", "B02"], "8, 4": ["B08", "B04"]}[asked]
    assert about["input_shape"] == [count, 16, 16]
    assert (about["bands"], about["dtype"]) == (names, "uint16")
    assert about["scale"] == {"low": [0.0] * count, "high": [10_000.0] * count}
    assert about["file"] == {"bands": 13, "numbers": [BANDS.index(name) + 1 for name in names]}
    images = data.load("eurosat_ms", root)
    assert isinstance(images, data.ImageSet)
    assert isinstance(images.images, np.ndarray)
    train = images.images[images.indices["train"]][:, [BANDS.index(name) for name in names]]
    np.testing.assert_allclose(about["mean"], train.mean((0, 2, 3)) / 10_000, rtol=1e-6)


def test_what_determines_an_image_set_is_in_its_key(root: Path) -> None:
    plain = planned(POINT, root)
    others = [
        planned(POINT | {"bands": "B04,B03,B02"}, root),
        planned(POINT, root, bands=["B04"]),
        planned(POINT, root, scale={"divide": 5000}),
        planned(POINT, root, nodata=0),
    ]
    assert len({trial.keys.data for trial in (plain, *others)}) == 5
    assert planned(POINT | {"bands": "all"}, root).keys.data == plain.keys.data
    same = planned(POINT, root, bands=["B04", "B03", "B02"])
    assert same.keys.baseline == others[0].keys.baseline
    assert (
        plain.pixels == f"eurosat_ms: 13 bands of uint16 ({', '.join(BANDS)}), divided by 10000, normalised by dataset"
    )


def test_a_network_for_another_task_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "fields").symlink_to(root / "EuroSATallBands" / "tif")
    segmenter = next(name for name in models.list_models() if models.task_of(name) == "segmentation")
    trial = planned(POINT | {"dataset": "raster_folder:fields", "model": segmenter}, tmp_path)
    with pytest.raises(InputError, match=r"is a dataset for classification, but .* is a network for segmentation"):
        _ = trial.description
