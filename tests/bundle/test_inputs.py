"""rssearch.bundle.inputs: which images paths, folders and patterns name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rssearch.bundle.inputs import find
from rssearch.errors import InputError

FILES = ("tiles/b.png", "tiles/a.JPG", "tiles/north/c.tif", "tiles/read.txt", "tiles/.hidden.png", "one.data")


@pytest.fixture(autouse=True)
def _in_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("no matter")


def test_a_file_is_taken_whatever_its_ending() -> None:
    assert find(["one.data", "tiles/read.txt"]) == (
        {"one.data": Path("one.data"), "tiles/read.txt": Path("read.txt")},
        [],
    )


def test_a_folder_is_taken_with_its_folders_and_says_what_it_leaves_out() -> None:
    Path("tiles/b.mask.png").write_text("written before")
    found, notes = find(["tiles"])
    assert found == {f"tiles/{name}": Path(name) for name in ("a.JPG", "b.png", "north/c.tif")}
    assert notes == [
        "tiles: left out, as these endings are not read: .txt (1)",
        "tiles: left out, as hidden or made by a file server: .png (1)",
        "tiles: left out, as predictions wrote them: 1",
    ]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "tiles" / "again").symlink_to(tmp_path / "tiles")
    (tmp_path / "linked").symlink_to(tmp_path / "tiles" / "north")
    found, notes = find(["tiles", "linked"])
    assert list(found) == ["tiles/a.JPG", "tiles/b.png", "tiles/north/c.tif", "linked/c.tif"]
    assert any("lead back up the tree: 1 links (again)" in note for note in notes)


def test_patterns_stand_for_what_they_match_and_each_image_is_taken_once() -> None:
    assert list(find(["tiles/*.png"])[0]) == ["tiles/b.png"]
    assert list(find(["tiles/**/*.[tp]*"])[0]) == ["tiles/b.png", "tiles/north/c.tif", "tiles/read.txt"]
    assert list(find(["tiles/north/c.tif", "tiles/n*", "tiles/b.png", "tiles/?.png"])[0]) == [
        "tiles/north/c.tif",
        "tiles/b.png",
    ]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file() -> None:
    Path("tile[1].png").write_text("")
    Path("tile1.png").write_text("")
    assert list(find(["tile[1].png"])[0]) == ["tile[1].png"]


def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert next(iter(find(["~/tiles"])[0])) == "~/tiles/a.JPG"
    assert list(find(["~/tiles/*.png"])[0]) == [f"{tmp_path}/tiles/b.png"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.png", "none.png: cannot be read: No such file or directory"),
        ("tiles/*.gif", "tiles/*.gif: there is no such file, and no file fits this pattern"),
        ("empty", "empty: has no image (read are .bmp .jpeg .jpg"),
        ("texts", "; texts: left out, as these endings are not read: .txt (2)"),
        ("a\0b", "a path cannot contain a NUL character"),
    ],
)
def test_what_names_no_image_is_refused(path: str, message: str) -> None:
    os.mkdir("empty")
    os.mkdir("texts")
    for name in ("a.txt", "b.txt"):
        Path("texts", name).write_text("")
    with pytest.raises(InputError) as caught:
        find(["one.data", path])
    assert message in str(caught.value)
