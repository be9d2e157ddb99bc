"""Divisions by place: rules on names, and blocks of the ground."""

import json
import os
import zipfile

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from pydantic import ValidationError

from rssearch import data
from rssearch.config.settings import Patches, Split
from rssearch.data.blocks import centres
from rssearch.data.places import by_place
from rssearch.errors import InputError
from tests.support.fakes import dubai, own_scenes, picture, tree, zipped


def load(root, name="folder:mine", **split):
    return data.load(name, root, workers=1, split=Split(**split))


def of(images, split):
    return {images.names[index] for index in images.indices[split]}


class TestByPlace:
    def division(self, sizes, seed=0, classes=3, **shares):
        """Places of so many images, with the classes one after the other."""
        places = [f"p{number}" for number, size in enumerate(sizes) for _ in range(size)]
        names = [f"{place}/{number}" for number, place in enumerate(places)]
        labels = np.arange(len(names)) % classes
        found = by_place(names, labels, places, Split(seed=seed, **shares))
        assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(names)))
        for place in set(places):
            inside = {split for split, members in found.items() if place in {places[i] for i in members}}
            assert len(inside) == 1
        return found

    def test_shares_are_met_where_places_allow(self):
        found = self.division([10] * 20)
        assert {split: len(members) for split, members in found.items()} == {"train": 140, "val": 20, "test": 40}

    def test_classes_have_their_shares(self):
        """Two kinds of places, with one class each: both are in every split."""
        places = [f"{kind}{number}" for kind in "ab" for number in range(10) for _ in range(5)]
        names, labels = [str(n) for n in range(100)], np.repeat([0, 1], 50)
        found = by_place(names, labels, places, Split(train=0.6, val=0.2, test=0.2))
        for split, count in {"train": 30, "val": 10, "test": 10}.items():
            assert np.bincount(labels[found[split]]).tolist() == [count, count]

    def test_every_split_gets_a_place_and_training_the_largest(self):
        found = self.division([50, 2, 3])
        assert {split: len(members) for split, members in found.items()} in (
            {"train": 50, "val": 2, "test": 3}, {"train": 50, "val": 3, "test": 2},
        )  # fmt: skip

    def test_the_order_of_images_makes_no_difference(self):
        places = [f"p{number % 7}" for number in range(40)]
        names, labels = [f"{number}" for number in range(40)], np.arange(40) % 2
        order = np.random.default_rng(0).permutation(40)
        one = by_place(names, labels, places, Split())
        two = by_place([names[i] for i in order], labels[order], [places[i] for i in order], Split())
        assert {s: {names[i] for i in m} for s, m in one.items()} == {
            s: {names[order[i]] for i in m} for s, m in two.items()
        }

    def test_seeds_give_other_divisions(self):
        assert len({tuple(self.division([10] * 12, seed)["test"].tolist()) for seed in range(5)}) > 1

    def test_a_split_without_a_share_gets_nothing(self):
        assert len(self.division([5, 5, 5, 5], train=0.5, val=0.5, test=0)["test"]) == 0

    def test_too_few_places_are_refused(self):
        with pytest.raises(InputError, match=r"of 2 groups \(p0, p1\), which cannot be divided among 3 splits"):
            self.division([5, 5])


