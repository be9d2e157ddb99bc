"""The public API: what `import rssearch` offers to scripts and notebooks."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rssearch

SPACE: dict[str, Any] = {
    "study": "api",
    "trial": "tests.support.toy:plain",
    "space": {"rate": [0.1, 0.5]},
    "search": {"objectives": {"val_accuracy": "max", "macs": "min"}},
}


def test_importing_it_is_light() -> None:
    heavy = "torch", "ray", "mlflow", "pandas", "optuna", "matplotlib", "numpy"
    program = f"import sys, rssearch; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_name_is_there() -> None:
    assert set(rssearch.__all__) <= set(dir(rssearch))
    for name in rssearch.__all__:
        assert callable(getattr(rssearch, name))
    assert rssearch.pruning.prune is rssearch.pruning.pruned.prune
    with pytest.raises(AttributeError, match="has no attribute 'serch'"):
        _ = rssearch.serch


def test_a_study_is_loaded_by_the_name_of_a_shipped_space_or_by_its_path(tmp_path: Path) -> None:
    study = rssearch.load_study("quickstart", {"study": "mine", "storage": str(tmp_path)})
    assert (study.study, study.storage) == ("mine", str(tmp_path))
    with pytest.raises(rssearch.InputError, match="no shipped space of that name"):
        rssearch.load_study("quickstrat")


@pytest.mark.ray
def test_a_study_is_planned_run_and_read_in_any_thread(tmp_path: Path) -> None:
    study = rssearch.parse_study({**SPACE, "storage": str(tmp_path)})
    assert rssearch.plan(study).trials == 2
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(rssearch.search(study)))  # as a notebook's executor does
    thread.start()
    thread.join()
    assert status == [0]
    found = rssearch.results(study)
    assert isinstance(found.trials, pd.DataFrame)
    assert list(found.trials["rate"]) == [0.1, 0.5]
    assert set(found.front["key"]) <= set(found.trials["key"])
    assert repr(found).startswith("Results('api': 2 trials, ")
    assert rssearch.results("api", tmp_path).trials.equals(found.trials)
    with pytest.raises(rssearch.InputError, match="there is no study 'other'"):
        rssearch.results("other", tmp_path)


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "rssearch", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"rssearch {rssearch.__version__}\n"
