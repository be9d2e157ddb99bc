"""rssearch.config.shipped: where a study's YAML is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from rssearch.config import shipped
from rssearch.config.loading import load_study
from rssearch.errors import InputError

SHIPPED = shipped.shipped()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_yaml_of_the_package_is_shipped_under_its_path() -> None:
    root = (Path(__file__).parents[2] / "search_spaces").resolve()
    assert {root / f"{name}.yaml" for name in SHIPPED} == set(root.rglob("*.yaml"))
    assert {"quickstart", "eurosat_methods"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_is_a_study(name: str) -> None:
    assert load_study(shipped.find(name)).resolved()["space"]


@pytest.mark.parametrize(
    "name",
    ["quickstart", "quickstart.yaml", "quickstart.yml", "search_spaces/quickstart", "search_spaces/quickstart.yaml"],
)
def test_a_shipped_space_is_found_by_name_and_by_path(name: str) -> None:
    """From any folder: Ray copies search.py to a cluster's head, where the project's folders are not."""
    assert shipped.find(name) == SHIPPED["quickstart"]


def test_a_file_comes_before_a_shipped_space(tmp_path: Path) -> None:
    mine = tmp_path / "quickstart"
    mine.write_text("study: mine\n")
    assert shipped.find("quickstart").resolve() == mine
    assert shipped.find(str(mine)) == mine


def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.yaml").write_text("study: mine\n")
    assert shipped.find("~/my.yaml") == tmp_path / "my.yaml"


def test_a_folder_is_no_space(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    with pytest.raises(InputError, match=r"^studies: there is no such file"):
        shipped.find("studies")


def test_what_is_not_found_names_what_is_near() -> None:
    with pytest.raises(InputError) as caught:
        shipped.find("search_spaces/quikstart.yaml")
    message = str(caught.value)
    assert message.startswith("search_spaces/quikstart.yaml: there is no such file, and no shipped space of that name.")
    assert "Did you mean 'quickstart'?" in message
    assert all(name in message for name in SHIPPED)
    with pytest.raises(InputError) as caught:
        shipped.find("zzz")
    assert "Did you mean" not in str(caught.value)