class TestRule:
    def test_images_with_the_same_text_are_in_one_split(self, tmp_path):
        for label in "ab":
            (tmp_path / "mine" / label).mkdir(parents=True)
            for number in range(30):
                picture(1000 * ord(label) + number).save(tmp_path / "mine" / label / f"site{number % 6}_{number}.png")
        images = load(tmp_path, group=r"/(site\d)_", train=0.5, val=0.25, test=0.25)
        sites = [{name[2:7] for name in of(images, split)} for split in ("train", "val", "test")]
        assert sum(map(len, sites)) == 6
        assert all(sites)
        plain = load(tmp_path)
        assert plain.split_hash != images.split_hash
        assert plain.fingerprint == images.fingerprint

    def test_copies_join_places(self, tmp_path):
        tree(tmp_path / "mine", ["a", "b"], 12)
        picture(1).save(tmp_path / "mine" / "a" / "a_3.png")  # a copy of a_2
        images = load(tmp_path, group=r"_(\d+)\.", train=0.5, val=0.25, test=0.25)
        one, two = ({s for s in images.indices if f"a/a_{number}.png" in of(images, s)} for number in (2, 3))
        assert one == two

    def test_a_name_without_it_is_refused(self, tmp_path):
        tree(tmp_path / "mine", ["a", "b"], 4)
        with pytest.raises(InputError, match=r"settings.split.group: '\(site\.\*\)' finds nothing in 'a/a_1.png'"):
            load(tmp_path, group="(site.*)")

    def test_a_place_in_two_given_splits_is_refused(self, tmp_path):
        for seed, split in enumerate(("train", "test")):
            tree(tmp_path / "mine" / split, ["a", "b"], 3, seed=seed)
        with pytest.raises(
            InputError, match=r"comes divided, with .* in test and .* in train, which are of one place: a_1"
        ):
            load(tmp_path, group=r"/(\w_\d)\.")

    def test_scenes_are_of_their_own_places_too(self, tmp_path):
        dubai(tmp_path, tiles=(1, 2, 4, 5), parts=2)
        with pytest.raises(InputError, match=r"1 groups of scenes"):
            load(tmp_path, "dubai", group=r"(part\d+)")

    def test_a_rule_of_scenes(self, tmp_path):
        own_scenes(tmp_path, 8)
        images = load(tmp_path, "segmentation_folder:scenes", group=r"^([0-3]|4|5|6|7)$")
        assert len(set(images.groups)) == 8

    @pytest.mark.parametrize(
        ("split", "message"),
        [
            ({"group": "site"}, "has 0 groups in brackets; it must have one"),
            ({"group": "(a)(b)"}, "has 2 groups in brackets"),
            ({"group": "(a"}, "is no regular expression"),
            ({"group": "(a)", "by": "block", "size": "1km"}, "group and by are different divisions"),
            ({"file": "a.csv", "group": "(a)"}, "file and group are different divisions"),
            ({"by": "block"}, "by: block and size go together"),
            ({"size": "1km"}, "by: block and size go together"),
            *(
                ({"by": "block", "size": size}, "is no length above 0 in km or m")
                for size in ("10", "0km", "1 mile", "-1km")
            ),
        ],
    )
    def test_what_cannot_be_a_rule_is_refused(self, split, message):
        with pytest.raises(ValidationError, match=message):
            Split(**split)


