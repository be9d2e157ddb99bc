"""Published sets in the layouts of their archives, their divisions, and how they are downloaded."""

import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image

from rssearch import data
from rssearch.config.settings import Patches
from rssearch.data import IGNORE, eurosat, isprs, loveda
from rssearch.errors import DataWarning, InputError
from tests.support import fakes

LOAD = {"patches": Patches(size=16), "workers": 1}


def scenes_in(found, split):
    return {found.names[scene] for scene in np.unique(found.windows[found.indices[split], 0])}


class TestEuroSATSpatial:
    def images_in(self, found, split):
        return {found.names[index] for index in found.indices[split]}

    def load(self, root):
        with pytest.warns(DataWarning):  # the fakes are not the published lists
            return data.load("eurosat_spatial", root, workers=1)

    def test_the_division_is_that_of_the_lists(self, tmp_path):
        fakes.spatial(tmp_path)
        found = self.load(tmp_path)
        assert {split: len(found.indices[split]) for split in found.indices} == {"train": 60, "val": 20, "test": 20}
        numbers = {split: {name.split("_")[1] for name in self.images_in(found, split)} for split in found.indices}
        assert numbers["val"] == {"1.jpg", "3.jpg"}
        assert numbers["test"] == {"2.jpg", "4.jpg"}
        assert found.fingerprint != data.fingerprint("eurosat", tmp_path)

    def test_lists_may_lie_with_the_images_or_in_a_zip_of_them(self, tmp_path):
        folder = fakes.spatial(tmp_path)
        first = self.load(tmp_path).split_hash
        for name, _ in eurosat.LISTS.values():
            shutil.move(tmp_path / name, folder.parent / name)
        assert self.load(tmp_path).split_hash == first
        fakes.zipped(folder.parent, tmp_path / "new" / "EuroSAT.zip")
        assert self.load(tmp_path / "new").split_hash == first

    def test_published_lists_are_known_by_their_digest(self, tmp_path, monkeypatch):
        fakes.spatial(tmp_path)
        digests = {
            split: (name, hashlib.md5((tmp_path / name).read_bytes()).hexdigest())
            for split, (name, _) in eurosat.LISTS.items()
        }
        monkeypatch.setattr(eurosat, "LISTS", digests)
        assert data.load("eurosat_spatial", tmp_path, workers=1).notes == ()
        name, digest = digests["val"]
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("Forest_1.tif\n", ""))
        with pytest.warns(DataWarning, match=f"{name} is not the published list, whose MD5 is {digest}"):
            data.load("eurosat_spatial", tmp_path, workers=1)

    def test_a_missing_list_is_named_with_where_to_get_it(self, tmp_path):
        fakes.spatial(tmp_path)
        (tmp_path / "eurosat-spatial-val.txt").unlink()
        with pytest.raises(
            InputError, match=r"has no eurosat-spatial-val.txt, .*data fetch eurosat_spatial.*https://hf"
        ):
            data.load("eurosat_spatial", tmp_path)

    def test_fetch_gets_the_lists_and_images_that_are_not_there(self, tmp_path, monkeypatch):
        fakes.spatial(tmp_path / "web")
        asked = []

        def download(url, root, filename, md5):
            asked.append((url, md5))
            shutil.copy(tmp_path / "web" / filename, root)

        def images(root, download):
            asked.append("images")
            fakes.tree(tmp_path / "new" / "eurosat" / "2750", list(eurosat.FAMILY.expected), suffix=".jpg")

        monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
        monkeypatch.setattr("torchvision.datasets.EuroSAT", images)
        data.fetch("eurosat_spatial", tmp_path / "new")
        assert asked == [*((eurosat.URL + name, md5) for name, md5 in eurosat.LISTS.values()), "images"]
        asked.clear()
        (tmp_path / "new" / "eurosat-spatial-test.txt").unlink()
        data.fetch("eurosat_spatial", tmp_path / "new")
        assert len(asked) == 3


class TestLandCoverAI:
    def test_orthophotos(self, tmp_path):
        folder = fakes.landcover_ai(tmp_path, tiles=True)
        found = data.load("landcover_ai", tmp_path, **LOAD)
        assert found.names == tuple(f"M-33-{number}-A" for number in range(5))
        assert found.classes == ("background", "building", "woodland", "water", "road")
        assert found.notes == ()
        before = np.asarray(Image.open(folder / "masks" / "M-33-2-A.tif"))
        assert np.array_equal(found.scenes.mask(2), before)

    def test_the_archive_is_read_as_it_is(self, tmp_path):
        folder = fakes.landcover_ai(tmp_path / "old")
        fakes.zipped(folder, tmp_path / "landcover.ai.v1.zip")
        assert data.fingerprint("landcover_ai", tmp_path) == data.fingerprint("landcover_ai", tmp_path / "old")

    def test_tiles_are_divided_by_the_lists(self, tmp_path):
        fakes.landcover_ai(tmp_path, tiles=True)
        found = data.load("landcover_ai:tiles", tmp_path, **LOAD)
        assert scenes_in(found, "train") == {f"M-33-{number}-A_0" for number in range(5)}
        assert scenes_in(found, "val") == {f"M-33-{number}-A_1" for number in range(3)}
        assert scenes_in(found, "test") == {f"M-33-{number}-A_1" for number in (3, 4)}
        assert found.notes == ()

    def test_what_is_missing_is_named(self, tmp_path):
        folder = fakes.landcover_ai(tmp_path)
        with pytest.raises(InputError, match=r"has no output/ with tiles, which the split.py of the archive cuts"):
            data.load("landcover_ai:tiles", tmp_path)
        shutil.rmtree(folder)
        folder = fakes.landcover_ai(tmp_path, tiles=True)
        (folder / "val.txt").unlink()
        with pytest.raises(InputError, match=r"has no val.txt of the archive"):
            data.load("landcover_ai:tiles", tmp_path)


