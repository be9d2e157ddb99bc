"""What a study ran on: versions, commit, devices, data."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rssearch.data import AnySet

DRIVERS = tuple(Path("/dev") / name for name in ("nvidiactl", "kfd", "dxg"))  # NVIDIA's, AMD's, and both in WSL
PACKAGES = ("rssearch", "torch", "torchvision", "ray", "optuna", "mlflow", "thop", "numpy")


def environment(data: Iterable[Any] = ()) -> str:
    """Versions, platform, device, git commit and data, as JSON text.

    Args:
        data: what the trials share; of image sets the content, the division, and what is to be known of them is told.
    """
    return json.dumps(
        {
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "gpus": _gpus(),
            "versions": {name: _version(name) for name in PACKAGES},
            "git_commit": _commit(Path.cwd()),
            "data": _told(data),
        },
        indent=1,
    )


def _gpus() -> list[str]:
    """Names of the GPUs. torch, which takes seconds to import, is asked where it is there or a driver has a device."""
    if "torch" not in sys.modules and not any(path.exists() for path in DRIVERS):
        return []
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _told(data: Iterable[Any]) -> list[dict[str, Any]]:
    shared = list(data)
    if not shared:
        return []
    from rssearch.data import ImageSet, SceneSet

    return [_about(found) for found in shared if isinstance(found, ImageSet | SceneSet)]


def _about(images: AnySet) -> dict[str, Any]:
    told = {name: getattr(images, name) for name in ("name", "fingerprint", "split_hash", "skipped", "notes")}
    return told | {"split": {split: len(members) for split, members in images.indices.items()}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit that is checked out in a folder, with a plus if files differ from it; None outside a repository."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return f"{commit}+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