def geotiff(path, x, y, *, crs="EPSG:32633", metres=100.0, size=8, seed=0):
    """An image of size^2 pixels whose upper left corner is at (x, y)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, size, size), dtype=np.uint8)
    transform = rasterio.transform.from_origin(x, y, metres, metres)
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=size, count=3, dtype="uint8", crs=crs, transform=transform,
        photometric="RGB",
    ) as out:  # fmt: skip
        out.write(pixels)


@pytest.mark.parametrize("form", ["VRT", "WMS", "pipe"])
def test_what_names_other_files_or_never_ends_has_no_place(tmp_path, form):
    path = tmp_path / "a.tif"
    if form == "pipe":
        os.mkfifo(path)
    elif form == "VRT":
        geotiff(tmp_path / "b.tif", 0, 0)
        rasterio.shutil.copy(tmp_path / "b.tif", path, driver="VRT")
    else:
        path.write_text("<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9</ServerUrl></Service></GDAL_WMS>")
    with pytest.raises(InputError, match=r"a.tif: its georeference cannot be read: "):
        centres(tmp_path, ("a.tif",))


def test_the_place_is_in_the_file_and_its_name_may_be_any(tmp_path):
    geotiff(tmp_path / "a.tif", 400_000, 5_500_800)
    found = centres(tmp_path, ("a.tif",))
    (tmp_path / "a.tif").rename(tmp_path / "a\udcff.tif")
    assert centres(tmp_path, ("a\udcff.tif",)) == found
    geotiff(tmp_path / "b.tif", 400_000, 5_500_800, crs=None)
    (tmp_path / "b.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:32632</SRS></PAMDataset>")
    with pytest.raises(InputError, match="no reference system"):
        centres(tmp_path, ("b.tif",))


class TestBlocks:
    @pytest.fixture
    def grid(self, tmp_path):
        """16 x 16 images, 1 km apart: blocks of 4 km hold 4 x 4 of them."""
        for row in range(16):
            for column in range(16):
                name = f"{'ab'[(row + column) % 2]}/{row:02d}_{column:02d}.tif"
                geotiff(
                    tmp_path / "mine" / name, 400_000 + 1000 * column, 5_500_800 + 1000 * row, seed=16 * row + column
                )
        return tmp_path

    def test_a_block_is_in_one_split(self, grid, tmp_path):
        images = load(grid, by="block", size="4km")
        blocks = {
            s: {tuple(int(p) // 4 for p in name[2:7].split("_")) for name in of(images, s)} for s in images.indices
        }
        assert sum(map(len, blocks.values())) == 16
        assert {s: len(found) for s, found in blocks.items()} == {"train": 11, "val": 2, "test": 3}
        zipped(grid / "mine", tmp_path / "z.zip")
        assert load(grid, "folder:z.zip", by="block", size="4000m").split_hash == images.split_hash

    @pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
    def test_blocks_of_degrees_and_of_web_mercator_are_as_large_on_the_ground(self, tmp_path, crs):
        """At 60 degrees north a degree of longitude, and a metre of Web Mercator, are half of that."""
        step = 2000 / 111_195 if crs == "EPSG:4326" else 2000.0  # 2 km of latitude or of the equator, 1 km of this row
        at = (10.0, 60.0) if crs == "EPSG:4326" else (1_113_194.9, 8_399_737.9)
        for number in range(60):
            geotiff(
                tmp_path / "mine" / "ab"[number % 2] / f"{number:02d}.tif", at[0] + step * number, at[1],
                crs=crs, metres=step / 80, seed=number,
            )  # fmt: skip
        images = load(tmp_path, by="block", size="10km")
        split = {int(name[2:4]): s for s in images.indices for name in of(images, s)}
        changes = [number for number in range(1, 60) if split[number] != split[number - 1]]
        assert len({number % 10 for number in changes}) <= 2  # rows of 10, give or take one where the numbers round
        assert changes

    def test_zones_of_utm_share_blocks(self, tmp_path):
        """The same places in the systems of two zones."""
        from rasterio.warp import transform

        xs, ys = [390_000.0 + 3000 * n for n in range(12)], [5_500_000.0] * 12
        others = transform("EPSG:32633", "EPSG:32632", xs, ys)
        for number in range(12):
            geotiff(tmp_path / "mine" / "a" / f"{number:02d}.tif", xs[number], ys[number], seed=number)
            at = others[0][number], others[1][number]
            geotiff(tmp_path / "mine" / "b" / f"{number:02d}.tif", *at, crs="EPSG:32632", seed=100 + number)
        images = load(tmp_path, by="block", size="1500m")
        sides = {name: s for s in images.indices for name in of(images, s)}
        same = [sides[f"a/{n:02d}.tif"] == sides[f"b/{n:02d}.tif"] for n in range(12)]
        assert sum(same) >= 10  # a border may run between middles that are metres apart

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"crs": None}, "00.tif: .*coordinates, but no reference system"),
            ({"metres": 1000.0}, r"settings.split.size: 4km is less than the extent of .*00.tif, 8,000 m"),
        ],
    )
    def test_what_lies_nowhere_is_refused_by_name(self, grid, change, message):
        geotiff(grid / "mine" / "a" / "00_00.tif", 400_000, 5_500_800, **change)
        with pytest.raises(InputError, match=message):
            load(grid, by="block", size="4km")

    def test_sets_without_georeference_are_refused(self, tmp_path):
        tree(tmp_path / "mine", ["a", "b"], 4)
        with pytest.raises(
            InputError, match=r"a_1.png: settings.split.by: block needs images .*, and this file has none"
        ):
            load(tmp_path, by="block", size="1km")
        with pytest.raises(InputError, match=r"needs images with a georeference; this dataset is not read from single"):
            load(tmp_path, "synthetic_scenes", by="block", size="1km")

    def test_scenes(self, tmp_path):
        for number in range(6):
            geotiff(
                tmp_path / "s" / "images" / f"{number}.tif", 400_000 + 2000 * number, 5_500_000, size=16, seed=number
            )
            mask = np.random.default_rng(number).integers(0, 2, (16, 16)).astype(np.uint8)
            (tmp_path / "s" / "masks").mkdir(exist_ok=True)
            from PIL import Image

            Image.fromarray(mask).save(tmp_path / "s" / "masks" / f"{number}.png")
        (tmp_path / "s" / "classes.json").write_text(json.dumps(["land", "water"]))
        images = data.load(
            "segmentation_folder:s", tmp_path, workers=1, patches=Patches(size=16),
            split=Split(by="block", size="4km", train=0.34, val=0.33, test=0.33),
        )  # fmt: skip
        assert [images.groups[2 * n] == images.groups[2 * n + 1] for n in range(3)] == [True] * 3
        assert len(set(images.groups)) == 3


def test_zip_of_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "e.zip", "w"):
        pass
    with pytest.raises(InputError):
        load(tmp_path, "folder:e.zip", by="block", size="1km")
