"""rssearch.imaging.geowrite: a written raster is at the place of its scene, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from rssearch.errors import InputError
from rssearch.imaging import geowrite
from rssearch.imaging.georaster import Bands, opened
from rssearch.imaging.geowrite import Content, written
from tests.support.geo import PLACE, UTM, geotiff, reflectance

TAKEN = Bands(4, "uint16", None, (0.0,) * 4)
TURNED = Affine(9.7, 2.9, 500_000.1, 2.9, -9.7, 5_000_000.7)
OWN = "+proj=laea +lat_0=47.1 +lon_0=11.3 +x_0=1.5 +ellps=GRS80 +units=m"


def content(shape: tuple[int, int], dtype: str = "uint8", **more: Any) -> Content:
    return Content((1, *shape), dtype, 255, ["class"], {"CLASSES": "ä"}, **more)


def copied(scene: Path, target: Path) -> Path:
    """Zeros at the place of a scene."""
    with opened(scene, TAKEN) as found, written(target, found.place, content(found.shape)) as writer:
        writer.add(np.zeros((1, *found.shape), np.uint8), 0)
    return target


@pytest.mark.parametrize(
    "place",
    [
        {"crs": UTM, "transform": PLACE},
        {"crs": "EPSG:4326", "transform": Affine(1 / 3, 0, -180, 0, -1 / 3, 0.1 + 0.2)},
        {"crs": UTM, "transform": TURNED},
        {"crs": UTM, "transform": Affine(10, 0, 0, 0, 10, 0)},  # the south is up
        {"crs": OWN, "transform": PLACE},
        {"crs": None, "transform": PLACE},
    ],
)
@pytest.mark.parametrize("point", [False, True])
def test_crs_and_transform_are_those_of_the_scene(tmp_path: Path, place: dict[str, Any], point: bool) -> None:
    path = geotiff(tmp_path / "a.tif", reflectance(20, 30), **place)
    if point:
        with rasterio.open(path, "r+") as file:
            file.update_tags(AREA_OR_POINT="Point")
    target = copied(path, tmp_path / "b.tif")
    with rasterio.open(path) as scene, rasterio.open(target) as found:
        assert found.transform == scene.transform
        assert found.crs == scene.crs
        assert found.tags().get("AREA_OR_POINT") == scene.tags().get("AREA_OR_POINT")
        assert found.bounds == scene.bounds


def test_control_points_and_coefficients_are_kept(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", reflectance(20, 30), crs=None, transform=Affine.identity())
    points = [GroundControlPoint(row, column, 9 + column / 7, 50 - row / 7) for row in (0, 20) for column in (0, 30)]
    with rasterio.open(path, "r+") as file:
        file.gcps = (points, CRS.from_epsg(4326))
    with rasterio.open(copied(path, tmp_path / "b.tif")) as found:
        kept, crs = found.gcps
        assert [(p.row, p.col, p.x, p.y) for p in kept] == [(p.row, p.col, p.x, p.y) for p in points]
        assert crs.to_epsg() == 4326


def test_it_is_a_cloud_optimized_geotiff_with_its_names_and_colours(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2, (1, 700, 1100)).astype(np.uint8)
    about = content((700, 1100), colours={0: (1, 2, 3, 255), 1: (4, 5, 6, 255), 255: (0, 0, 0, 0)})
    with written(tmp_path / "a.tif", None, about) as writer:
        for column in (0, 512, 1024):
            for first, last in ((0, 3), (3, 500), (500, 513), (513, 700)):
                writer.add(values[:, first:last, column : column + 512], column)
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(), values)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.block_shapes, file.overviews(1), file.nodata) == ([(512, 512)], [2, 4], 255)
        assert (file.descriptions, file.tags()["CLASSES"]) == (("class",), "ä")
        assert [file.colormap(1)[index] for index in (0, 1, 255)] == list(about.colours.values())
        smaller = file.read(1, out_shape=(175, 275))
        assert set(np.unique(smaller)) == {0, 1}  # the most frequent class, and no mean
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_what_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.tif"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), written(target, None, content((9, 9))):
        raise ZeroDivisionError
    path = geotiff(tmp_path / "scene.tif", reflectance(9, 9))
    monkeypatch.setattr(geowrite, "_OPTIONS", {"BLOCKSIZE": "7"})
    with pytest.raises(InputError, match=r"a\.tif: cannot be written: "):
        copied(path, target)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "scene.tif"]


def test_a_place_that_a_geotiff_cannot_keep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = geotiff(tmp_path / "a.tif", reflectance(9, 9))
    real = geowrite._profile

    def moved(place: Any, about: Content) -> dict[str, Any]:
        return real(place, about) | {"transform": Affine(*PLACE[:2], PLACE.c + 1e-6, *PLACE[3:6])}

    monkeypatch.setattr(geowrite, "_profile", moved)
    with pytest.raises(InputError, match=r"b\.tif: the coordinates of the scene cannot be kept"):
        copied(path, tmp_path / "b.tif")
    assert not (tmp_path / "b.tif").exists()
