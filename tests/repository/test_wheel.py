"""The wheel: what it holds, and a study from an empty folder in an environment that has nothing else of the project."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = """
from trials import mymodels


def run(config):
    return {"val_accuracy": mymodels.ACCURACY, "macs": config["rate"]}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "rssearch", tree / "rssearch", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("trials", "search_spaces"):
        (tree / name).symlink_to(f"rssearch/{name}")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        ".",
    ]
    subprocess.run(command, cwd=tree, check=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel; what the project depends on is that of the tests."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    packages = next(place.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Its .pth files are not read from here: an editable installation of the project stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin" / "python"


def rssearch(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = plain | {"RAY_ADDRESS": "local"}  # not the cluster of another test
    command = [str(python), "-c", "from rssearch.cli import main; main()", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_installs_one_package_with_its_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"rssearch"}
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rssearch").rglob("*") if path.is_file()}
    assert {name for name in tracked if "__pycache__" not in name} <= set(names)


def test_shipped_spaces_and_trials_are_found_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    where = "import rssearch, sys; print(rssearch.__file__)"
    found = subprocess.run([python, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(python.parents[1])
    plan = json.loads(rssearch(python, tmp_path, "plan", "quickstart", "--json").stdout)
    assert plan["resolved"]["trial"].startswith("trials.")
    assert plan["trials"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_folder_of_trials_of_the_users_own_works_beside_the_shipped_ones(python: Path, tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "mine.py").write_text(OWN)
    models = tmp_path / "trials" / "mymodels.py"
    models.write_text("ACCURACY = 0.5\n")
    study = "study: own\ntrial: trials.mine:run\nspace: {rate: [0.25, 0.5]}\n"
    (tmp_path / "own.yaml").write_text(study)
    rssearch(python, tmp_path, "search", "own.yaml")

    def finished() -> int:
        return int(json.loads(rssearch(python, tmp_path, "plan", "own.yaml", "--json").stdout)["finished"])

    assert finished() == 2
    models.write_text("ACCURACY = 0.75\n")  # what its trials import is theirs as well
    assert finished() == 0
    models.write_text("ACCURACY = 0.5\n")
    assert finished() == 2
    # The shipped trial runs to its end beside them, though its module is called trials.prune.
    values = ("space.method=[l1]", "space.rate=[0.5]", "settings.input_size=16")
    values += ("settings.train.epochs=1", "settings.finetune.epochs=1")
    shipped = rssearch(python, tmp_path, "search", "quickstart", *(f"--set={value}" for value in values))
    with (tmp_path / "results" / "quickstart" / "trials.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["status"], row["method"]) == ("finished", "l1"), shipped.stdout
    assert 0 < float(row["macs_ratio"]) < 1
