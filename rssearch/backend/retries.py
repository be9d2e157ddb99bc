"""Why a trial's worker died, and whether the trial is started again."""

from __future__ import annotations

from collections import Counter
from enum import Enum

NODE_LOSSES = 20  # of one trial: a trial that brings its nodes down ends some time


class Cause(Enum):
    """What a worker died of."""

    NODE = "node"  # was preempted, taken away or cannot be reached: not the trial's fault
    MEMORY = "memory"  # of the node ran out, and Ray ended the worker
    PROCESS = "process"  # died by itself


# Ray tells by its words alone; where a node is gone, its driver's connection breaks before Ray knows of the node.
_SIGNS = {
    Cause.MEMORY: ("running low on memory",),
    Cause.NODE: ("its node has died", "the actor's node was", " is unavailable: "),
}


def cause(error: str) -> Cause:
    """What the text of Ray's error says."""
    for found, signs in _SIGNS.items():
        if any(sign in error for sign in signs):
            return found
    return Cause.PROCESS


class Retries:
    """How often each trial may be started again: `most` times after its own deaths, and whenever its node was lost."""

    def __init__(self, most: int) -> None:
        self._most = {Cause.NODE: NODE_LOSSES, Cause.MEMORY: most, Cause.PROCESS: most}
        self._deaths: Counter[tuple[str, bool]] = Counter()

    def again(self, key: str, why: Cause) -> bool:
        """Count a death; whether the trial is started again."""
        counted = (key, why is Cause.NODE)
        self._deaths[counted] += 1
        return self._deaths[counted] <= self._most[why]
