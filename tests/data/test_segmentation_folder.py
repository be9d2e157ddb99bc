"""A user's own scenes: what is read, and what is said when they cannot be."""

import json

import numpy as np
import pytest
from PIL import Image

from rssearch import data
from rssearch.config import Patches, Split
from rssearch.data import IGNORE
from rssearch.errors import InputError

from .fakes import own_scenes, picture, zipped

LOAD = {"patches": Patches(size=8), "workers": 1}


def legend(folder, content):
    (folder / "classes.json").write_text(content if isinstance(content, str) else json.dumps(content))


def paint(path, array, **options):
    Image.fromarray(np.asarray(array, np.uint8)).save(path, **options)


def load(root, **options):
    return data.load("segmentation_folder:scenes", root, **(LOAD | options))


@pytest.fixture
def folder(tmp_path):
    return own_scenes(tmp_path)


def masks_of(scenes):
    return dict(zip(scenes.names, scenes.scenes.masks, strict=True))


class TestWhatIsRead:
    def test_indices_and_255(self, folder):
        scenes = load(folder.parent)
        assert scenes.classes == ("land", "water", "road")
        assert scenes.names == ("0", "1", "2", "3", "4")
        for name, mask in masks_of(scenes).items():
            assert np.array_equal(mask, np.asarray(Image.open(folder / "masks" / f"{name}.png")))
            assert np.array_equal(scenes.scenes.image(int(name)), np.asarray(picture(int(name), (40, 28))))
            assert set(np.unique(mask)) == {0, 1, 2, IGNORE}

    def test_a_zip_is_the_same_as_its_folder_wherever_it_is_packed(self, folder):
        first = load(folder.parent)
        for number, prefix in enumerate(("", "top/", "top/inner/")):
            zipped(folder, folder.parent / f"{number}.zip", prefix)
            second = data.load(f"segmentation_folder:{number}.zip", folder.parent, **LOAD)
            assert (second.fingerprint, second.split_hash) == (first.fingerprint, first.split_hash)
            assert all(map(np.array_equal, second.scenes.masks, first.scenes.masks))

    def test_classes_that_are_ignored_leave_no_gap(self, folder):
        legend(folder, {"classes": ["land", "water", "road"], "ignore": "water"})
        scenes = load(folder.parent)
        assert scenes.classes == ("land", "road")
        before = np.asarray(Image.open(folder / "masks" / "1.png"))
        assert np.array_equal(masks_of(scenes)["1"], np.array([0, IGNORE, 1] + [IGNORE] * 253, np.uint8)[before])

    def test_colours(self, folder):
        colours = np.array([[255, 0, 0], [0, 255, 0], [0, 1, 255], [1, 1, 1]], np.uint8)
        before = {}
        for path in sorted((folder / "masks").iterdir()):
            values = np.asarray(Image.open(path))
            before[path.stem] = np.where(values == 255, 3, values)
            paint(path, colours[before[path.stem]])
        table = {"land": "#ff0000", "water": "#00FF00", "road": "#0001ff", "none": "#010101"}
        legend(folder, table)
        assert load(folder.parent).classes == ("land", "water", "road", "none")
        assert all(np.array_equal(mask, before[name]) for name, mask in masks_of(load(folder.parent)).items())
        legend(folder, {"classes": table, "ignore": ["none", "land"]})
        scenes = load(folder.parent)
        assert scenes.classes == ("water", "road")
        assert np.array_equal(masks_of(scenes)["2"], np.array([255, 0, 1, 255], np.uint8)[before["2"]])

    @pytest.mark.parametrize("mode", ["P", "RGBA"])
    def test_colours_of_palettes_and_with_alpha(self, folder, mode):
        for path in sorted((folder / "masks").iterdir()):
            image = Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8), "P")
            image.putpalette([9, 8, 7, 1, 2, 3])
            image.convert(mode).save(path)
        legend(folder, {"land": "#090807", "water": "#010203"})
        assert set(np.unique(masks_of(load(folder.parent))["0"])) == {0, 1}

    def test_palette_masks_hold_indices(self, folder):
        for path in sorted((folder / "masks").iterdir()):
            values = np.asarray(Image.open(path)).copy()
            image = Image.fromarray(np.where(values == 255, 0, values).astype(np.uint8), "P")
            image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
            image.save(path)
        assert set(np.unique(masks_of(load(folder.parent))["0"])) == {0, 1, 2}

    def test_groups_by_rule(self, folder):
        for number in range(5):
            for kind in ("images", "masks"):
                (folder / kind / f"{number}.png").rename(folder / kind / f"town{number // 2}_part{number}.png")
        for rule, groups in ((r"(town\d+)_", {"town0", "town1", "town2"}), (r"town\d", {"town0", "town1", "town2"})):
            legend(folder, {"classes": ["land", "water", "road"], "group": rule})
            scenes = load(folder.parent)
            assert set(scenes.groups) == groups
            sides = [{scenes.groups[s] for s in scenes.windows[members, 0]} for members in scenes.indices.values()]
            assert sum(map(len, sides)) == 3

    def test_copies_of_an_image_are_in_one_split(self, folder):
        for number in (7, 8):
            for kind in ("images", "masks"):
                (folder / kind / f"{number}.png").write_bytes((folder / kind / "0.png").read_bytes())
        scenes = load(folder.parent)
        assert [scenes.groups[scenes.names.index(name)] for name in ("0", "7", "8", "1")] == ["0", "0", "0", "1"]
        assert data.verify("segmentation_folder:scenes", folder.parent, workers=1).copies == (("0", "7", "8"),)

    def test_the_table_and_the_sizes_make_the_fingerprint(self, folder):
        first = load(folder.parent).fingerprint
        legend(folder, ["land", "water", "road", "sea"])
        second = load(folder.parent).fingerprint
        paint(folder / "masks" / "0.png", np.zeros((28, 40)))
        assert len({first, second, load(folder.parent).fingerprint}) == 3

    def test_classes_without_a_pixel_anywhere_are_allowed(self, folder):
        legend(folder, ["land", "water", "road", "sea"])
        assert load(folder.parent).num_classes == 4


