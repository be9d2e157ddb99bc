"""front.html as it is written: its parts, and what it takes from the study's folder. Browsers: test_page_browser.py."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rssearch.front import trials as fronts
from rssearch.report import files, page
from rssearch.report.page.study_files import kept_channels
from rssearch.storage.artifacts import Store
from rssearch.trial.interface import PREDICTIONS

TWO: Any = {"val_miou": "max", "macs": "min"}


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """Trials that are all on the front."""
    return [
        {"key": f"key{i:02}", "status": "finished", "model": "unet", "rate": 1 - i / 100, "macs": 1e6 * (i + 1)}
        | {"val_miou": (i + 1) / 100, "test_miou": (i + 1) / 200, **more}
        for i in range(count)
    ]


def folder_of(tmp_path: Path, keys: list[str]) -> Path:
    """A study's folder with a picture for each key."""
    pictures = tmp_path / "study" / PREDICTIONS
    pictures.mkdir(parents=True)
    for key in keys:
        (pictures / f"{key}.png").write_bytes(b"picture of " + key.encode())
    return tmp_path / "study"


def html(trials: list[dict[str, Any]], folder: Path | None = None, dimensions: list[str] | None = None) -> str:
    """The page without the scripts and data that it carries."""
    return re.sub(r"<(script|style).*?</\1>", "", whole(trials, folder, dimensions), flags=re.DOTALL)


def whole(trials: list[dict[str, Any]], folder: Path | None = None, dimensions: list[str] | None = None) -> str:
    return page.page(fronts.fronts(trials, TWO), "s", {}, dimensions, folder).decode()


