"""What a machine draws while something runs, by the counters that it lets this process read.

RAPL (energy of the processor's packages), ``tegrastats`` (a Jetson's input), or sensors of the INA family under
``/sys/class/hwmon`` (the input rail where it is labelled, else the sum of their channels).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TEGRA = re.compile(r"\b(?:VDD_IN|POM_5V_IN|VDD_SYS_IN|SYS5V)\s+(\d+)(?:mW)?/")  # milliwatts now / on average
_SAMPLE = 0.02  # seconds between two looks at a sensor


@dataclass(frozen=True)
class Drawn:
    """Energy over a time: joules and seconds."""

    joules: float
    seconds: float


@dataclass(frozen=True)
class Meter:
    """Something that measures energy.

    Attributes:
        name: of the counter.
        during: runs something, and says what was drawn meanwhile; None where the counter failed.
    """

    name: str
    during: Callable[[Callable[[], object]], Drawn | None]


def find(system: Path = Path("/sys")) -> Meter | None:
    """The first counter that can be read here."""
    return _rapl(system) or _tegrastats() or _hwmon(system)


def per_pass(meter: Meter, idle: Drawn, busy: Callable[[], int]) -> float | None:
    """Millijoules of a pass above what the machine draws when idle; None where that cannot be told.

    Args:
        meter: measures.
        idle: what it measured while nothing ran.
        busy: runs passes, and says how many.
    """
    passes = 0

    def work() -> None:
        nonlocal passes
        passes = busy()

    drawn = meter.during(work)
    if drawn is None or idle.seconds <= 0 or not passes:
        return None
    above = drawn.joules - idle.joules / idle.seconds * drawn.seconds
    return 1000 * above / passes if above > 0 else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, not for this user, or no sensor behind it
        return None


def _rapl(system: Path) -> Meter | None:
    packages = [
        folder
        for folder in sorted((system / "class/powercap").glob("intel-rapl:*"))
        if folder.name.count(":") == 1 and _number(folder / "energy_uj") is not None
    ]
    if not packages:
        return None

    def during(work: Callable[[], object]) -> Drawn | None:
        before, begun = [_number(folder / "energy_uj") for folder in packages], time.perf_counter()
        work()
        seconds = time.perf_counter() - begun
        total = 0
        for folder, first in zip(packages, before, strict=True):
            last, most = _number(folder / "energy_uj"), _number(folder / "max_energy_range_uj")
            if first is None or last is None or (last < first and most is None):
                return None
            total += last - first + (most or 0 if last < first else 0)
        return Drawn(total / 1e6, seconds)

    return Meter("RAPL", during)


def _hwmon(system: Path) -> Meter | None:
    rails: list[tuple[Path, ...]] = []
    for folder in sorted((system / "class/hwmon").glob("hwmon*")):
        name = folder / "name"
        if not (name.is_file() and name.read_text().strip().startswith("ina")):
            continue
        channels = _channels(folder)
        inputs = [rail for label, rail in channels if "IN" in label.upper().split("_")]
        rails += inputs or [rail for _, rail in channels]
    if not rails:
        return None

    def watts() -> float | None:
        found = [[_number(path) for path in rail] for rail in rails]
        if any(value is None for rail in found for value in rail):
            return None
        # power in microwatts, or millivolts x milliamperes
        return sum((rail[0] or 0) * (rail[1] or 0 if len(rail) > 1 else 1) for rail in found) / 1e6

    return Meter("hwmon", lambda work: _sampled(watts, work))


def _channels(folder: Path) -> list[tuple[str, tuple[Path, ...]]]:
    """The readable rails of a sensor with their labels: a power, or a voltage and a current."""
    powers = [(path, (path,)) for path in sorted(folder.glob("power*_input"))]
    pairs = [
        (path, (path, folder / path.name.replace("in", "curr", 1)))
        for path in sorted(folder.glob("in*_input"))
        if (folder / path.name.replace("in", "curr", 1)).is_file()
    ]
    found: list[tuple[str, tuple[Path, ...]]] = []
    rails: list[tuple[Path, tuple[Path, ...]]] = [*powers, *([] if powers else pairs)]
    for path, rail in rails:
        label = path.with_name(path.name.replace("_input", "_label"))
        if all(_number(part) is not None for part in rail):
            found.append((label.read_text().strip() if label.is_file() else "", rail))
    return found


def _sampled(watts: Callable[[], float | None], work: Callable[[], object]) -> Drawn | None:
    """The mean of a sensor's power over the time of some work."""
    samples: list[float | None] = [watts()]
    done = threading.Event()

    def look() -> None:
        while not done.wait(_SAMPLE):
            samples.append(watts())

    thread = threading.Thread(target=look, daemon=True)
    begun = time.perf_counter()
    thread.start()
    try:
        work()
    finally:
        seconds = time.perf_counter() - begun
        done.set()
        thread.join()
    known = [value for value in samples if value is not None]
    return Drawn(sum(known) / len(known) * seconds, seconds) if known else None


def _tegrastats() -> Meter | None:
    program = shutil.which("tegrastats")
    if program is None:
        return None

    def during(work: Callable[[], object]) -> Drawn | None:
        command = [program, "--interval", "50"]
        with subprocess.Popen(  # noqa: S603 - found in PATH, and no text from outside
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            latest: list[float] = []
            lines = process.stdout
            reader = threading.Thread(target=lambda: latest.extend(_milliwatts(line) for line in lines), daemon=True)
            reader.start()
            begun = time.perf_counter()
            try:
                work()
            finally:
                seconds = time.perf_counter() - begun
                process.terminate()
                reader.join()
        known = [value for value in latest if value > 0]
        return Drawn(sum(known) / len(known) / 1000 * seconds, seconds) if known else None

    return Meter("tegrastats", during)


def _milliwatts(line: str) -> float:
    found = _TEGRA.search(line)
    return float(found[1]) if found else 0.0
