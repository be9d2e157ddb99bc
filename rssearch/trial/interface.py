"""What a study asks of a trial's module, and what a running trial gets.

A study names its trial by an import string such as ``trials.prune:run``. The function is a plain Ray Tune trainable: it
takes ``config`` (the point, and ``settings``), and reports with ``ray.tune.report`` or returns its metrics. A function
with a second parameter gets a `Session`, too. The function's module may offer more, each by its name:

    METRICS                                         names that objectives and constraints may have
    ON_REQUEST                                      those that a trial finds out only where an objective or a constraint
                                                    names them, such as latency: they are part of its key then
    EPOCH_METRICS                                   those that every epoch reports: trials can be stopped early by them
    epochs(point, settings) -> number               of the epochs that a trial reports; the last one stops no trial
    check(point, settings)                          raise InputError for a point that cannot be run
    check_search(point, search)                     raise InputError for objectives that a point has no metric for
    identity(point, settings, data_root) -> plain   what else determines the result (data, code): part of the key
    share(points, settings, data_root, progress)    -> {name: object}, put into Ray's object store once, for all trials
    preparations(points, settings, data_root, store) -> [Preparation], what must be there before the trials start
    prepare(config, session)                        make one of them; config is its point
    cost(point, session) -> metrics                 what is known before the training, such as MACs
    unpruned(point, session) -> metrics             of the network before pruning: ``baseline_<cost>``, and the number
                                                    of ``classes``; hypervolumes and knees are measured from there
    measure(config, session) -> metrics             what only the front's members are worth: test split, latency;
                                                    it may put a picture into the store, see `PREDICTIONS`
    footprint(config, session) -> taken, memory     bytes of a GPU, by `rssearch.cost.memory`, for ``gpus: auto``
    estimate(point, session, epochs) -> seconds     of training, for the plan
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from rssearch.config import imports
from rssearch.errors import InputError

Metrics = dict[str, Any]


CHECKPOINTS = "checkpoints"


PREDICTIONS = "predictions"  # predictions.png in the store under a trial's key goes into its run and into front.html


@dataclass(frozen=True)
class Preparation:
    """Something that trials share, such as a trained baseline with its scores."""

    key: str
    title: str
    point: dict[str, Any]
    done: bool
    parts: Mapping[str, int] = field(default_factory=dict)  # what it makes, for the plan: {"baselines": 1, "scores": 3}


def resolve(target: str) -> tuple[Callable[..., Any], ModuleType]:
    """The function that an import string names, and its module. Raises InputError."""
    try:
        function, module = imports.load(target)
    except InputError as error:
        raise InputError(f"trial: {error}") from error.__cause__
    if not callable(function):
        raise InputError(f"trial: {target} is no function")
    return function, module


def takes_session(function: Callable[..., Any]) -> bool:
    """Whether a trial's function has a second parameter."""
    return len(inspect.signature(function).parameters) > 1
