"""What a device and a study say to each other, and what of it is believed.

The device asks ``POST /v1/NAME/job`` and gets an ONNX file, its number in the header ``X-Job``, or status 204; it
answers ``POST /v1/NAME/result`` with JSON, see `Measured`. Every request has a header ``Authorization: Bearer TOKEN``.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rssearch.errors import InputError
from rssearch.escaping import printable

TOKEN = "RSSEARCH_AGENT_TOKEN"  # noqa: S105  # the name of a variable
NAME = r"[A-Za-z0-9_-]{1,32}"  # of a device
LARGEST_MODEL = 512 * 2**20  # bytes of an ONNX file
LARGEST_RESULT = 64 * 2**10  # bytes of the JSON about one
SHORTEST_TOKEN = 16  # characters
MOST_THREADS, LONGEST_LEASE = 1024, 86400  # of a network on a device; seconds
FEWEST, MOST = 5, 1000  # passes of a measurement
AGREE, CLOSE_MS = 0.2, 0.05  # two medians agree: this share of the smaller one apart, or so few milliseconds
_MEMORY = (2**20, 2**44)  # bytes that a process can have taken
_WATTS = 1e4  # of no device that anybody flies

METRICS = ("latency_ms", "latency_p95_ms", "peak_rss_bytes", "energy_mj")  # objectives and constraints, each @ a device


class Refused(Exception):  # noqa: N818 - it is an answer
    """What a device says is not believed, for the reason that the message gives."""


@dataclass(frozen=True)
class Measured:
    """One measurement of one network.

    Attributes:
        times_ms: milliseconds of each pass of one image.
        peak_rss_bytes: the most memory of the process that measured, with onnxruntime in it.
        energy_mj: millijoules of a pass above what the machine takes idle; None where no counter can be read.
        energy_by: the counter.
        device: name of the machine's processor.
        threads: of the CPU.
        provider: of onnxruntime.
    """

    times_ms: tuple[float, ...]
    peak_rss_bytes: int
    energy_mj: float | None
    energy_by: str | None
    device: str
    threads: int
    provider: str

    @property
    def median_ms(self) -> float:
        """Of the passes."""
        return statistics.median(self.times_ms)


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object from outside. Raises Refused."""

    def constant(name: str) -> float:
        raise ValueError(f"{name} is no number of JSON")

    try:
        found = json.loads(body, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise Refused("this is no JSON") from error
    if not isinstance(found, dict):
        raise Refused("this is no JSON object")
    return found


def measured(said: Mapping[str, Any], elapsed: float) -> Measured:
    """What a device measured, if it can be true.

    Args:
        said: its answer.
        elapsed: seconds since the network was handed out.

    Raises:
        Refused: something is missing, no finite positive number, or took longer than the device had.
    """
    times = said.get("times_ms")
    if not isinstance(times, list) or not FEWEST <= len(times) <= MOST:
        raise Refused(f"times_ms must be a list of {FEWEST} to {MOST} numbers")
    passes = tuple(_positive("times_ms", value) for value in times)
    if sum(passes) > 1000 * elapsed:
        raise Refused(f"the passes took {sum(passes) / 1000:.3g} s, but the network was out for {elapsed:.3g} s")
    memory, threads = said.get("peak_rss_bytes"), said.get("threads")
    if type(memory) is not int or not _MEMORY[0] <= memory <= _MEMORY[1]:
        raise Refused("peak_rss_bytes must be a whole number of bytes that a process can take")
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        raise Refused(f"threads must be a whole number from 1 to {MOST_THREADS}")
    energy = None if said.get("energy_mj") is None else _positive("energy_mj", said["energy_mj"])
    if energy is not None and energy > _WATTS * statistics.median(passes):  # W x ms = mJ
        raise Refused("energy_mj is more than a device can draw in that time")
    return Measured(
        times_ms=passes,
        peak_rss_bytes=memory,
        energy_mj=energy,
        energy_by=None if energy is None else text(said.get("energy_by")),
        device=text(said.get("device")),
        threads=threads,
        provider=text(said.get("provider")),
    )


def agreeing(runs: Sequence[Measured]) -> tuple[Measured, Measured] | None:
    """The two measurements of a network whose medians are nearest to each other, if they agree."""
    ordered = sorted(runs, key=lambda run: run.median_ms)
    pairs = list(itertools.pairwise(ordered))
    if not pairs:
        return None
    one, other = min(pairs, key=lambda pair: pair[1].median_ms / pair[0].median_ms)
    apart = other.median_ms - one.median_ms
    return (one, other) if apart <= max(AGREE * one.median_ms, CLOSE_MS) else None


def metrics(name: str, runs: Sequence[Measured]) -> dict[str, Any]:
    """What a trial reports of measurements that agree, each ``@`` the device's name."""
    times = [value for run in runs for value in run.times_ms]
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    energies = [run.energy_mj for run in runs if run.energy_mj is not None]
    found: dict[str, Any] = {
        "latency_ms": statistics.median(times),
        "latency_iqr_ms": high - low,
        "latency_p95_ms": statistics.quantiles(times, n=20, method="inclusive")[-1],
        "latency_passes": len(times),
        "peak_rss_bytes": max(run.peak_rss_bytes for run in runs),
        "energy_mj": statistics.mean(energies) if energies else None,
        "latency_device": runs[0].device,
        "latency_threads": runs[0].threads,
        "latency_provider": runs[0].provider,
    }
    if energies:
        found["energy_by"] = runs[0].energy_by
    return {f"{metric}@{name}": value for metric, value in found.items()}


def nothing(name: str) -> dict[str, Any]:
    """The same of a network that the device cannot run."""
    return {f"{metric}@{name}": None for metric in METRICS}


def text(value: Any, most: int = 100) -> str:
    """A text from outside, short and harmless. Raises Refused where it is none."""
    if not isinstance(value, str):
        raise Refused("device, provider and energy_by must be texts")
    return printable(" ".join(value.split()), keep=set())[:most]


def check_token(token: str | None, where: str) -> str:
    """A token that is long enough. Raises InputError, which does not show it."""
    token = (token or "").strip()
    if not token:
        raise InputError(f"no token: set {TOKEN}, or name a file that holds it ({where})")
    if len(token) < SHORTEST_TOKEN or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise InputError(f"the token must have {SHORTEST_TOKEN} characters or more, of ASCII and without spaces")
    return token


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise Refused(f"{name} must be finite and above 0")
    return float(value)