class TestLoveDA:
    def test_val_is_the_test_split_and_0_is_no_class(self, tmp_path):
        folder = fakes.loveda(tmp_path)
        found = data.load("loveda", tmp_path, **LOAD)
        assert found.classes == loveda.CLASSES
        assert scenes_in(found, "test") == {f"val/{kind}" for kind in ("urban/10", "urban/11", "rural/12", "rural/13")}
        assert {name.partition("/")[0] for name in scenes_in(found, "train") | scenes_in(found, "val")} == {"train"}
        before = np.asarray(Image.open(folder / "Train" / "Urban" / "masks_png" / "0.png")).astype(int)
        mask = found.scenes.mask(found.names.index("train/urban/0"))
        assert np.array_equal(mask, np.where(before == 0, IGNORE, before - 1))

    def test_the_kinds(self, tmp_path):
        fakes.loveda(tmp_path)
        for kind in ("urban", "rural"):
            found = data.load(f"loveda:{kind}", tmp_path, **LOAD)
            assert {name.split("/")[1] for name in found.names} == {kind}

    def test_test_scenes_without_masks_are_left_out_and_said(self, tmp_path):
        folder = fakes.loveda(tmp_path)
        first = data.fingerprint("loveda", tmp_path)
        (folder / "Test" / "Urban" / "images_png").mkdir(parents=True)
        fakes.picture(1, (48, 48)).save(folder / "Test" / "Urban" / "images_png" / "90.png")
        with pytest.warns(DataWarning, match=r"no image of the split test has a mask: .* val serves as the test split"):
            assert data.load("loveda", tmp_path, **LOAD).fingerprint == first

    def test_fetch(self, tmp_path, monkeypatch):
        asked = []

        def download(url, place, filename, md5):
            asked.append((url, filename, md5))
            fakes.loveda(tmp_path)

        monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", download)
        data.fetch("loveda", tmp_path)
        assert asked == [(f"{loveda.ZENODO}{n}?download=1", n, md5) for n, md5 in loveda.ARCHIVES.items()]


class TestISPRS:
    @pytest.mark.parametrize(
        ("name", "make", "mask"),
        [
            ("potsdam", fakes.potsdam, "5_Labels_all/top_potsdam_{}_label.tif"),
            ("vaihingen", fakes.vaihingen, "ground_truth/top_mosaic_09cm_area{}.tif"),
        ],
    )
    def test_the_division_is_that_of_the_contest(self, tmp_path, name, make, mask):
        folder = make(tmp_path)
        division = {"potsdam": isprs.POTSDAM, "vaihingen": isprs.VAIHINGEN}[name]
        found = data.load(name, tmp_path, **LOAD)
        assert found.classes == isprs.CLASSES
        assert scenes_in(found, "test") == {f"{name}{number}" for number in division["test"][:2]}
        assert scenes_in(found, "train") | scenes_in(found, "val") == {f"{name}{n}" for n in division["train"][:4]}
        path = folder / mask.format(found.names[0].removeprefix(name))
        colours = np.asarray(Image.open(path)).astype(int)
        packed = (colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]
        assert np.array_equal(np.array(isprs.COLOURS)[found.scenes.mask(0)], packed)
        assert len(data.verify(name, tmp_path, workers=1).missing) == sum(map(len, division.values())) - 6

    def test_bands(self, tmp_path):
        fakes.potsdam(tmp_path, "IRRG")
        assert len(data.load("potsdam:irrg", tmp_path, **LOAD).names) == 6
        with pytest.raises(InputError, match=r"has no 2_Ortho_RGB/top_potsdam_2_10_RGB.tif"):
            data.load("potsdam", tmp_path)

    def test_the_complete_ground_truth_comes_before_that_for_participants(self, tmp_path):
        folder = fakes.vaihingen(tmp_path)
        first = data.fingerprint("vaihingen", tmp_path)
        participants = folder / "gts_for_participants"
        participants.mkdir()
        name = "top_mosaic_09cm_area1.tif"
        Image.new("RGB", (40, 40)).save(participants / name)
        assert data.fingerprint("vaihingen", tmp_path) == first
        (folder / "again").mkdir()
        shutil.copy(folder / "ground_truth" / name, folder / "again" / name)
        with pytest.raises(InputError, match=r"again/.*area1.tif and ground_truth/.* are both masks of vaihingen1"):
            data.load("vaihingen", tmp_path)

    def test_masks_of_participants_alone(self, tmp_path):
        folder = fakes.vaihingen(tmp_path)
        (folder / "ground_truth").rename(folder / "gts_for_participants")
        for number in isprs.VAIHINGEN["test"][:2]:
            (folder / "gts_for_participants" / f"top_mosaic_09cm_area{number}.tif").unlink()
        with pytest.warns(DataWarning, match=r"no image of the split test has a mask: .* test images are sampled from"):
            assert len(data.load("vaihingen", tmp_path, **LOAD).names) == 4
