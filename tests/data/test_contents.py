"""What lies in a folder or zip: which files are images, what is left out, and what is said of it."""

import os
import socket
import zipfile

import pytest

from rssearch import data
from rssearch.data.listing import from_files
from rssearch.errors import DataWarning, InputError
from rssearch.imaging.contents import readable, scan, shown
from tests.support.commands import refused, run
from tests.support.fakes import encoded, own_scenes, picture, tree, zipped

BAD = os.fsdecode(b"Stra\xdfe")  # as an archive made on Windows is unpacked on Linux


@pytest.fixture
def mine(tmp_path):
    return tree(tmp_path / "mine", ["a", "b"], 3)


def archive(path, names):
    """A zip with an image of each name."""
    with zipfile.ZipFile(path, "w") as out:
        for number, name in enumerate(names):
            out.writestr(name, encoded(picture(number)))
    return path


class TestWhatIsLeftOut:
    @pytest.mark.parametrize("packed", [False, True])
    def test_it_is_counted_by_ending(self, mine, packed):
        hidden = (".DS_Store", "a/Thumbs.db", "a/@eaDir/a_1.png/thumb.jpg", "b/._b_1.png", "__MACOSX/a/a_1.png")
        for name in ("a/x.JP2", "a/y.jp2", "b/z.heic", "LICENSE", "notes.txt", *hidden):
            (mine / name).parent.mkdir(parents=True, exist_ok=True)
            (mine / name).write_bytes(b"")
        listing = from_files(scan(zipped(mine, mine.with_suffix(".zip"), "top/") if packed else mine))
        assert listing.notes == (
            "left out, as these endings are not read: .jp2 (2), .heic (1), .txt (1), LICENSE (1)",
            "left out, as hidden or made by a file server: .DS_Store (1), .db (1), .png (1), @eaDir/ (1), "
            "__MACOSX/ (1)",
        )
        assert len(listing.names) == 6

    def test_nothing_is_said_where_nothing_is_left_out(self, mine):
        assert from_files(scan(mine)).notes == ()

    def test_images_in_no_class_are_named(self, mine):
        picture(9).save(mine / "preview.png")
        picture(8).save(mine.parent / "cover.png")
        assert from_files(scan(mine.parent)).notes == (
            "left out, as they are in no class folder: 2 images (cover.png, mine/preview.png)",
        )

    @pytest.mark.parametrize(
        ("files", "held"),
        [
            (["x.jp2", "y.jp2", "z.txt"], r"of its files none is read: \.jp2 \(2\), \.txt \(1\)"),
            (["inner/x.heic"], r"of its files none is read: \.heic \(1\)"),
            ([".1.png", ".2.png"], r"of its files none is read: \.png \(2\)"),
            (["Thumbs.db"], "it is empty"),
            ([], "it is empty"),
        ],
    )
    @pytest.mark.parametrize("classes", [["a"], ["a", "b"]])
    def test_a_class_that_loses_all_its_files_is_refused(self, tmp_path, classes, files, held):
        tree(tmp_path / "mine", classes, 2)
        tree(tmp_path / "mine" / "a", ["2019", "2020"], 1)  # which must not become the classes
        (tmp_path / "mine" / "lost").mkdir()
        for name in files:
            (tmp_path / "mine" / "lost" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "mine" / "lost" / name).write_bytes(b"")
        with pytest.raises(
            InputError, match=rf"mine/lost/: a folder without an image is no class and no split; {held}"
        ):
            from_files(scan(tmp_path / "mine"))

    def test_an_empty_class_in_a_zip_is_refused(self, mine):
        with zipfile.ZipFile(zipped(mine, mine.with_suffix(".zip")), "a") as out:
            out.mkdir("c")
        with pytest.raises(InputError, match=r"mine\.zip/c/: a folder without an image"):
            from_files(scan(mine.with_suffix(".zip")))

    def test_a_folder_of_documents_is_no_class_and_said(self, mine):
        (mine / "docs").mkdir()
        (mine / "docs" / "a.csv").write_bytes(b"")
        listing = from_files(scan(mine))
        assert listing.classes == ("a", "b")
        assert "the folder docs is no class: it holds no image (.csv (1))" in listing.notes

    def test_links_back_up_the_tree_are_not_followed(self, mine):
        (mine / "a" / "up").symlink_to(mine)
        (mine / "a" / "far_up").symlink_to(mine.parent)
        (mine / "b" / "itself.png").symlink_to(mine / "b" / "itself.png")
        elsewhere = tree(mine.parent / "elsewhere", ["c"], 1)
        (elsewhere / "c" / "back").symlink_to(mine / "b")
        (mine / "b" / "out").symlink_to(elsewhere)
        contents = scan(mine)
        assert sorted(contents.loops) == ["a/far_up", "a/up", "b/out/c/back"]
        assert sorted(path for path, _ in contents.images) == [
            "a/a_1.png", "a/a_2.png", "a/a_3.png", "b/b_1.png", "b/b_2.png", "b/b_3.png", "b/itself.png",
            "b/out/c/c_1.png",
        ]  # fmt: skip
        (note,) = from_files(contents).notes
        assert note == "not followed, as they lead back up the tree: 3 links (a/far_up, a/up, b/out/c/back)"

    def test_load_warns_and_keeps_what_it_says(self, mine):
        (mine / "a" / "x.jp2").write_bytes(b"")
        with pytest.warns(DataWarning, match=r"^folder:mine: left out, as these endings are not read: \.jp2 \(1\)$"):
            images = data.load("folder:mine", mine.parent, workers=1)
        assert images.notes == ("left out, as these endings are not read: .jp2 (1)",)
        report = data.verify("folder:mine", mine.parent, workers=1)
        assert report.notes == images.notes
        assert report.describe().splitlines()[-2] == images.notes[0]

    def test_scenes_say_it_too(self, tmp_path):
        folder = own_scenes(tmp_path)
        (folder / "images" / "9.jp2").write_bytes(b"")
        picture(0).save(folder / "preview.png")
        with pytest.warns(DataWarning):
            scenes = data.load("segmentation_folder:scenes", tmp_path, workers=1)
        assert scenes.notes == (
            "left out, as these endings are not read: .jp2 (1)",
            "left out, as they are no scene with a mask: 1 images (preview.png)",
        )
        assert data.verify("segmentation_folder:scenes", tmp_path, workers=1).notes == scenes.notes


