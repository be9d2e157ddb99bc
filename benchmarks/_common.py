"""What the benchmarks share: the name of the device, and the file that their rows go to."""

import csv
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rssearch.data.decode import available_cpus


def device_label() -> str:
    """The GPU's name, or the number of CPUs that this process may use."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu{available_cpus()}"


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
