"""What a running trial gets: the study's context, its store, its checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssearch.config import imports
from rssearch.config.loading import override_settings
from rssearch.config.schema import Bound
from rssearch.config.settings import Settings
from rssearch.config.space import Point
from rssearch.errors import Infeasible
from rssearch.storage import shared_folder
from rssearch.storage.artifacts import Store
from rssearch.storage.location import FULL, locate
from rssearch.trial.interface import CHECKPOINTS, Metrics

if TYPE_CHECKING:
    import torch

    from rssearch.train.data_parallel import WorkerGroup

__all__ = ["Context", "Session", "Shared", "image_settings", "point_settings"]

_log = logging.getLogger(__name__)


class Shared:
    """An object that lies elsewhere, such as in Ray's object store; it travels as the place where it lies."""

    def get(self) -> Any:
        """The object itself."""
        raise NotImplementedError


@dataclass(frozen=True)
class Context:
    """What all trials of a study share; travels to the workers once."""

    study: str
    storage: str
    data_root: str
    settings: Settings
    cpus: float = 1.0
    gpus: float = 0.0
    shared: Mapping[str, Any] = field(default_factory=dict)  # objects, or where they are `Shared`
    token: str | None = (
        None  # of the session, which a worker must see in the storage, see `rssearch.storage.shared_folder`
    )
    workers: int = 1  # that train one trial together; cpus and gpus are of each
    requested: tuple[str, ...] = ()  # of the module's ON_REQUEST, what objectives and constraints name
    named: tuple[str, ...] = ()  # the metrics of objectives and constraints
    constraints: Mapping[str, Bound] = field(default_factory=dict)
    worker_group: WorkerGroup | None = None  # these workers, seen from the one that this is; None: alone
    sources: imports.Sources = ()  # of the user's own modules, see `rssearch.config.imports`


class Session:
    """What one running trial gets besides its point.

    Attributes:
        micro_batches: into how many parts `rssearch.train.fit` shall divide each batch. A trial that ends with
            OutOfMemory is called again with twice as many.
        static_metrics: what the trial has found out by `report_static_metrics`.
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
        self.static_metrics: Metrics = {}
        self._on_report = on_report
        self._warned = False

    @property
    def device(self) -> torch.device:
        """Where this trial computes: a GPU when it was given (a share of) one."""
        import torch

        return torch.device("cuda" if self.context.gpus > 0 and torch.cuda.is_available() else "cpu")

    def shared(self, name: str) -> Any | None:
        """An object that the study shares with all of its trials; None if it has no such name."""
        value = self.context.shared.get(name)
        return value.get() if isinstance(value, Shared) else value

    def report(self, metrics: Metrics) -> None:
        """Tell the study about an epoch."""
        if self._on_report is not None:
            self._on_report(metrics | {n: v for n, v in self.static_metrics.items() if isinstance(v, int | float)})

    def report_static_metrics(self, metrics: Metrics) -> None:
        """Take note of metrics that are final before the training; every epoch reports them along.

        Raises:
            Infeasible: they break a constraint of the study, so there is no need to train.
        """
        from rssearch.front.constraints import is_feasible

        self.static_metrics |= metrics
        if not is_feasible(self.context.constraints, metrics):
            raise Infeasible(self.static_metrics)

    def load_checkpoint(self) -> bytes | None:
        """The checkpoint of the last epoch of this trial, if it was interrupted."""
        files = self.store.get(CHECKPOINTS, self.key)
        return None if files is None else files["checkpoint.pt"]

    def save_checkpoint(self, content: bytes) -> None:
        """Keep the state after an epoch, in place of that of the epoch before.

        Where the disk is full that one stays, with a warning, and the trial continues: it loses nothing unless it is
        interrupted.

        Raises:
            StorageGoneError: the study's folder is gone; it is not made again.
        """
        if self.context.token is not None:
            shared_folder.check_there(locate(self.context.storage) / self.context.study, self.context.token)
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


def image_settings(settings: Settings, point: Mapping[str, Any]) -> Settings:
    """The settings of one trial on images, whose dimension ``bands`` overrides them as well."""
    local = point_settings(settings, point)
    return local if point.get("bands") is None else override_settings(local, {"bands": point["bands"]})
