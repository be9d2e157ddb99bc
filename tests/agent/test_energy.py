"""agent.energy: counters as they lie in a system's files, and a program that stands for tegrastats."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rssearch.agent import energy


@pytest.fixture(autouse=True)
def _no_tegrastats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def put(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def test_rapl_adds_the_packages_and_passes_over_their_end(tmp_path: Path) -> None:
    packages = tmp_path / "class/powercap"
    one = put(packages / "intel-rapl:0", energy_uj=1_000_000, max_energy_range_uj=10_000_000)
    two = put(packages / "intel-rapl:1", energy_uj=9_000_000, max_energy_range_uj=10_000_000)
    put(packages / "intel-rapl:0:0", energy_uj=5)  # a part of the first
    meter = energy.find(tmp_path)
    assert meter is not None
    assert meter.name == "RAPL"

    def work() -> None:
        put(one, energy_uj=3_000_000)
        put(two, energy_uj=500_000)

    drawn = meter.during(work)
    assert drawn is not None
    assert drawn.joules == pytest.approx(2.0 + 1.5)


def test_a_counter_that_goes_away_says_nothing(tmp_path: Path) -> None:
    package = put(tmp_path / "class/powercap/intel-rapl:0", energy_uj=1_000_000)
    meter = energy.find(tmp_path)
    assert meter is not None
    assert meter.during((package / "energy_uj").unlink) is None


def test_sensors_of_the_input_rail(tmp_path: Path) -> None:
    jetson = tmp_path / "class/hwmon/hwmon1"
    put(jetson, name="ina3221", in1_label="VDD_IN", in1_input=5000, curr1_input=1000)
    put(jetson, in2_label="VDD_CPU_GPU_CV", in2_input=5000, curr2_input=400)  # a part of it
    put(tmp_path / "class/hwmon/hwmon0", name="coretemp", power1_input=10**9)
    meter = energy.find(tmp_path)
    assert meter is not None
    assert meter.name == "hwmon"
    drawn = meter.during(lambda: time.sleep(0.1))
    assert drawn is not None
    assert drawn.joules == pytest.approx(5.0 * drawn.seconds)
    assert drawn.seconds == pytest.approx(0.1, abs=0.05)


def test_a_sensor_of_power(tmp_path: Path) -> None:
    put(tmp_path / "class/hwmon/hwmon0", name="ina219", power1_input=2_500_000)
    meter = energy.find(tmp_path)
    assert meter is not None
    drawn = meter.during(lambda: None)
    assert drawn is not None
    assert drawn.joules == pytest.approx(2.5 * drawn.seconds)


def test_tegrastats(tmp_path: Path) -> None:
    program = put(tmp_path / "bin", tegrastats="") / "tegrastats"
    line = "RAM 1/2MB CPU [1%@100] VDD_IN 4000mW/3900mW VDD_CPU_GPU_CV 500mW/500mW"
    program.write_text(f"#!/bin/sh\necho '{line}'\necho nothing\nexec /bin/sleep 60\n")
    program.chmod(0o755)
    meter = energy.find(tmp_path)
    assert meter is not None
    assert meter.name == "tegrastats"
    drawn = meter.during(lambda: time.sleep(0.5))
    assert drawn is not None
    assert drawn.joules == pytest.approx(4.0 * drawn.seconds)
    assert drawn.seconds < 5


def test_a_machine_without_a_counter(tmp_path: Path) -> None:
    put(tmp_path / "class/powercap/intel-rapl:0", energy_uj="no number")
    put(tmp_path / "class/hwmon/hwmon0", name="ina219", power1_input="")
    assert energy.find(tmp_path) is None
