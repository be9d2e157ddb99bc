"""rssearch.storage.scratch: what killed processes left is cleared, what is in use is not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from rssearch.config.loading import parse_study
from rssearch.storage import scratch
from rssearch.storage.location import write_atomic
from rssearch.study import recorder
from rssearch.study.definition import StudyDefinition

KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from rssearch.storage import location, scratch
place = Path(sys.argv[1])
with scratch.folder("rssearch-x-", place) as folder:
    (folder / "content").write_text("half")
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # in the middle of the file
    location.write_atomic(place / "trials.csv", "key")
"""


def listed(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -9
    file, folder = listed(tmp_path)
    assert (file[:12], folder[:11]) == (".trials.csv.", "rssearch-x-")
    scratch.clear_files(tmp_path, lambda name: name == "trials.csv")
    assert listed(tmp_path) == [folder]
    with scratch.folder("rssearch-x-", tmp_path) as made:
        assert listed(tmp_path) == [made.name]
        assert made.stat().st_mode & 0o777 == 0o700
    assert listed(tmp_path) == []


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    handle, file = scratch.file(tmp_path / "trials.csv")
    with scratch.folder("x-", tmp_path) as first, scratch.folder("x-", tmp_path) as second:
        scratch.clear_files(tmp_path, lambda _: True)
        assert listed(tmp_path) == sorted([file.name, first.name, second.name])
    os.close(handle)
    scratch.clear_files(tmp_path, lambda _: True)
    assert listed(tmp_path) == []


def test_what_is_taken_away_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = tempfile.mkstemp, []

    def hasty(**options: object) -> tuple[int, str]:
        handle, path = make(**options)  # type: ignore[call-overload]
        made.append(path)
        if len(made) == 1:
            Path(path).unlink()
        return handle, path

    monkeypatch.setattr(tempfile, "mkstemp", hasty)
    write_atomic(tmp_path / "trials.csv", "key")
    assert len(made) == 2
    assert listed(tmp_path) == ["trials.csv"]


def test_a_session_clears_its_own_leftovers_alone(tmp_path: Path) -> None:
    config = {"study": "s", "trial": "tests.support.toy:plain", "space": {"rate": [0.5]}, "storage": str(tmp_path)}
    left = [
        *(
            "s/.trials.csv.a1b2c3d4",
            "s/.front.html.abc_defg",
            "s/.study.yaml.00000000",
            "s/predictions/.k.png.a1b2c3d4",
        ),
        *("store/checkpoints/k/.checkpoint-0123456789ab.pt.a1b2c3d4", "store/models/k/.manifest.json.a1b2c3d4"),
    ]
    kept = [
        *("s/trials.csv", "s/.trials.csv.swp", "s/.notes.a1b2c3d4", "s/.lock", "t/.trials.csv.a1b2c3d4"),
        *("store/checkpoints/k/checkpoint-0123456789ab.pt", "store/models/k.lock", ".mlflow.db.lock"),
    ]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    recorder.clear_leftovers(StudyDefinition(parse_study(config)))
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "x-a1b2c3d4").symlink_to(tmp_path / "mine")
    (tmp_path / ".f.a1b2c3d4").symlink_to(tmp_path / "mine")
    scratch.clear_folders("x-", tmp_path)
    scratch.clear_files(tmp_path, lambda _: True)
    assert listed(tmp_path) == [".f.a1b2c3d4", "mine", "x-a1b2c3d4"]


def test_a_folder_that_is_taken_for_a_leftover_before_it_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that clears may find it in the moment between mkdtemp and open."""
    plain, taken = os.open, []

    def late(path: Any, *arguments: Any, **options: Any) -> int:
        if not taken and Path(path).name.startswith("rssearch-x-"):
            taken.append(path)
            os.rmdir(path)
        return plain(path, *arguments, **options)

    monkeypatch.setattr(os, "open", late)
    with scratch.folder("rssearch-x-", tmp_path) as found:
        assert found.is_dir()
        assert taken
        assert str(found) != str(taken[0])
    with pytest.raises(FileNotFoundError), scratch.folder("rssearch-x-", tmp_path / "absent"):
        pass
