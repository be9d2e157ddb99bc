"""How-tos about code of one's own, run as they are printed: networks, methods, trials. Each file can have a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.howtos import follow


@pytest.mark.slow
@pytest.mark.ray
def test_a_network(tmp_path: Path, local_ray: str) -> None:
    _, rows = follow("model", tmp_path, local_ray)
    assert [(row["model"], row["status"]) for row in rows] == [("mymodels:tiny", "finished")] * 2
    assert [float(row["macs_ratio"]) for row in rows] == pytest.approx([0.5, 0.5], rel=0.01)
    assert (tmp_path / "net" / "manifest.json").is_file()
    code = "from rssearch import models; print(models.task_of(name := 'mysegmenters:PLAIN'), models.options_of(name))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "segmentation ['width']\n"


@pytest.mark.slow
@pytest.mark.ray
def test_a_method(tmp_path: Path, local_ray: str) -> None:
    _, rows = follow("method", tmp_path, local_ray)
    assert {row["method"]: row["status"] for row in rows} == dict.fromkeys(
        ("l1", "mymethods:spread", "mymethods:SPARSE"), "finished"
    )
    assert len({row["val_loss"] for row in rows}) == 3


@pytest.mark.slow
@pytest.mark.ray
def test_a_trial(tmp_path: Path, local_ray: str) -> None:
    _, rows = follow("trial", tmp_path, local_ray)
    assert sorted((row["size"], row["shortcut"], row["status"]) for row in rows) == [
        (size, shortcut, "finished") for size in ("16", "24") for shortcut in ("A", "B")
    ]
    assert len({row["macs"] for row in rows}) == 4


@pytest.mark.slow
@pytest.mark.ray
def test_a_device(tmp_path: Path, local_ray: str) -> None:
    printed, rows = follow("device", tmp_path, local_ray)
    assert "2 trials wait for pi" in printed
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert all(float(row["latency_ms@pi"]) > 0 for row in rows)
    assert all(float(row["peak_rss_bytes@pi"]) > 2**24 for row in rows)
