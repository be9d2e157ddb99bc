"""What the benchmarks share: the device, the files that their rows go to, means and paired differences."""

import csv
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rssearch.data.decode import available_cpus
from rssearch.front.seeds import paired


def device_label() -> str:
    """The GPU's name, or the number of CPUs that this process may use."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu{available_cpus()}"


def cost_device() -> str:
    """The GPU's name, or cpu: for figures that do not depend on the number of CPUs."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def load() -> str:
    """The load average of the last minute, for a column that tells a busy machine from a quiet one."""
    return f"{os.getloadavg()[0]:.1f}"


def write_rows(name: str, rows: list[dict[str, Any]], packages: tuple[str, ...], out: Path) -> Path:
    """Write rows, each with device and versions, to ``<out>/<name>-<device>.csv``."""
    about = {"device": device_label(), "python": platform.python_version()}
    about |= {package: metadata.version(package) for package in packages}
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-{re.sub(r'[^a-z0-9]+', '-', device_label().lower())}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *about])
        writer.writeheader()
        writer.writerows(line | about for line in rows)
    return path


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a benchmark that goes on where it was stopped; none where it has not begun."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Add these columns of a row; the first one brings the header."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow({name: row[name] for name in columns})


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation in per cent."""
    if not values:
        return "-"
    mean = f"{100 * statistics.mean(values):.2f}"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def gain(one: Mapping[str, float], other: Mapping[str, float]) -> str:
    """The mean difference of the seeds that both have and its 95 % interval, in points; in bold where it is not 0."""
    mean, half = paired([value - other[seed] for seed, value in one.items() if seed in other])
    if mean is None:
        return "-"
    if half is None:
        return f"{100 * mean:+.2f}"
    text = f"{100 * mean:+.2f} ± {100 * half:.2f}"
    return f"**{text}**" if abs(mean) > half else text
