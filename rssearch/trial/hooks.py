"""What a study asks of a trial's module, and what a running trial gets.

A study names its trial by an import string such as ``trials.prune:run``. The function is a plain Ray Tune trainable: it
takes ``config`` (the point, and ``settings``), and reports with ``ray.tune.report`` or returns its metrics. A function
with a second parameter gets a `Session`, too. Its module may offer more, each by its name: see `TrialModule`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from rssearch.config import imports
from rssearch.config.schema import Search
from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.storage.artifacts import Store
from rssearch.trial.interface import Metrics, Preparation
from rssearch.trial.session import Session

__all__ = ["HOOKS", "TrialModule", "check_hooks", "resolve", "takes_session"]

Point = dict[str, Any]


class TrialModule(Protocol):
    """The hooks of a trial's module. All of them are optional, so a module need not have the whole protocol.

    What the driver asks runs on the driver, before the trials and without training; what a worker does runs where the
    trial does. `rssearch.testing.check_trial` holds a module against it.

    Attributes:
        METRICS: names that objectives and constraints may have.
        ON_REQUEST: those that a trial finds out only where an objective or a constraint names them, such as latency:
            they are part of its key then.
        EPOCH_METRICS: those that every epoch reports: trials can be stopped early by them.
        PER_CLASS: how names of metrics begin that end with the name of a class, as ``val_recall_`` in
            ``val_recall_water``; every epoch reports those that `Session.context.named` has. Which classes there are
            says `classes`.
        MEASURED: what `measure` finds out in any case. A member of the front that lacks one of them, as an earlier
            version of the module recorded it, is measured again when its study resumes.
    """

    METRICS: Sequence[str]
    ON_REQUEST: Sequence[str]
    EPOCH_METRICS: Sequence[str]
    PER_CLASS: Sequence[str]
    MEASURED: Sequence[str]

    # What the driver asks

    def check(self, point: Point, settings: Settings) -> None:
        """Raise an InputError for a point that cannot be run."""

    def check_search(self, point: Point, search: Search) -> None:
        """Raise an InputError for objectives and constraints that a point has no metric for."""

    def classes(self, point: Point, settings: Settings, data_root: Path) -> Sequence[str]:
        """The names of the classes of a point's dataset, for metrics of single classes."""

    def identity(self, point: Point, settings: Settings, data_root: Path) -> Any:
        """What determines the result besides point and settings (data, code), as plain JSON: part of the key."""

    def epochs(self, point: Point, settings: Settings) -> int:
        """How many epochs a trial reports; the last one stops no trial."""

    def peers(self, point: Point, settings: Settings) -> str:
        """Early stopping compares trials of one name alone: their epochs must mean the same."""

    def share(
        self, points: Iterable[Point], settings: Settings, data_root: Path, progress: Callable[[str, int, int], None]
    ) -> Mapping[str, Any]:
        """Objects by name, put into Ray's object store once, for all trials; see `Session.shared`."""

    def preparations(
        self, points: Iterable[Point], settings: Settings, data_root: Path, store: Store
    ) -> list[Preparation]:
        """What must be there before the trials start."""

    def cost(self, point: Point, session: Session) -> Metrics:
        """What is known before the training, such as MACs: empty where nothing is known yet."""

    def describe(self, point: Point, session: Session) -> str:
        """What a point's images are, in a few words: a plan says it."""

    def unpruned(self, point: Point, session: Session) -> Metrics:
        """Of the network before pruning: ``baseline_<cost>``, and ``classes``, the number of classes.

        Hypervolumes and knees are measured from there.
        """

    def estimate(self, point: Point, session: Session, epochs: int) -> float:
        """Seconds of training on this machine, for the plan."""

    def outlay(self, points: Iterable[Point], settings: Settings) -> Mapping[str, float]:
        """Epochs of the whole network that a front of each method trains in all, the cheapest first, for the plan."""

    # What a worker does

    def check_baseline(self, config: Point, session: Session) -> list[Metrics]:
        """What given weights reach on the validation images, by each of several normalisations.

        Rows with ``model``, ``weights``, ``normalize``, ``accuracy``, ``certainty``, ``reordered``, ``warning``, the
        study's own normalisation first; empty where the point names no weights.
        """

    def prepare(self, config: Point, session: Session) -> Metrics:
        """Make one of the `preparations`; config is its point."""

    def measure(self, config: Point, session: Session) -> Metrics:
        """What only the front's members are worth: test split, latency; of their baselines as ``baseline_<metric>``.

        It may put a picture into the store, see `PREDICTIONS`.
        """

    def deploy(self, config: Point, session: Session) -> Metrics:
        """Put a trained network as ``model.onnx`` into the store, see `DEPLOYED`: devices measure it."""

    def footprint(self, config: Point, session: Session) -> Metrics:
        """``taken`` and ``memory``, bytes of a GPU by `rssearch.cost.memory`, for ``gpus: auto``."""


_LISTS = ("METRICS", "ON_REQUEST", "EPOCH_METRICS", "PER_CLASS", "MEASURED")
_ALIKE = 0.8  # of difflib: one letter of five too few, too many or changed

# Each hook with the names of what a study calls it with.
HOOKS: Mapping[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(hook).parameters)[1:]
    for name, hook in vars(TrialModule).items()
    if inspect.isfunction(hook) and not name.startswith("_")
}


def resolve(target: str) -> tuple[Callable[..., Any], ModuleType]:
    """The function that an import string names, and its module.

    Raises:
        InputError: there is no such function, or something of its module does not fit, see `check_hooks`.
    """
    try:
        function, module = imports.load(target)
    except InputError as error:
        raise InputError(f"trial: {error}") from error.__cause__
    if not callable(function):
        raise InputError(f"trial: {target} is no function")
    check_hooks(module)
    return function, module


def check_hooks(module: ModuleType) -> None:
    """Refuse a module whose hooks a study cannot use.

    Raises:
        InputError: a hook cannot be called as a study calls it, a list of metrics is none, or a function with the
            parameters of a hook that is not there is named almost like it.
    """
    for name in _LISTS:
        listed = getattr(module, name, ())
        if isinstance(listed, str) or not isinstance(listed, Collection) or not all(isinstance(n, str) for n in listed):
            raise InputError(f"trial: {module.__name__}.{name} is no list of names")
    for name, arguments in HOOKS.items():
        hook = getattr(module, name, None)
        if callable(hook) and not _takes(hook, len(arguments)):
            raise InputError(
                f"trial: {module.__name__}.{name}{inspect.signature(hook)} cannot be called as "
                f"{name}({', '.join(arguments)})"
            )
    for name, function in inspect.getmembers(module, inspect.isfunction):
        near = difflib.get_close_matches(name, HOOKS, n=1, cutoff=_ALIKE)
        if name in HOOKS or function.__module__ != module.__name__ or not near or hasattr(module, near[0]):
            continue
        if tuple(inspect.signature(function).parameters) == HOOKS[near[0]]:
            raise InputError(f"trial: {module.__name__}.{name} is no hook of a trial. Did you mean {near[0]!r}?")


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments; one that does not say so is believed."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # a function in C without a signature
        return True
    return True


def takes_session(function: Callable[..., Any]) -> bool:
    """Whether a trial's function has a second parameter."""
    return len(inspect.signature(function).parameters) > 1
