"""cost.rounding and study.rounding: which multiple of channels pays, and how a study remembers it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rssearch.config.loading import parse_study
from rssearch.cost import rounding as measured
from rssearch.cost.rounding import _WIDTHS, MULTIPLES, best
from rssearch.errors import InputError
from rssearch.storage.artifacts import Store
from rssearch.study import rounding
from rssearch.study.definition import StudyDefinition


@pytest.mark.parametrize(("block", "found"), [(1, 1), (2, 1), (8, 8), (16, 16), (32, 32)])
def test_the_block_of_a_kernel_is_found_where_it_matters(block: int, found: int) -> None:
    """Of one that computes the channels of whole blocks, however few are asked for."""
    assert best({width: (-(-width // block) * block) ** 2 * 1e-9 for width in _WIDTHS}) == found


def test_a_little_faster_is_not_worth_it() -> None:
    assert best({width: width**2 * (0.97 if width % 16 == 0 else 1) for width in _WIDTHS}) == 1


def test_a_machine_says_one_of_the_multiples() -> None:
    assert measured.learned() in MULTIPLES


def document(folder: Path, round_to: Any) -> dict[str, Any]:
    return {
        "study": "s",
        "trial": "trials.prune:run",
        "space": {"dataset": ["synthetic_scenes"], "model": ["resnet20"], "method": ["l1"], "rate": [0.5]},
        "settings": {"pruning": {"round_to": round_to}},
        "storage": str(folder),
    }


def test_a_study_with_auto_is_the_one_with_the_number_and_stays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "learned", lambda: 16)
    asked = parse_study(document(tmp_path, "auto"))
    definition = StudyDefinition(asked)
    number = StudyDefinition(parse_study(document(tmp_path, 16)))
    assert definition.config == number.config
    assert definition.key(definition.points[0]) == number.key(number.points[0])
    assert not list(tmp_path.iterdir())  # a plan writes nothing
    rounding.keep(asked, definition.config, definition.store)
    monkeypatch.setattr(measured, "learned", lambda: 8)  # as on a busy day
    assert StudyDefinition(asked).config == number.config
    rounding.keep(number.config, number.config, Store(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_auto_is_no_dimension(tmp_path: Path) -> None:
    asked = document(tmp_path, 1)
    asked["space"]["pruning.round_to"] = [8, "auto"]
    with pytest.raises(InputError, match=r"space\.pruning\.round_to: auto"):
        StudyDefinition(parse_study(asked))


@pytest.mark.parametrize("value", [0, "all", 1.5, None])
def test_other_values_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match=r"pruning\.round_to"):
        parse_study(document(tmp_path, value))