class TestNames:
    def test_a_name_that_is_not_utf8_is_read(self, mine):
        before = data.load("folder:mine", mine.parent, workers=1)
        os.rename(mine / "b" / "b_2.png", mine / "b" / f"{BAD}.png")
        images = data.load("folder:mine", mine.parent, workers=1)
        assert len(images.labels) == 6
        assert images.fingerprint != before.fingerprint
        assert from_files(scan(mine)).names[3] == "b/Stra\\xdfe.png"
        (mine / "b" / f"{BAD}.png").write_bytes(b"no image")
        refusal = run("data", "verify", "folder:mine", "--data-root", str(mine.parent))
        assert r"mine/b/Stra\xdfe.png: it is no image" in refusal.out
        refused(refusal, "1 of 6 images cannot be read")

    def test_a_class_that_is_not_utf8_is_refused(self, mine):
        os.rename(mine / "b", mine / BAD)
        with pytest.raises(InputError, match=r"mine/Stra\\xdfe: the name of a class must be UTF-8; rename the folder"):
            from_files(scan(mine))

    def test_scenes_that_are_not_utf8_are_read(self, tmp_path):
        folder = own_scenes(tmp_path)
        for kind in ("images", "masks"):
            os.rename(folder / kind / "4.png", folder / kind / f"{BAD}.png")
        assert data.load("segmentation_folder:scenes", tmp_path, workers=1).names[-1] == "Stra\\xdfe"

    def test_messages_hold_no_control_characters(self):
        assert shown("a\n\x1b[2J\u202e/é.png") == "a\\n\\x1b[2J\\u202e/é.png"
        assert readable("a\n/é.png") == "a\n/é.png"  # it is a part of fingerprints

    @pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
    def test_zip_names_that_do_not_tell_their_encoding(self, tmp_path, encoding):
        name = "wälder".encode(encoding)
        placeholder = "W" * len(name)
        path = archive(tmp_path / "mine.zip", ["a/1.png", "a/2.png", f"{placeholder}/1.png", f"{placeholder}/2.png"])
        path.write_bytes(path.read_bytes().replace(placeholder.encode(), name))
        images = data.load("folder:mine.zip", tmp_path, workers=1)
        assert images.classes == ("a", "wälder")
        tree(tmp_path / "tree", ["a", "wälder"], 1)
        assert from_files(scan(path)).names == ("a/1.png", "a/2.png", "wälder/1.png", "wälder/2.png")