class TestWhatIsRefused:
    """Each message names the file and the value."""

    def refused(self, folder, match, **options):
        with pytest.raises(InputError, match=match):
            load(folder.parent, **options)

    def test_missing_mask_and_missing_image(self, folder):
        (folder / "masks" / "3.png").unlink()
        self.refused(folder, r"scenes/images/3\.png: has no mask of the same name$")
        (folder / "masks" / "2.png").unlink()
        self.refused(folder, r"scenes/images/2\.png: has no mask of the same name, nor have 1 others")
        for name in ("2", "3", "4"):
            (folder / "images" / f"{name}.png").unlink()
        self.refused(folder, r"scenes/masks/4\.png: has no image of the same name")

    def test_size_mismatch(self, folder):
        paint(folder / "masks" / "2.png", np.zeros((28, 39)))
        self.refused(
            folder, r"1 of 5 scenes cannot be read:\n  .*masks/2\.png: is 39x28, but its image .*2\.png is 40x28"
        )

    def test_index_outside_the_table(self, folder):
        mask = np.zeros((28, 40))
        mask[3, :5] = 7
        paint(folder / "masks" / "1.png", mask)
        self.refused(folder, r"masks/1\.png: has the value 7, which is no class; allowed: 0, 1, 2, 255")

    def test_colour_outside_the_table(self, folder):
        for path in (folder / "masks").iterdir():
            paint(path, np.full((28, 40, 3), 9))
        mask = np.full((28, 40, 3), 9)
        mask[0, :3] = 10, 11, 12
        paint(folder / "masks" / "4.png", mask)
        legend(folder, {"land": "#090909", "sea": "#00000A"})
        self.refused(folder, r"masks/4\.png: has the colour #0A0B0C, which is no class; allowed: #00000A, #090909")

    def test_masks_of_other_kinds(self, folder):
        paint(folder / "masks" / "1.png", np.zeros((28, 40, 3)))
        self.refused(
            folder, r"masks/1\.png: its pixels are of mode RGB, but one 8-bit channel of class indices is needed"
        )
        Image.fromarray(np.zeros((28, 40), np.uint16)).save(folder / "masks" / "1.png")
        self.refused(folder, r"masks/1\.png: its pixels are of mode I;16")
        legend(folder, {"land": "#090909", "sea": "#00000A"})
        self.refused(folder, r"masks/1\.png: its pixels are of mode I;16, but 8-bit colours are needed")
        (folder / "masks" / "1.png").unlink()
        paint(folder / "masks" / "1.jpg", np.zeros((28, 40)))
        self.refused(folder, r"masks/1\.jpg: a mask must be PNG, TIFF or BMP")

    def test_images_that_cannot_be_read_are_named_or_skipped(self, folder):
        (folder / "images" / "0.png").write_bytes(b"no image")
        (folder / "masks" / "3.png").write_bytes((folder / "masks" / "3.png").read_bytes()[:60])
        self.refused(folder, r"2 of 5 scenes cannot be read:\n.*images/0\.png: cannot be read: it is no image")
        scenes = load(folder.parent, on_error="skip")
        assert scenes.names == ("1", "2", "4")
        assert [reason.split("scenes/")[1].split(":")[0] for reason in scenes.skipped] == [
            "images/0.png",
            "masks/3.png",
        ]
        report = data.verify("segmentation_folder:scenes", folder.parent, workers=1)
        assert not report.ok
        assert report.corrupt == scenes.skipped

    def test_two_images_of_one_name(self, folder):
        picture(1).save(folder / "images" / "1.jpg")
        self.refused(folder, r"images/1\.(jpg|png): has the same name as images/1\.(png|jpg)")

    def test_too_few_scenes_and_classes_that_are_never_trained(self, folder):
        for name in "234":
            for kind in ("images", "masks"):
                (folder / kind / f"{name}.png").unlink()
        self.refused(folder, r"'segmentation_folder:scenes': 2 scenes \(0, 1\) cannot be divided among 3 splits")
        half = Split(train=0.5, val=0.5, test=0)
        scenes = load(folder.parent, split=half)
        (own,) = set(scenes.windows[scenes.indices["val"], 0].tolist())
        mask = np.zeros((28, 40))
        paint(folder / "masks" / f"{1 - own}.png", mask)
        paint(folder / "masks" / f"{own}.png", mask + 1)
        self.refused(folder, r"no training pixel for water; another settings\.split\.seed than 0", split=half)
        for path in (folder / "masks").iterdir():
            paint(path, mask + 255)
        self.refused(folder, "no training pixel for any class", split=half)

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            ("{", "classes.json: is not valid JSON"),
            ('"land"', "classes must be a list of 2 to 255 names"),
            ('["land"]', "classes must be a list of 2 to 255 names"),
            ("[1, 2]", "classes must be a list of 2 to 255 names"),
            ('["land", "sea", "land"]', "classes: 'land' stands twice"),
            ('{"land": "#123456", "sea": "blue"}', "the colour of 'sea' is 'blue', but must be as #RRGGBB"),
            ('{"land": "#123456", "sea": "#123456"}', "'sea' has the colour #123456 of another class"),
            ('{"classes": ["a", "b", "c"], "ignore": "d"}', "ignore: 'd' is none of the classes a, b, c"),
            ('{"classes": ["a", "b", "c"], "ignore": 2}', "ignore: 2 is none of the classes"),
            ('{"classes": ["a", "b"], "ignore": "a"}', "two or more classes must be left"),
            ('{"classes": ["a", "b", "c"], "group": "("}', "group: '\\(' is not a regular expression"),
            ('{"classes": ["a", "b", "c"], "group": "tile"}', "group rule 'tile' does not match the scene '0'"),
            ('{"classes": ["a", "b", "c"], "grupo": "tile"}', "unknown key 'grupo'; allowed: classes, group, ignore"),
        ],
    )
    def test_legends(self, folder, content, match):
        legend(folder, content)
        self.refused(folder, match)

    def test_places(self, folder):
        root = folder.parent
        (folder / "classes.json").unlink()
        self.refused(folder, r"scenes: needs classes\.json beside images/ and masks/")
        for path in (folder / "masks").iterdir():
            path.unlink()
        self.refused(folder, "needs a folder images/ and beside it a folder masks/")
        (root / "file.txt").write_text("")
        for name, match in (("", "needs a path"), ("nowhere", "nowhere does not exist"), ("file.txt", "neither")):
            with pytest.raises(InputError, match=match):
                data.load(f"segmentation_folder:{name}", root)