def data_of(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(found)  # type: ignore[no-any-return]


def pictures(text: str) -> list[str]:
    return [base64.b64decode(found).decode() for found in re.findall(r'src="data:image/png;base64,([^"]*)"', text)]


def test_members_are_shown_by_rising_cost_with_their_names(tmp_path: Path) -> None:
    trials = [*rows(3)[::-1], rows(1)[0] | {"key": "dominated", "val_miou": 0.001}]
    text = html(trials, folder_of(tmp_path, ["key00", "key01", "key02", "dominated"]), ["model", "rate"])
    assert pictures(text) == ["picture of key00", "picture of key01", "picture of key02"]
    captions = re.findall(r"<figcaption><b>(.*?)</b><br>(.*?)</figcaption>", text)
    assert captions[1] == ("Rate 0.99", "Validation mIoU 2.0 %, MACs 2 M, Test mIoU 1.0 %")
    assert "members of the front" not in text


def test_a_member_without_a_picture_is_left_out(tmp_path: Path) -> None:
    assert pictures(html(rows(3), folder_of(tmp_path, ["key01"]))) == ["picture of key01"]


def test_without_pictures_there_is_no_section(tmp_path: Path) -> None:
    for folder in (None, folder_of(tmp_path, []), tmp_path / "none"):
        assert "Predictions" not in html(rows(3), folder)


def test_of_a_large_front_some_are_shown_and_that_is_said(tmp_path: Path) -> None:
    trials = rows(23)
    text = html(trials, folder_of(tmp_path, [row["key"] for row in trials]))
    assert pictures(text) == [f"picture of key{i:02}" for i in range(0, 23, 2)]
    assert "12 of 23 members of the front" in text


def test_names_are_no_markup(tmp_path: Path) -> None:
    trials = [row | {"method": f"<b>{row['key']}"} for row in rows(2)]
    text = html(trials, folder_of(tmp_path, ["key00", "key01"]), ["method"])
    assert "Method &lt;b&gt;key00" in text
    assert "<b>key00" not in text


def test_a_single_trial_has_its_key_as_name(tmp_path: Path) -> None:
    (trial,) = rows(1, key="0123456789abcdef")
    assert "<b>01234567</b>" in html([trial], folder_of(tmp_path, [trial["key"]]))


@pytest.mark.parametrize("write", ["write_front", "format_front"])
def test_the_written_page_has_them(tmp_path: Path, write: str) -> None:
    folder = folder_of(tmp_path, ["key00", "key01"])
    if write == "write_front":
        files.write_front(tmp_path / "out", rows(2), TWO, study="s", folder=folder, formats=["html"])
    else:
        files.format_front(rows(2), TWO, "html", study="s", folder=folder, out=tmp_path / "out")
    assert pictures((tmp_path / "out" / "front.html").read_text()) == ["picture of key00", "picture of key01"]


# channels


def spec(**layers: tuple[int, int]) -> dict[str, Any]:
    """A cut that leaves the first channels of each layer's outputs."""
    return {
        "format": 1,
        "layers": {name: {"width": {"out": whole}, "out": [*range(left)]} for name, (left, whole) in layers.items()},
    }


def put(folder: Path, key: str, content: dict[str, Any]) -> None:
    Store(folder.parent).put(
        "models", key, {"spec.json": json.dumps(content).encode(), "model.safetensors": b"weights"}
    )


def test_channels_are_those_of_the_outputs() -> None:
    both_sides = {"width": {"in": 3, "out": 4}, "in": [0], "out": [1, 2, 3]}
    norm, last = {"width": {"both": 4}, "both": [1, 2, 3]}, {"width": {"in": 4}, "in": [1, 2, 3]}
    layers = {"conv": both_sides, "norm": norm, "head": last}
    assert kept_channels({"format": 1, "layers": layers}) == {"conv": (3, 4)}


def test_members_have_the_channels_that_the_store_knows(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [])
    put(folder, "key01", spec(one=(3, 8), two=(16, 32)))
    put(folder, "key00", spec())  # nothing was cut
    bent = [row | {"val_miou": 0.9} if row["key"] == "key01" else row for row in rows(2)]
    text = whole([*bent, rows(3)[2] | {"val_miou": 0.91}], folder, ["rate"])
    (member,) = data_of(text)["members"]
    assert member == {
        "key": "key01",
        "model": "unet",
        "name": "★ Rate 0.99, Validation mIoU 90.0 %, MACs 2 M",
        "knee": True,
        "layers": [["one", 3, 8], ["two", 16, 32]],
    }
    assert '<select id="member">' in text


def test_of_a_mean_every_seed_is_a_member(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [])
    trials = [row | {"seed": seed, "key": f"{row['key']}-{seed}"} for row in rows(2) for seed in (0, 1)]
    for key in ("key00-0", "key00-1", "key01-1"):
        put(folder, key, spec(one=(3, 8)))
    files.write_front(
        tmp_path / "out", trials, TWO, study="s", folder=folder, formats=["html"], dimensions=["rate", "seed"]
    )
    members = data_of((tmp_path / "out" / "front.html").read_text())["members"]
    assert [member["key"] for member in members] == ["key00-0", "key00-1", "key01-1"]
    assert members[1]["name"].endswith("Rate 1, Seed 1, Validation mIoU 1.0 %, MACs 1 M")


def test_without_channels_the_section_says_so_or_is_not_there(tmp_path: Path) -> None:
    assert "Channels" not in html(rows(2))
    text = html(rows(2), folder_of(tmp_path, []))
    assert "No pruned network of the front is in the store." in text
    assert 'id="member"' not in text


# documents


def test_the_yaml_and_the_environment_are_shown_without_passwords(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [])
    uri = "postgresql+psycopg://ada:secret@db:5432/mlflow"
    (folder / "study.yaml").write_text(yaml.safe_dump({"study": "<b>s</b>", "tracking_uri": uri}))
    text = html(rows(2), folder)
    assert "study: &lt;b&gt;s&lt;/b&gt;" in text
    assert "tracking_uri: postgresql+psycopg://ada:***@db:5432/mlflow" in text
    assert "environment.json" not in text
    (folder / "environment.json").write_text('{"python": "3.11.7"}')
    assert "&quot;python&quot;: &quot;3.11.7&quot;" in html(rows(2), folder)


def test_no_text_of_a_study_can_end_the_data() -> None:
    hostile = "</script><script>alert(1)</script><!--"
    text = whole([row | {"method": hostile} for row in rows(2)], None, ["method"])
    assert "<script>alert" not in text
    assert data_of(text)["fronts"][0]["hue"] == [hostile, hostile]


def test_equal_studies_give_equal_pages_that_load_nothing() -> None:
    text = whole(rows(3))
    assert text == whole(rows(3))
    assert not re.findall(r"(?:src|href)=", html(rows(3)))
    assert len(text) < 2_500_000
