"""rssearch.bundle.grid: classes of a scene tile by tile, in a coarse raster and as footprints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from rssearch.bundle import grid, predict, scenes
from rssearch.bundle.__main__ import main
from rssearch.errors import InputError
from rssearch.imaging.pixels import scale
from tests.support.geo import CLASSES, PLACE, about, bundle, geotiff, network, reflectance


@pytest.fixture(scope="module")
def classifier() -> predict.Network:
    """For four bands of 16 bits, images of 16 pixels."""
    return network(about(segments=False))


def features(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text())
    assert list(found) == ["type", "features"]  # RFC 7946 has no crs
    assert found["type"] == "FeatureCollection"
    return list(found["features"])


def test_each_tile_has_the_class_of_an_image(
    tmp_path: Path, classifier: predict.Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = reflectance(40, 56)  # 3 x 4 tiles, those on the right 8 pixels wide, those below 8 high
    path = geotiff(tmp_path / "a.tif", pixels)
    monkeypatch.setattr(grid, "MEMORY", 1)  # a tile at a time
    found = grid.classify(classifier, path, tmp_path / "out", probabilities=True)
    whole = np.pad(pixels, ((0, 0), (0, 8), (0, 8)), mode="reflect")
    tiles = [whole[:, r : r + 16, c : c + 16] for r in range(0, 48, 16) for c in range(0, 64, 16)]
    expected = predict.softmax(predict.logits_of(classifier, np.stack(tiles))).reshape(3, 4, 3).transpose(2, 0, 1)
    with rasterio.open(tmp_path / "out.grid.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), expected.argmax(0))
        a, b, c, d, e, f = PLACE[:6]
        assert raster.transform == Affine(16 * a, b, c, d, 16 * e, f)
        assert raster.crs.to_epsg() == 32633
        assert json.loads(raster.tags()["CLASSES"]) == CLASSES
    with rasterio.open(tmp_path / "out.grid.probabilities.tif") as chances:
        np.testing.assert_allclose(chances.read(), expected, atol=1e-6)
        assert chances.descriptions == tuple(CLASSES)
    assert found.tiles == 12
    assert found.nodata == 0
    assert found.classes == {name: (expected.argmax(0) == i).mean() for i, name in enumerate(CLASSES)}
    for feature in features(tmp_path / "out.grid.geojson"):
        about_it = feature["properties"]
        chances_of = expected[:, about_it["row"], about_it["column"]]
        assert about_it["class"] == CLASSES[about_it["index"]] == CLASSES[chances_of.argmax()]
        assert about_it["probability"] == pytest.approx(chances_of.max(), abs=2e-6)
        assert list(about_it["probabilities"].values()) == pytest.approx(chances_of.tolist(), abs=2e-6)
        inside = (8 if about_it["row"] == 2 else 16) * (8 if about_it["column"] == 3 else 16)
        assert about_it["with_data"] == inside / 256


def test_footprints_are_where_the_tiles_are(tmp_path: Path, classifier: predict.Network) -> None:
    path = geotiff(tmp_path / "a.tif", reflectance(40, 56))
    grid.classify(classifier, path, tmp_path / "out")
    found = features(tmp_path / "out.grid.geojson")
    assert len(found) == 12
    for feature in found:
        (ring,) = feature["geometry"]["coordinates"]
        assert feature["geometry"]["type"] == "Polygon"
        assert len(ring) == 5
        assert ring[0] == ring[-1]
        x, y = np.array(ring[:-1]).T
        assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0  # counterclockwise
        row, column = (feature["properties"][name] for name in ("row", "column"))
        lon, lat = np.array(rasterio.warp.transform("EPSG:4326", "EPSG:32633", x, y))
        columns, rows = (lon - PLACE.c) / PLACE.a, (lat - PLACE.f) / PLACE.e
        assert sorted({round(v, 3) for v in columns}) == [16 * column, min(16 * column + 16, 56)]
        assert sorted({round(v, 3) for v in rows}) == [16 * row, min(16 * row + 16, 40)]
        assert 14.9 < x.mean() < 15.1  # degrees east, before degrees north
        assert 45 < y.mean() < 46


def test_tiles_without_data_are_no_features(tmp_path: Path, classifier: predict.Network) -> None:
    pixels = reflectance(32, 32)
    pixels[:, :16, :16] = 0
    pixels[:, 16:, 28:] = 0
    found = grid.classify(classifier, geotiff(tmp_path / "a.tif", pixels, nodata=0), tmp_path / "o", probabilities=True)
    with rasterio.open(tmp_path / "o.grid.tif") as raster, rasterio.open(tmp_path / "o.grid.probabilities.tif") as p:
        assert (raster.read(1) == 255).tolist() == [[True, False], [False, False]]
        np.testing.assert_array_equal(np.isnan(p.read()), np.stack([raster.read(1) == 255] * 3))
    shares = [feature["properties"]["with_data"] for feature in features(tmp_path / "o.grid.geojson")]
    assert shares == [1, 1, 0.75]
    assert (found.nodata, sum(found.classes.values())) == (0.25, pytest.approx(1))


def test_tiles_are_cut_at_the_antimeridian(tmp_path: Path, classifier: predict.Network) -> None:
    place = Affine(1000, 0, 300_000, 0, -1000, 7_000_000)  # zone 1 reaches over it there
    scene = geotiff(tmp_path / "a.tif", reflectance(16, 80), crs="EPSG:32601", transform=place)
    grid.classify(classifier, scene, tmp_path / "o")
    shapes = [feature["geometry"] for feature in features(tmp_path / "o.grid.geojson")]
    assert [shape["type"] for shape in shapes] == ["Polygon", "Polygon", "MultiPolygon", "MultiPolygon", "Polygon"]
    assert all(x > 179 for x, _ in shapes[1]["coordinates"][0])
    assert all(x < -179 for x, _ in shapes[4]["coordinates"][0])
    for shape in shapes[2:4]:
        (west,), (east,) = shape["coordinates"]
        assert all(179 < x <= 180 for x, _ in west)
        assert all(-180 <= x < -179 for x, _ in east)
        assert {y for x, y in west if x == 180} == {y for x, y in east if x == -180}
        areas = []
        for ring in (west, east):
            assert ring[0] == ring[-1]
            x, y = np.array(ring[:-1]).T
            areas.append((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)
        assert min(areas) > 0
        assert sum(areas) == pytest.approx(0.0454, abs=3e-4)  # of a whole tile, in square degrees


def test_tiles_are_scaled_as_images_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 96), dtype=np.uint8)
    opened = network(about(3, segments=False))
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "plain.png")
    found = grid.classify(opened, tmp_path / "plain.png", tmp_path / "o", tile=48, probabilities=True)
    halves = [pixels[:, :, :48], pixels[:, :, 48:]]
    small = [np.asarray(scale(Image.fromarray(half.transpose(1, 2, 0)), 16)).transpose(2, 0, 1) for half in halves]
    with rasterio.open(tmp_path / "o.grid.probabilities.tif") as chances:
        expected = predict.softmax(predict.logits_of(opened, np.stack(small))).T
        np.testing.assert_allclose(chances.read()[:, 0], expected, atol=1e-6)
    assert (found.tiles, found.footprints) == (2, False)
    assert not (tmp_path / "o.grid.geojson").exists()  # it is nowhere
    scene = geotiff(tmp_path / "a.tif", reflectance(32, 64))
    wide = grid.classify(network(about(segments=False)), scene, tmp_path / "w", tile=32)
    assert wide.tiles == 2


def test_places_that_tiles_do_not_have_are_refused(tmp_path: Path, classifier: predict.Network) -> None:
    path = geotiff(tmp_path / "a.tif", reflectance(20, 30), crs=None, transform=Affine.identity())
    points = [GroundControlPoint(row, column, 9 + column, 50 - row) for row in (0, 20) for column in (0, 30)]
    with rasterio.open(path, "r+") as file:
        file.gcps = (points, CRS.from_epsg(4326))
    with pytest.raises(InputError, match=r"a\.tif: its place is given by control points or RPCs.* gdalwarp"):
        grid.classify(classifier, path, tmp_path / "o")
    far = geotiff(tmp_path / "far.tif", reflectance(20, 30), transform=Affine(1e9, 0, 1e12, 0, -1e9, 1e12))
    with pytest.raises(InputError, match="the tiles have no longitude and latitude"):
        grid.classify(classifier, far, tmp_path / "o")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "far.tif"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = bundle(tmp_path / "net", about(segments=False))
    masks = bundle(tmp_path / "masks", about())
    path = geotiff(tmp_path / "a.tif", reflectance(32, 48))
    out = tmp_path / "deep" / "out"
    assert main([str(net), str(path), "--grid", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["image", "grid", "footprints", "tiles", "classes", "nodata"]
    assert (found["grid"], found["footprints"]) == (str(out / "a.grid.tif"), str(out / "a.grid.geojson"))
    assert main([str(net), str(path), "--grid", "--out", str(out)]) == 0
    assert capsys.readouterr().out.split("\t")[3::2] == CLASSES
    geotiff(tmp_path / "nowhere.tif", reflectance(32, 48), crs=None)
    assert main([str(net), str(tmp_path / "nowhere.tif"), "--grid", "--out", str(out)]) == 0
    assert "has no CRS, so that its tiles have no longitude and latitude: no GeoJSON" in capsys.readouterr().err
    cases = [
        ([str(masks), str(path), "--grid"], "--grid: this network gives each pixel a class"),
        ([str(net), str(path), "--tile", "32"], "--tile: needs --grid"),
        ([str(net), str(path), "--probabilities"], "maps need --grid"),
        ([str(net), str(path), "--grid", "--csv", "t.csv"], "--csv: a row is for an image"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert scenes.is_located(path)
