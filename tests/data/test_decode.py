import zipfile

import numpy as np
import pytest

from rssearch import data
from rssearch.data.decode import resize_all
from rssearch.errors import InputError
from rssearch.imaging.pixels import decode
from tests.support.fakes import encoded, picture, tree, zipped


def test_resize_all_is_the_scaling_of_files():
    image = picture(0, (32, 32))
    raw = np.asarray(image).transpose(2, 0, 1)[None]
    assert np.array_equal(resize_all(raw, 16)[0], decode(encoded(image), 16))
    assert resize_all(raw, None) is raw


def test_sizes_that_differ_need_input_size(tmp_path):
    tree(tmp_path, ["a", "b"], 6)
    picture(7, (20, 18)).save(tmp_path / "a" / "odd.png")
    with pytest.raises(InputError, match=r"16x16 \(12\), 20x18 \(1\); set input_size"):
        data.load("folder:.", tmp_path)
    assert data.load("folder:.", tmp_path, input_size=8, workers=1).input_shape == (3, 8, 8)


def test_oblong_images_of_one_size_keep_it(tmp_path):
    tree(tmp_path, ["a", "b"], 6, size=(24, 10))
    assert data.load("folder:.", tmp_path, workers=1).input_shape == (3, 10, 24)


@pytest.fixture
def damaged(tmp_path):
    """Thirteen damaged files of 60, each in one of five ways."""
    folder = tree(tmp_path / "mine", ["a", "b", "c"], 20)
    for number in range(13):
        file = folder / "b" / f"b_{number + 1}.png"
        content = file.read_bytes()
        file.write_bytes(
            [b"", b"no image", content[: len(content) // 2], content[:40], b"\xff\xd8\xff\xe0" + content][number % 5]
        )
    return tmp_path


@pytest.mark.parametrize("archive", [False, True])
def test_damaged_images_are_named(damaged, archive):
    name, base = "folder:mine", damaged / "mine"
    if archive:
        base = zipped(damaged / "mine", damaged / "mine.zip", prefix="mine/")
        name = "folder:mine.zip"
    with pytest.raises(InputError) as caught:
        data.load(name, damaged, workers=1)
    message = str(caught.value)
    assert "13 of 60 images cannot be read" in message
    assert message.count(f"{base}/") == 10
    assert "and 3 more" in message
    assert f"{base}/{'mine/' if archive else ''}b/b_1.png: " in message


def test_damaged_images_can_be_skipped(damaged):
    images = data.load("folder:mine", damaged, on_error="skip", workers=1)
    assert len(images.labels) == len(images.images) == 47
    assert np.bincount(images.labels).tolist() == [20, 7, 20]
    assert len(images.skipped) == 13
    assert images.skipped[0].startswith(f"{damaged}/mine/b/b_1.png: ")
    # The same as if the files had never been there.
    for line in images.skipped:
        (damaged / "mine" / line.removeprefix(f"{damaged}/mine/").partition(":")[0]).unlink()
    clean = data.load("folder:mine", damaged, workers=1)
    assert np.array_equal(clean.images, images.images)
    assert clean.split_hash == images.split_hash
    assert np.array_equal(clean.mean, images.mean)


def test_verify_names_what_is_damaged_or_missing(damaged, tmp_path_factory):
    report = data.verify("folder:mine", damaged, workers=1)
    assert not report.ok
    assert len(report.corrupt) == 13
    assert "13 cannot be read" in report.describe()
    root = tmp_path_factory.mktemp("eurosat")
    tree(root / "eurosat", list(data.registry.FAMILIES["eurosat"].expected), 3, suffix=".jpg")
    report = data.verify("eurosat", root, workers=1)
    assert report.ok
    assert len(report.missing) == 27_000 - 30
    assert report.missing[0] == "AnnualCrop/AnnualCrop_4"


def test_dangling_link_is_named(tmp_path):
    tree(tmp_path, ["a", "b"], 4)
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"a/gone\.png: .*No such file"):
        data.load("folder:.", tmp_path, workers=1)


def test_wrong_checksum_in_a_zip_is_named(tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        for label in "ab":
            for number in range(4):
                out.writestr(f"{label}/{number}.bmp", encoded(picture(number + 10 * (label == "b")), "BMP"))
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 255
    archive.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"1 of 8 images cannot be read:\n  .*set\.zip/a/\d\.bmp: Bad CRC-32"):
        data.load("folder:set.zip", tmp_path, workers=1)


def test_class_without_a_readable_image_is_refused(tmp_path):
    tree(tmp_path, ["a", "b"], 4)
    for file in (tmp_path / "b").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"no training image for b \(4 images were skipped\)"):
        data.load("folder:.", tmp_path, on_error="skip", workers=1)


def test_identical_files_stay_on_one_side(tmp_path):
    tree(tmp_path, ["a", "b"], 20)
    for number in range(10):
        copy = tmp_path / "a" / f"copy_{number}.png"
        copy.write_bytes((tmp_path / "a" / f"a_{number + 1}.png").read_bytes())
    images = data.load("folder:.", tmp_path, workers=1)
    side = np.empty(len(images.labels), int)
    for number, members in enumerate(images.indices.values()):
        side[members] = number
    pixels = [image.tobytes() for image in images.images]
    pairs = {p: [i for i, q in enumerate(pixels) if q == p] for p in pixels}
    assert sum(len(pair) == 2 for pair in pairs.values()) == 10
    assert all(len(set(side[pair])) == 1 for pair in pairs.values())
    assert len(data.verify("folder:.", tmp_path, workers=1).copies) == 10


def test_progress_reaches_the_total(tmp_path):
    tree(tmp_path, ["a", "b"], 50)
    seen = []
    data.load("folder:.", tmp_path, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 100), (100, 100)]
