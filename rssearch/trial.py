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
    footprint(config, session) -> taken, memory     bytes of a GPU, by `rssearch.packing.measure`, for ``gpus: auto``
    estimate(point, session, epochs) -> seconds     of training, for the plan
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rssearch import imports, sharing
from rssearch.config import Bound, Settings, override_settings
from rssearch.errors import Infeasible, InputError, OutOfMemory, PeerLostError, TrialFailed
from rssearch.space import Point
from rssearch.storage import FULL, locate
from rssearch.store import Store

if TYPE_CHECKING:
    import torch

    from rssearch.parallel import Crew, Workers

_log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Context:
    """What all trials of a study share; travels to the workers once."""

    study: str
    storage: str
    data_root: str
    settings: Settings
    cpus: float = 1.0
    gpus: float = 0.0
    shared: Mapping[str, Any] = field(default_factory=dict)  # references into Ray's object store, or the objects
    token: str | None = None  # of the session, which a worker must see in the storage, see `rssearch.sharing`
    workers: int = 1  # that train one trial together; cpus and gpus are of each
    requested: tuple[str, ...] = ()  # of the module's ON_REQUEST, what objectives and constraints name
    constraints: Mapping[str, Bound] = field(default_factory=dict)
    crew: Crew | None = None  # these workers, seen from the one that this is; None: alone
    sources: imports.Sources = ()  # of the user's own modules, see `rssearch.imports`


class Session:
    """What one running trial gets besides its point.

    Attributes:
        micro_batches: into how many parts `rssearch.train.fit` shall divide each batch. A trial that ends with
            OutOfMemory is called again with twice as many.
        known: what the trial has found out by `know`.
    """

    def __init__(
        self,
        context: Context,
        key: str,
        point: Point,
        on_report: Callable[[Metrics], None] | None = None,
        micro_batches: int = 1,
    ) -> None:
        self.context, self.key, self.micro_batches = context, key, micro_batches
        self.settings = point_settings(context.settings, point)
        self.store = Store(context.storage)
        self.data_root = Path(context.data_root)
        self.known: Metrics = {}
        self._on_report = on_report
        self._warned = False

    @property
    def device(self) -> torch.device:
        """Where this trial computes: a GPU when it was given (a share of) one."""
        import torch

        return torch.device("cuda" if self.context.gpus > 0 and torch.cuda.is_available() else "cpu")

    def shared(self, name: str) -> Any | None:
        """An object that the study put into Ray's object store, mapped without a copy; None if it has no such name."""
        value: Any = self.context.shared.get(name)
        if type(value).__name__ != "ObjectRef":
            return value
        import ray

        found: Any = ray.get(value)
        return found

    def report(self, metrics: Metrics) -> None:
        """Tell the study about an epoch."""
        if self._on_report is not None:
            self._on_report(metrics | {n: v for n, v in self.known.items() if isinstance(v, int | float)})

    def know(self, metrics: Metrics) -> None:
        """Take note of metrics that are final before the training; every epoch reports them along.

        Raises:
            Infeasible: they break a constraint of the study, so there is no need to train.
        """
        from rssearch.searcher import violations

        self.known |= metrics
        if any(excess > 0 for excess in violations(self.context.constraints, metrics).values()):
            raise Infeasible(self.known)

    def load_checkpoint(self) -> bytes | None:
        """The checkpoint of the last epoch of this trial, if it was interrupted."""
        files = self.store.get(CHECKPOINTS, self.key)
        return None if files is None else files["checkpoint.pt"]

    def save_checkpoint(self, content: bytes) -> None:
        """Keep the state after an epoch, in place of that of the epoch before.

        Where the disk is full that one stays, with a warning, and the trial goes on: it loses nothing unless it is
        interrupted.

        Raises:
            StorageGoneError: the study's folder is gone; it is not made again.
        """
        if self.context.token is not None:
            sharing.check_there(locate(self.context.storage) / self.context.study, self.context.token)
        try:
            self.store.put(CHECKPOINTS, self.key, {"checkpoint.pt": content})
        except OSError as error:
            if error.errno not in FULL:
                raise
            if not self._warned:
                _log.warning("checkpoints cannot be written, the last one stays: %s", error)
            self._warned = True

    def drop_checkpoint(self) -> None:
        """Forget the checkpoint: the trial has ended."""
        self.store.remove(CHECKPOINTS, self.key)


def point_settings(settings: Settings, point: Mapping[str, Any]) -> Settings:
    """The settings of one trial: dimensions with a dot in their name override them."""
    dotted = {name: value for name, value in point.items() if "." in name}
    return override_settings(settings, dotted) if dotted else settings


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


def call(function: Callable[..., Any], config: dict[str, Any], session: Session) -> Any:
    """Call a trial's function with as many arguments as it takes."""
    return function(config, session) if takes_session(function) else function(config)


