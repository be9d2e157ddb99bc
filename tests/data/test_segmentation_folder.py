"""A user's own scenes: what is read, and what is said when they cannot be."""

import json

import numpy as np
import pytest
from PIL import Image

from rssearch import data
from rssearch.config.settings import Patches, Split
from rssearch.data import IGNORE
from rssearch.data.describe import describe
from rssearch.errors import InputError
from tests.support.fakes import own_scenes, picture, zipped
from tests.support.files import plain_png, png, tiff

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
        def fingerprint():
            return data.fingerprint("segmentation_folder:scenes", folder.parent)

        first = fingerprint()
        legend(folder, {"0": "land", "1": "water", "2": "road"})
        assert fingerprint() == first  # the same table
        legend(folder, {"0": "land", "1": "water", "255": "road"})
        second = fingerprint()
        paint(folder / "masks" / "0.png", np.zeros((28, 40)))
        assert len({first, second, fingerprint()}) == 3

    def test_values_of_classes_and_values_to_ignore(self, folder):
        before = {path.stem: np.asarray(Image.open(path)) for path in (folder / "masks").iterdir()}
        for content, classes, meaning in (
            ({"0": "land", "1": "water", "2": "road", "255": "roof"}, ("land", "water", "road", "roof"), [0, 1, 2, 3]),
            ({"255": "roof", "2": "road", "1": "water", "0": "land"}, ("roof", "road", "water", "land"), [3, 2, 1, 0]),
            ({"0": "land", "1": "wet", "2": "wet"}, ("land", "wet"), [0, 1, 1, IGNORE]),
            ({"classes": {"0": "land", "255": "roof"}, "ignore": [1, 2]}, ("land", "roof"), [0, IGNORE, IGNORE, 1]),
            ({"classes": {"0": "a", "1": "b", "255": "c"}, "ignore": [2, "b"]}, ("a", "c"), [0, IGNORE, IGNORE, 1]),
            ({"classes": ["land", "water"], "ignore": 2}, ("land", "water"), [0, 1, IGNORE, IGNORE]),
        ):
            legend(folder, content)
            scenes = load(folder.parent)
            assert scenes.classes == classes
            table = np.full(256, 99)
            table[[0, 1, 2, 255]] = (*meaning, IGNORE)[:4]
            assert all(np.array_equal(mask, table[before[name]]) for name, mask in masks_of(scenes).items())

    @pytest.mark.parametrize(
        ("dtype", "suffix", "options"),
        [
            ("u2", "png", {}),
            ("u2", "tif", {}),
            ("u2", "tif", {"order": ">"}),
            ("u4", "tif", {}),
            ("i1", "tif", {}),
            ("i2", "tif", {}),
            ("i4", "tif", {"order": ">"}),
            ("f4", "tif", {"big": True}),
            ("u1", "tif", {"bits": 2}),
            ("u1", "tif", {"bits": 4, "order": ">"}),
        ],
    )
    def test_masks_of_any_depth_whose_values_fit(self, folder, dtype, suffix, options):
        before = {}
        for path in sorted((folder / "masks").iterdir()):
            values = np.asarray(Image.open(path)) % 3
            before[path.stem], stored = values, values.astype(dtype)
            path.unlink()
            content = png(stored, 0, 16) if suffix == "png" else tiff(stored, **options)
            path.with_suffix(f".{suffix}").write_bytes(content)
        assert all(np.array_equal(mask, before[name]) for name, mask in masks_of(load(folder.parent)).items())

    def test_masks_of_few_bits_hold_what_is_written(self, folder):
        for path in sorted((folder / "masks").iterdir()):
            values = np.asarray(Image.open(path))
            path.write_bytes(png(np.minimum(values, 3), 0, 2))  # 3 would be 255 if it were scaled
        legend(folder, ["land", "water", "road", "roof"])
        assert set(np.unique(masks_of(load(folder.parent))["0"])) == {0, 1, 2, 3}

    def test_negative_and_large_values(self, folder):
        for path in sorted((folder / "masks").iterdir()):
            values = np.asarray(Image.open(path))
            path.unlink()
            path.with_suffix(".tif").write_bytes(tiff(np.array([-9999, 40000, 3], np.int32)[values % 3]))
        legend(folder, {"classes": {"3": "land", "40000": "sea"}, "ignore": -9999})
        assert set(np.unique(masks_of(load(folder.parent))["0"])) == {0, 1, IGNORE}
        for path in sorted((folder / "masks").iterdir()):
            path.write_bytes(tiff(np.full((28, 40), 2**32 - 9999, np.uint32)))
        with pytest.raises(
            InputError, match="has the value 4294957297, which is no class; allowed: -9999, 3, 255, 40000"
        ):
            load(folder.parent)

    @pytest.mark.parametrize("tag", [1, 3, 6])
    def test_images_and_masks_agree_however_they_are_stored(self, folder, tag):
        turn = {1: 0, 3: 2, 6: 1}[tag]
        before = load(folder.parent)
        exif = Image.Exif()
        exif[0x0112] = tag
        for number in range(5):
            with Image.open(folder / "images" / f"{number}.png") as image:
                stored = Image.fromarray(np.rot90(np.asarray(image), turn).copy())
            stored.save(folder / "images" / f"{number}.png", exif=exif)
            with Image.open(folder / "masks" / f"{number}.png") as mask:
                values = np.rot90(np.asarray(mask), turn).copy()
            if number % 2:  # upright in the file, or turned as its image is
                Image.fromarray(values).save(folder / "masks" / f"{number}.png", exif=exif)
            if number == 0:
                (folder / "masks" / "0.png").unlink()
                (folder / "masks" / "0.tif").write_bytes(tiff(values.astype(np.uint16), tags={274: [tag]}))
        after = load(folder.parent)
        assert all(map(np.array_equal, after.scenes.images, before.scenes.images))
        assert all(map(np.array_equal, after.scenes.masks, before.scenes.masks))
        described = describe("segmentation_folder:scenes", folder.parent, patches=Patches(size=24))
        assert described.num_images == 5 * 4


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

    @pytest.mark.parametrize(
        ("value", "text"), [(1.5, "1.5"), (np.nan, "nan"), (-1, "-1.0"), (2**40, "1099511627776.0")]
    )
    def test_numbers_that_are_no_class(self, folder, value, text):
        mask = np.zeros((28, 40), np.float32)
        mask[9, 9] = value
        (folder / "masks" / "1.png").write_bytes(tiff(mask))
        self.refused(folder, rf"masks/1\.png: has the value {text}, which is no class; allowed: 0, 1, 2, 255")

    def test_a_mask_that_claims_more_pixels_than_its_image(self, folder):
        (folder / "masks" / "1.png").write_bytes(plain_png(13000, 13000))
        legend(folder, {"land": "#090909", "sea": "#00000A"})
        self.refused(folder, r"masks/1\.png: is 13000x13000, but its image .*images/1\.png is 40x28", workers=1)

    def test_small_files_of_huge_scenes(self, folder):
        (folder / "images" / "1.png").write_bytes(plain_png(13000, 13000))
        self.refused(folder, r"images/1\.png: cannot be read: it claims 13000x13000 pixels in \d+,\d+ bytes")
        report = data.verify("segmentation_folder:scenes", folder.parent, workers=1)
        assert [line.partition(" pixels")[0] for line in report.corrupt] == [
            f"{folder}/images/1.png: cannot be read: it claims 13000x13000"
        ]

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
            folder, r"masks/1\.png: has 3 bands of 8 bits \(RGB\), but one band of class values, .*name them in"
        )
        (folder / "masks" / "1.png").write_bytes(png(np.zeros((28, 40, 2), int), 4, 8))
        self.refused(folder, r"masks/1\.png: has 2 bands of 8 bits \(grey with alpha\), but one band")
        for array, photometric, message in (
            (np.zeros((28, 40), np.uint8), 0, r"one band of 8 bits \(grey, 0 is white\)"),
            (np.zeros((28, 40), np.float64), 1, r"one band of 64 bits, float \(grey\)"),
            (np.zeros((28, 40), np.int64), 1, r"one band of 64 bits, signed \(grey\)"),
            (np.zeros((28, 40, 2), np.uint8), 1, r"2 bands of 8 bits \(grey and 1 more\)"),
        ):
            (folder / "masks" / "1.png").write_bytes(tiff(array, photometric))
            self.refused(folder, rf"masks/1\.png: has {message}, but one band of class values")
        (folder / "masks" / "1.png").write_bytes(tiff([np.zeros((28, 40), np.uint8)] * 3))
        self.refused(folder, r"masks/1\.png: it holds 3 pictures, but one is read")
        Image.fromarray(np.zeros((28, 40), np.uint8)).save(folder / "masks" / "1.png", "JPEG")
        self.refused(folder, r"masks/1\.png: a mask must be PNG, TIFF or BMP, without loss")
        Image.fromarray(np.zeros((28, 40), np.uint16)).save(folder / "masks" / "1.png")
        legend(folder, {"land": "#090909", "sea": "#00000A"})
        self.refused(folder, r"masks/1\.png: has one band of 16 bits \(grey\), but 8-bit colours are needed")
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
        legend(folder, ["land", "water"])
        self.refused(folder, r"no training pixel for water\. water: other splits have some, and another", split=half)
        for path in (folder / "masks").iterdir():
            paint(path, mask + 255)
        self.refused(folder, "no training pixel for any class", split=half)

    @pytest.mark.parametrize(
        ("names", "values", "message"),
        [
            (
                ["land", "roof"],
                [0, 255],
                r"no training pixel for roof\. roof: no mask has a pixel of it, and 2,800 pixels of 255, which means "
                r"no class unless one claims it; if they are roof, write {\"0\": \"land\", \"255\": \"roof\"} as the",
            ),
            (
                ["a", "b", "c"],
                [0, 2, 255],
                r"b: no mask .*write {\"0\": \"a\", \"255\": \"b\", \"2\": \"c\"} as the classes",
            ),
            (["none", "land", "sea"], [1, 2], r"no training pixel for none\. none: no mask has a pixel of it$"),
            (["a", "b", "c", "d"], [0, 3, 255], r"no training pixel for b, c\. b, c: no mask has a pixel of it$"),
            ({"classes": ["a", "b", "c"], "ignore": 9}, [0, 1, 255, 9], r"for c\. c: no mask has a pixel of it$"),
            (
                {"#000000": "#000000", "sea": "#0000FF"},
                None,
                r"no training pixel for sea\. sea: no mask has a pixel of it$",
            ),
        ],
    )
    def test_classes_without_a_pixel(self, folder, names, values, message):
        for path in sorted((folder / "masks").iterdir()):
            rows, columns = np.mgrid[:28, :40]
            paint(path, np.array(values)[(rows // 7 + columns) % len(values)] if values else np.zeros((28, 40, 3)))
        legend(folder, names)
        self.refused(folder, message)
        assert data.verify("segmentation_folder:scenes", folder.parent, workers=1).ok

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            ("{", "classes.json: is not valid JSON"),
            ('"land"', "classes must be a list of 2 to 255 names"),
            ('["land"]', "classes: 1 names; there must be 2 to 255"),
            (json.dumps([str(number) for number in range(256)]), "classes: 256 names; there must be 2 to 255"),
            ('{"0": "land", "1": "land"}', "classes: 1 names; there must be 2 to 255"),
            ('{"0": "land", "1": 5}', "classes must be a list of 2 to 255 names, or a mapping of values to names"),
            (
                '{"0": "land", "01": "sea"}',
                "the colour of '0' is 'land', but must be as #RRGGBB; classes may be a list",
            ),
            (
                '{"0": "land", "1.5": "sea"}',
                "the colour of '0' is 'land', but must be as #RRGGBB; classes may be a list",
            ),
            ('{"0": "land", "1": "sea", "0": "road"}', "is not valid JSON: '0' stands twice"),
            (
                '{"classes": {"0": "a", "1": "b"}, "ignore": [true]}',
                "ignore: True is none of the classes a, b, nor a whole",
            ),
            (
                '{"classes": {"0": "a", "1": "b"}, "ignore": null}',
                "ignore: None is none of the classes a, b, nor a whole",
            ),
            (
                '{"classes": {"0": "a", "1": "b"}, "ignore": ["2"]}',
                "ignore: '2' is none of the classes a, b, nor a whole",
            ),
            (
                '{"classes": {"0": "a", "1": "b"}, "ignore": [1e3]}',
                "ignore: 1000.0 is none of the classes a, b, nor a w",
            ),
            (
                '{"classes": {"a": "#000000", "b": "#000001"}, "ignore": ["#000001"]}',
                "ignore: '#000001' is the class 'b'; name it to leave it out",
            ),
            (
                '{"classes": {"a": "#000000", "b": "#000001"}, "ignore": [2]}',
                r"ignore: 2 is none of the classes a, b, nor a colour \(#RRGGBB\)",
            ),
            ("[1, 2]", "classes must be a list of 2 to 255 names"),
            ('["land", "sea", "land"]', "classes: 'land' stands twice"),
            ('{"land": "#123456", "sea": "blue"}', "the colour of 'sea' is 'blue', but must be as #RRGGBB"),
            ('{"land": "#123456", "sea": "#123456"}', "'sea' has the colour #123456 of another class"),
            ('{"classes": ["a", "b", "c"], "ignore": "d"}', "ignore: 'd' is none of the classes a, b, c"),
            ('{"classes": ["a", "b", "c"], "ignore": 2}', "ignore: 2 is the class 'c'; name it to leave it out"),
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