class TestZips:
    @pytest.mark.parametrize("name", ["/a/9.png", "../a/9.png", "b/../a/9.png", "./a/9.png", "a//9.png"])
    def test_paths_that_are_no_plain_ones_are_refused(self, tmp_path, name):
        path = archive(tmp_path / "mine.zip", ["a/1.png", "b/1.png", name])
        with pytest.raises(InputError, match=rf"mine\.zip/{name}: is no plain path below the archive"):
            from_files(scan(path))

    def test_backslashes_are_parts_of_names_and_refused_where_they_hide_classes(self, tmp_path):
        path = archive(tmp_path / "mine.zip", ["a\\1.png", "b\\1.png"])
        with pytest.raises(
            InputError,
            match=r"mine\.zip: needs a folder .*found \[\], and 2 images in no folder \(a\\1\.png, b\\1\.png\)",
        ):
            from_files(scan(path))

    def test_a_path_that_is_there_twice_is_refused(self, tmp_path):
        with pytest.warns(UserWarning, match="Duplicate name"):
            path = archive(tmp_path / "mine.zip", ["a/1.png", "b/1.png", "a/1.png"])
        with pytest.raises(InputError, match=r"mine\.zip/a/1\.png: is in the archive more than once"):
            from_files(scan(path))

    def encrypt(self, path, name):
        """Set the flag of a file that is encrypted, in its own header and in the directory of the archive."""
        raw = bytearray(path.read_bytes())
        for signature, flags, at in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
            start = raw.find(name, raw.find(signature)) - at
            assert raw[start : start + 4] == signature
            raw[start + flags] |= 1
        path.write_bytes(raw)

    def test_encrypted_images_are_refused_by_name(self, tmp_path):
        path = archive(tmp_path / "mine.zip", ["a/1.png", "b/1.png"])
        self.encrypt(path, b"b/1.png")
        expected = "mine.zip/b/1.png: is encrypted, as are 1 of 2 images; pack them without a password"
        refused(run("data", "verify", "folder:mine.zip", "--data-root", str(tmp_path)), expected)

    def test_an_encrypted_table_of_classes_is_refused(self, tmp_path):
        path = zipped(own_scenes(tmp_path), tmp_path / "mine.zip")
        self.encrypt(path, b"classes.json")
        with pytest.raises(InputError, match=r"mine\.zip/classes\.json: .*encrypted"):
            data.load("segmentation_folder:mine.zip", tmp_path, workers=1)

    def test_a_folder_may_be_called_zip(self, mine):
        mine.rename(mine.with_suffix(".zip"))
        assert len(data.load("folder:mine.zip", mine.parent, workers=1).labels) == 6


class TestWhatIsNoFile:
    """Pipes, sockets and devices are named, and never waited for."""

    def make(self, path, kind):
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(path))
            server.close()

    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_among_images(self, mine, kind):
        self.make(mine / "a" / "x.png", kind)
        why = "is a pipe, a socket or a device, not a file"
        with pytest.raises(InputError, match=rf"1 of 7 images cannot be read:\n  .*mine/a/x\.png: {why}"):
            data.load("folder:mine", mine.parent, workers=1)
        images = data.load("folder:mine", mine.parent, workers=1, on_error="skip")
        assert images.skipped == (f"{mine}/a/x.png: {why}",)

    def test_a_socket(self, mine, monkeypatch):
        monkeypatch.chdir(mine / "a")  # the path of a socket is short
        self.make(mine.__class__("x.png"), "socket")
        with pytest.raises(InputError, match=r"mine/a/x\.png: \[Errno \d+\] No such device or address"):
            data.load("folder:mine", mine.parent, workers=1)

    @pytest.mark.parametrize("place", ["images/x.png", "masks/x.png", "classes.json"])
    def test_among_scenes(self, tmp_path, place):
        folder = own_scenes(tmp_path)
        for other in ("images/x.png", "masks/x.png"):
            picture(0).convert("L").save(folder / other)
        (folder / place).unlink()
        self.make(folder / place, "pipe")
        with pytest.raises(InputError, match=rf"scenes/{place}: .*is a pipe, a socket or a device, not a file"):
            data.load("segmentation_folder:scenes", tmp_path, workers=1)