def _fitted(function: Callable[..., Any], config: dict[str, Any], session: Session) -> Any:
    """Call a trial's function until its training fits into the memory; it goes on from its last checkpoint."""
    while True:
        try:
            return call(function, dict(config), session)
        except OutOfMemory as error:  # it holds the frames, and with them the tensors, until this block ends
            session.micro_batches *= 2
            _log.warning("%s; it goes on with %d micro-batches for each batch", error, session.micro_batches)
        release_memory()


def supervised(config: dict[str, Any], *, target: str, context: Context) -> None:
    """The Ray Tune trainable around every trial.

    However the trial ends, the driver gets one last report that says so. An exception becomes a failed trial with its
    reason; Tune's own retries are thus kept for workers that die.
    """
    from ray import tune

    key, point = config["key"], config["point"]
    if "given_up" in config:
        tune.report({"event": "given up"})
        return
    if context.token is not None:
        folder = f"{context.storage}/{context.study}"
        if reason := sharing.problem(folder, context.token):
            tune.report({"event": "unshared", "reason": str(sharing.refusal(folder, {sharing.node(): reason}))})
            return
    notes = _Notes()
    logging.getLogger("rssearch").addHandler(notes)
    last: dict[str, Any] = {}
    try:
        imports.install(context.sources)
        function = _loaded(target) if context.workers == 1 else partial(_on_workers, target)
        _use_cpus(context.cpus)
        session = Session(
            context,
            key,
            point,
            lambda m: tune.report({"event": "epoch", "metrics": m}),
            config.get("micro_batches", 1),
        )
        result = _fitted(function, {**point, "settings": context.settings.model_dump(mode="json")}, session)
        last = {"status": "finished", "metrics": dict(result) if result is not None else None}
        if last["metrics"] is not None and session.micro_batches > 1:
            last["metrics"].setdefault("micro_batches", session.micro_batches)
    except Infeasible as error:
        last = {"status": "infeasible", "metrics": error.metrics}
    except (TrialFailed, InputError) as error:
        last = {"status": "failed", "reason": str(error)}
    except PeerLostError:  # as if this process had died
        raise
    except Exception as error:  # noqa: BLE001  # the boundary: any error of a trial becomes its recorded reason
        last = {"status": "failed", "reason": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    finally:
        logging.getLogger("rssearch").removeHandler(notes)
        release_memory()
    tune.report({"event": "end", **last, "notes": notes.lines})


def _on_workers(target: str, config: dict[str, Any], session: Session) -> Any:
    """Call a trial's function on workers of its own, see `rssearch.parallel`."""
    from rssearch import parallel

    context = session.context
    work = partial(_work, target, config, context, session.key, session.micro_batches)
    result, notes = parallel.launch(work, session.report, workers=context.workers, cpus=context.cpus, gpus=context.gpus)
    for line in notes:
        _log.warning("%s", line)
    return result


def _work(
    target: str,
    config: dict[str, Any],
    context: Context,
    key: str,
    micro_batches: int,
    crew: Workers,
    on_report: Callable[[Metrics], None],
) -> tuple[Any, list[str]] | None:
    """What each worker does: the leader calls the trial's function, the others train with it."""
    folder = f"{context.storage}/{context.study}"
    if context.token is not None and (reason := sharing.problem(folder, context.token)):
        raise sharing.refusal(folder, {sharing.node(): reason})
    imports.install(context.sources)
    function, context = _loaded(target), replace(context, crew=crew)
    _use_cpus(context.cpus)
    if not crew.leads:
        for helped, point, more in crew.jobs():
            helped(point, Session(context, key, point, micro_batches=micro_batches), **more)
        return None
    notes = _Notes()
    logging.getLogger("rssearch").addHandler(notes)
    result = call(function, config, Session(context, key, config, on_report, micro_batches))
    crew.dismiss()
    return result, notes.lines


@lru_cache(maxsize=8)
def _loaded(target: str) -> Callable[..., Any]:
    """The trial's function, imported once in a worker's life.

    What has been imported by then is frozen: it lives as long as the worker, and the collection after each trial would
    walk over its 400,000 objects for a quarter of a second.
    """
    function, _ = resolve(target)
    gc.freeze()
    return function


class _Notes(logging.Handler):
    """Collects the warnings of a trial, since a worker's console is not the user's."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _use_cpus(cpus: float) -> None:
    """Give torch this trial's share of the threads: a reused worker keeps those of the trial before."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(max(1, int(cpus)))


def release_memory() -> None:
    """Leave nothing behind for the next trial of a reused worker, and give back to the system what is free.

    A trial runs in a thread of its own. glibc gives each a share of the memory of its own, and keeps what is freed: as
    networks differ in size from trial to trial, a worker would grow by gigabytes over some tens of trials.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
