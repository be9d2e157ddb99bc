"""How a session is stopped from outside: Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop"]


class Stop:
    """Ctrl-C and SIGTERM: what has ended is recorded, what runs has its checkpoints.

    While Ray Tune runs, an exception out of a signal handler could hit Ray's native code, which then aborts. So the
    first signal only asks, and the next step of Tune's loop raises; a second one raises at once.
    """

    def __init__(self) -> None:
        self.requested = self.careful = False

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        if self.careful and not self.requested:
            self.requested = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def carefully(self) -> Iterator[None]:
        """While this lasts, the first signal only asks."""
        self.careful = True
        try:
            yield
        finally:
            self.careful = False

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handle the two signals here. Entered after Ray is connected, which takes SIGTERM for itself."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        try:
            before = {number: signal.signal(number, self._signalled) for number in numbers}
        except ValueError:  # not the main thread, as in a notebook's executor
            yield self
            return
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
