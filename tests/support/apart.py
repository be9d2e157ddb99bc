"""What a function returns in a process of its own, whose memory ends with it: a VGG16-BN is half a gigabyte a copy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module with arguments, both of which can be pickled. What it raises is raised here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()
