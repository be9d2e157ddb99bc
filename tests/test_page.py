"""The pictures below the table of front.html."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from rssearch import fronts, page, report

TWO: Any = {"val_miou": "max", "macs": "min"}


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """Trials that are all on the front."""
    return [
        {"key": f"key{i:02}", "status": "finished", "model": "unet", "rate": 1 - i / 100, "macs": 1e6 * (i + 1)}
        | {"val_miou": (i + 1) / 100, "test_miou": (i + 1) / 200, **more}
        for i in range(count)
    ]


def folder_of(tmp_path: Path, keys: list[str]) -> Path:
    for key in keys:
        (tmp_path / f"{key}.png").write_bytes(b"picture of " + key.encode())
    return tmp_path


def after_the_plot(text: str) -> str:
    """Plotly's script has pictures, too."""
    return text[text.rindex("</script>") :]


def below(trials: list[dict[str, Any]], folder: Path | None, dimensions: list[str] | None = None) -> str:
    text = page.page(fronts.fronts(trials, TWO), "s", {}, dimensions, folder).decode()
    return after_the_plot(text)


def pictures(text: str) -> list[str]:
    return [base64.b64decode(found).decode() for found in re.findall(r'src="data:image/png;base64,([^"]*)"', text)]


def test_members_are_shown_by_rising_cost_with_their_names(tmp_path: Path) -> None:
    trials = [*rows(3)[::-1], rows(1)[0] | {"key": "dominated", "val_miou": 0.001}]
    text = below(trials, folder_of(tmp_path, ["key00", "key01", "key02", "dominated"]), ["model", "rate"])
    assert pictures(text) == ["picture of key00", "picture of key01", "picture of key02"]
    captions = re.findall(r"<figcaption><b>(.*?)</b><br>(.*?)</figcaption>", text)
    assert captions[1] == ("Rate 0.99", "Validation mIoU 2.0 %, MACs 2 M, Test mIoU 1.0 %")
    assert "members of the front" not in text


def test_a_member_without_a_picture_is_left_out(tmp_path: Path) -> None:
    assert pictures(below(rows(3), folder_of(tmp_path, ["key01"]))) == ["picture of key01"]


def test_without_pictures_there_is_no_section(tmp_path: Path) -> None:
    for folder in (None, tmp_path, tmp_path / "none"):
        assert "Predictions" not in below(rows(3), folder)


def test_of_a_large_front_some_are_shown_and_that_is_said(tmp_path: Path) -> None:
    trials = rows(23)
    text = below(trials, folder_of(tmp_path, [row["key"] for row in trials]))
    assert pictures(text) == [f"picture of key{i:02}" for i in range(0, 23, 2)]
    assert "12 of 23 members of the front" in text


def test_names_are_no_markup(tmp_path: Path) -> None:
    trials = [row | {"method": f"<b>{row['key']}"} for row in rows(2)]
    text = below(trials, folder_of(tmp_path, ["key00", "key01"]), ["method"])
    assert "Method &lt;b&gt;key00" in text
    assert "<b>key00" not in text


def test_a_single_trial_has_its_key_as_name(tmp_path: Path) -> None:
    (trial,) = rows(1, key="0123456789abcdef")
    assert "<b>01234567</b>" in below([trial], folder_of(tmp_path, [trial["key"]]))


@pytest.mark.parametrize("write", ["write_front", "format_front"])
def test_the_written_page_has_them(tmp_path: Path, write: str) -> None:
    folder = folder_of(tmp_path, ["key00", "key01"])
    if write == "write_front":
        report.write_front(tmp_path / "out", rows(2), TWO, study="s", pictures=folder, formats=["html"])
    else:
        report.format_front(rows(2), TWO, "html", study="s", pictures=folder, out=tmp_path / "out")
    assert pictures(after_the_plot((tmp_path / "out" / "front.html").read_text())) == [
        "picture of key00",
        "picture of key01",
    ]
