"""What the console shows while a study runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

QUIET_SECONDS = 10.0  # between two lines where the console is no terminal


class Display:
    """A live display on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self.console, self.verbose = console, verbose
        self.done = self.running_count = self.stopped = self.failed = self.infeasible = self.total = 0
        self.phase = self.best = ""
        self.hypervolume: float | None = None
        self._began, self._done_before, self._last_line = time.monotonic(), 0, -math.inf
        self._running: dict[str, str] = {}
        self._earlier: set[str] = set()  # of the running jobs: of the phase before
        self._shares: dict[str, tuple[float, float]] = {}  # of a running job: done before this session, and now
        self._live: Live | None = None
        self._reading = ""

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exception)
            self._live = None

    def start(self, phase: str, total: int, done: int = 0, infeasible: int = 0, stopped: int = 0) -> None:
        """Begin a phase of `total` jobs, of which some ended in earlier sessions; jobs that run belong to the last."""
        self.phase, self.total, self.done = phase, total, done
        self.failed, self.infeasible, self.stopped = 0, infeasible, stopped
        self._done_before = done + stopped
        self._began = time.monotonic()
        self._shares.clear()
        self._earlier = set(self._running)

    def reading(self, name: str, done: int, total: int) -> None:
        """Images of a dataset are being decoded."""
        if name != self._reading:
            self._reading = name
            self.start(f"reading {name}", total)
        self.done, self.total = done, total
        self._tick(force=done >= total)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def running(self, key: str, title: str, detail: str = "", epoch: int = 0, epochs: int | None = None) -> None:
        """A job is under way, and an epoch of so many has ended."""
        self._running[key] = f"{title}  {detail}".rstrip()
        if epoch and epochs and key not in self._earlier:
            began = self._shares.get(key, ((epoch - 1) / epochs, 0.0))[0]
            self._shares[key] = began, min(1.0, epoch / epochs)
        self._tick()

    def ended(self, key: str, status: str) -> None:
        """A job ended."""
        self._running.pop(key, None)
        self._shares.pop(key, None)
        if key in self._earlier:
            self._earlier.remove(key)
            return
        self.done += status == "finished"
        self.stopped += status == "stopped"
        self.failed += status == "failed"
        self.infeasible += status == "infeasible"
        self._tick(force=self.left == 0)

    @property
    def left(self) -> int:
        """Jobs of the phase that have not ended."""
        return max(0, self.total - self.done - self.stopped - self.failed - self.infeasible)

    def seconds_left(self) -> float | None:
        """An estimate from the pace of this session; None before the first trial or epoch has ended.

        What a resumed job had done before does not count for the pace.
        """
        here: float = self.done + self.stopped + self.failed - self._done_before
        here += sum(now - first for first, now in self._shares.values())
        left = self.left - sum(now for _, now in self._shares.values())
        return (time.monotonic() - self._began) / here * left if here > 0 else None

    def _summary(self) -> str:
        left = self.seconds_left()
        parts = [f"{self.done} of {self.total} done"]
        parts += [f"{len(self._running)} running"] if self._running else []
        parts += [f"{self.stopped} stopped"] if self.stopped else []
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.infeasible} infeasible"] if self.infeasible else []
        parts += [f"best {self.best}"] if self.best else []
        parts += [f"hypervolume {self.hypervolume:.4g}"] if self.hypervolume is not None else []
        parts += [f"about {duration(left)} left"] if left is not None and left > 0 else []
        return ", ".join(parts)

    def _tick(self, *, force: bool = False) -> None:
        if self._live is not None:
            return
        now = time.monotonic()
        if force or now - self._last_line > QUIET_SECONDS:
            self._last_line = now
            detail = f" ({next(iter(self._running.values()))})" if len(self._running) == 1 else ""
            self.say(f"{self.phase}: {self._summary()}{detail}")

    def _render(self) -> RenderableType:
        ended = self.total - self.left
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            self.phase,
            ProgressBar(total=self.total or None, completed=ended, width=40),
            f"{ended}/{self.total}",
            duration(time.monotonic() - self._began),
        )
        rows = Table.grid(padding=(0, 1))
        for text in list(self._running.values())[:8]:
            rows.add_row("  ", text)
        return Group(bar, self._summary(), rows)


def duration(seconds: float) -> str:
    """Seconds for people: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def best_text(row: Mapping[str, Any], objective: str) -> str:
    """The best trial so far, in a few words."""
    value = row.get(objective)
    return f"{objective} {value:.4g}" if isinstance(value, int | float) else ""
