"""What a study defines: its points and their keys, checked before anything starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rssearch.config import imports
from rssearch.config.schema import Resources, StudyConfig
from rssearch.config.space import Choice, Point, contains, content_key, ends, grid, grid_size, sample, size_text
from rssearch.errors import InputError, TrialFailed, unknown
from rssearch.metrics import number
from rssearch.sampling.early_stopping import stopping_objectives
from rssearch.sampling.sampler import check_sampler
from rssearch.scores import names_of
from rssearch.storage import uris
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal
from rssearch.storage.location import absolute, address, locate
from rssearch.storage.records import Status, TrialRecord
from rssearch.study import class_metrics, devices, rounding, split_files, weight_files
from rssearch.trial.hooks import resolve, takes_session
from rssearch.trial.interface import Preparation
from rssearch.trial.session import Context, Session, point_settings

_log = logging.getLogger(__name__)

_NOT_IN_KEY = {"download", "memory_share", "keep_models", "latency"}  # settings that do not change a trial's result
# Left out of the key at their defaults, as in studies of before they existed.
_LATER = {"patches", "normalize", "bands", "band_names", "scale", "nodata", "slimmable", "qat"}
_SAME_MEMORY = {
    "seed",
    "methods",
    "search",
    "sensitivities",
    "slimmable",
}  # dimensions, and what preparations add, that change no footprint
_GRID_LIMIT = 100_000
_LISTED = 10_000  # cells of a space that is only sampled: a check takes a millisecond
_SAMPLE = 1000  # points of a space with more cells than that
_MEASURED = 20  # baselines of a sampled space whose memory is measured one by one
LOOKED_AT = 100  # points of a space that is only sampled; a cost may take a tenth of a second


def spread(points: list[Point], most: int) -> list[Point]:
    """At most so many points, evenly from the first to the last."""
    if len(points) <= most:
        return points
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]


def sample_note(count: int) -> str:
    """What is to be said where not every point of a space was checked."""
    return f"a sample of {count} points was checked: the space has too many to check each"


class StudyDefinition:
    """What a study asks: its configuration, its trial's module, the points that can be known beforehand.

    Attributes:
        points: every cell of a grid, and of a countable space of at most `_LISTED` cells; of another one points that
            stand for it, see `rssearch.config.space.sample`.
        sampled: whether there are other points, too.
        judged: the objectives by which trials are stopped early; empty where none is.
        reported: the metrics that every epoch reports, as far as the trial's module says so.
        requested: what objectives and constraints name of the metrics that are found out only then.
        named: all metrics of objectives and constraints.
        search: what is known of trials without a device: the objectives and constraints but for theirs.
        class_metrics: those of them that are of one class, such as ``val_recall_water``.
    """

    def __init__(self, config: StudyConfig) -> None:
        """Find the trial and check every point. Raises InputError; nothing is written."""
        place = locate(config.storage)
        self.storage = absolute(place) if isinstance(place, Path) else place
        self.store = Store(self.storage)
        self.config = config = rounding.fixed(split_files.fixed(weight_files.fixed(config)), self.store)
        self.function, self.module = resolve(config.trial)
        chosen = (value for d in config.space.values() if isinstance(d, Choice) for value in d.values)
        self._sources = imports.sources([config.trial, *(value for value in chosen if isinstance(value, str))])
        self.data_root = absolute(config.data_root)
        self.folder = self.storage / config.study
        fields = type(config.settings).model_fields
        plain = {name for name in _LATER if getattr(config.settings, name) == fields[name].default}
        self._settings = config.settings.model_dump(mode="json", exclude=_NOT_IN_KEY | plain)
        for section in ("augment", "train", "finetune", "pruning"):
            self._settings[section] = getattr(config.settings, section).identity()
        del self._settings["model"]["sha256"]  # in the identity of the trials that begin with such a file
        for name in ("file", "sha256"):
            self._settings["split"].pop(name, None)  # what the file says is in the key of each trial
        if not config.settings.model.networks:
            del self._settings["model"]["networks"]
        if config.resources.workers > 1 and not takes_session(self.function):
            raise InputError(
                f"resources.workers: {config.trial} takes no session, so it cannot train on {config.resources.workers} "
                "workers"
            )
        self.search = devices.without(config, self.hook("deploy") is not None)
        check_sampler(self.search, config.space)
        self._check_metrics()
        # A shipped trial says itself what of its code changes a result, see its `identity`.
        self._user_code = {} if imports.is_shipped(config.trial) else {"user_code": imports.fingerprint(config.trial)}
        self.named = tuple(dict.fromkeys([*config.search.objectives, *config.search.constraints]))
        self.requested = tuple(sorted({*self.named}.intersection(getattr(self.module, "ON_REQUEST", ()))))
        self.class_metrics = class_metrics.among(self.named, self.module)
        rule = config.search.early_stopping.rule
        reported: tuple[str, ...] = (*getattr(self.module, "EPOCH_METRICS", ()), *self.class_metrics)
        module = self.module.__name__
        self.reported = reported
        self.early_stopping_objectives = (
            {} if rule == "none" else stopping_objectives(rule, self.search.objectives, reported, module)
        )
        size = grid_size(config.space)
        on_grid = config.search.sampler == "grid"
        self.sampled = size is None or size > (_GRID_LIMIT if on_grid else _LISTED)
        if on_grid and size is not None and self.sampled:
            raise InputError(
                f"space: the grid has {size_text(size)} cells, more than {_GRID_LIMIT}; take another sampler"
            )
        self.points = sample(config.space, _SAMPLE) if self.sampled else list(grid(config.space))
        check, check_search = self.hook("check"), self.hook("check_search")
        of_classes = class_metrics.looks_at_classes(config.search, self.module)
        for point in self.points:
            if check is not None:
                check(point, config.settings)
            if check_search is not None:
                check_search(point, self.search)
            if of_classes and (classes := self._classes(point)) is not None:
                class_metrics.check(config.search, classes, str(point.get("dataset")))
            self._check_batches(point)
            self.key(point)

    def _check_metrics(self) -> None:
        """Refuse objectives and constraints that no trial will report, where the trial's module lists its metrics."""
        known = getattr(self.module, "METRICS", None)
        if known is None:
            return
        for section in ("objectives", "constraints"):
            for name in getattr(self.search, section):
                if devices.is_on(name):  # known to be one
                    continue
                if name not in known and not class_metrics.among([name], self.module):
                    every = [*known, *(f"{beginning}CLASS" for beginning in getattr(self.module, "PER_CLASS", ()))]
                    raise InputError(f"search.{section}.{name}: {unknown('metric', name, every, self._of_classes())}")

    def _classes(self, point: Point) -> Sequence[str] | None:
        """The classes of a point's dataset, where its trial's module knows them."""
        hook = self.hook("classes")
        return None if hook is None else list(hook(point, self.config.settings, self.data_root))

    def _of_classes(self) -> list[str]:
        """The metrics of single classes that the study could name; empty where its data is not there."""
        try:
            return names_of(self._classes(sample(self.config.space, 1)[0]) or ())
        except (InputError, LookupError):
            return []

    def _check_batches(self, point: Point) -> None:
        """Refuse batches that leave nothing for some of a trial's workers."""
        workers, local = self.config.resources.workers, point_settings(self.config.settings, point)
        for name, recipe in (("train", local.train), ("finetune", local.finetune)):
            if recipe.batch_size < workers:
                raise InputError(
                    f"settings.{name}.batch_size: {recipe.batch_size} is less than resources.workers, {workers}: each "
                    "worker needs an image of every batch"
                )

    def hook(self, name: str) -> Callable[..., Any] | None:
        """A function that the trial's module offers, or None."""
        found = getattr(self.module, name, None)
        return found if callable(found) else None

    def key(self, point: Point) -> str:
        """The content key of a trial: equal when everything that determines its result is equal."""
        identity = self.hook("identity")
        more = identity(point, self.config.settings, self.data_root) if identity else None
        about = {"trial": self.config.trial, "point": point, "settings": self._settings, "more": more}
        about |= {"requested": self.requested} if self.requested else {}
        local = point_settings(self.config.settings, point)
        return content_key(about | split_files.key_part(local) | self._user_code)

    def title(self, point: Mapping[str, Any]) -> str:
        """A point in a few words: names as they are, numbers with their dimension.

        Constants are there, too: a study that is widened calls its trials what it called them before.
        """
        words = []
        for name in self.config.space:
            value = point.get(name)
            shown = f"{value:.4g}" if isinstance(value, float) else value
            words.append(str(value) if isinstance(value, str) else f"{name}={shown}")
        return uris.hidden(" ".join(words)) or self.config.study

    def params(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """What MLflow shows as the parameters of a trial."""
        size = self.config.settings.input_size
        return uris.hidden_in({**point, **({} if size is None else {"input_size": size})})

    def context(
        self, shared: Mapping[str, Any] | None = None, token: str | None = None, resources: Resources | None = None
    ) -> Context:
        """What the workers get; `resources` where they are not those of the YAML."""
        needs = resources or self.config.resources
        return Context(
            study=self.config.study,
            storage=address(self.storage),
            data_root=str(self.data_root),
            settings=self.config.settings,
            cpus=needs.cpus,
            gpus=needs.share,
            shared=shared or {},
            token=token,
            workers=needs.workers,
            sources=self._sources,
            requested=self.requested,
            named=self.named,
            constraints=self.config.search.constraints,
        )

    def cost(self, point: Point) -> dict[str, Any]:
        """What is known of a trial before it is trained, by its hook; empty where nothing is."""
        hook = self.hook("cost")
        return dict(hook(point, Session(self.context(), "", point))) if hook else {}

    def preparations(self, points: Iterable[Point]) -> list[Preparation]:
        """What the points need to be there before they start."""
        hook = self.hook("preparations")
        return list(hook(points, self.config.settings, self.data_root, self.store)) if hook else []

    def sure_preparations(self) -> list[Preparation]:
        """Those that trials need wherever in its ranges a point lies."""
        found = self.preparations(self.points)
        if not self.sampled:
            return found
        pairs = {content_key(pair): pair for pair in (ends(self.config.space, point) for point in self.points)}
        sure: set[str] = set()
        for pair in pairs.values():
            low, high = ({needed.key for needed in self.preparations([point])} for point in pair)
            sure |= low & high
        return [needed for needed in found if needed.key in sure]

    def epochs(self, point: Point) -> int | None:
        """How many epochs a trial reports; None where its module does not say."""
        hook = self.hook("epochs")
        return None if hook is None else int(hook(point, self.config.settings))

    def peak_memory_points(self) -> dict[str, Point]:
        """The points whose memory says what a trial may take, by the key of their record in the store.

        They are those of the baselines, which no pruned network exceeds, or else (also where a space is only sampled,
        and each trial may have its own baseline) the one with the most MACs. Seeds make no difference. Empty where the
        trial's module does not measure memory.
        """
        if self.hook("footprint") is None:
            return {}
        points = [dict(needed.point) for needed in self.preparations(self.points)]
        if not points or (self.sampled and len(points) > _MEASURED):
            points = [self._most_macs()]
        plain = [{name: value for name, value in p.items() if name not in _SAME_MEMORY} for p in points]
        about = {"trial": self.config.trial, "settings": self._settings}
        about |= {"code": imports.digest(self._sources)} if self._sources else {}
        return {f"footprint-{content_key({**about, 'point': point})}": point for point in plain}

    def _most_macs(self) -> Point:
        points = spread(self.points, LOOKED_AT)
        costs = []
        for point in points:
            try:
                costs.append(self.cost(point).get("macs", 0))
            except (TrialFailed, InputError):  # out of reach, and so never run
                costs.append(-1)
        return points[costs.index(max(costs))]

    def current(self, journal: Journal, kind: str = "trial") -> list[TrialRecord]:
        """The records that belong to this study: in the space, with today's settings, data and code.

        Args:
            journal: of the study.
            kind: ``trial`` for those that have ended, ``running`` for those that were interrupted.
        """
        trials = [self.completed(r) for r in journal.records.values() if r.kind == kind]
        ours = [r for r in trials if contains(self.config.space, r.point) and self.key(r.point) == r.key]
        damaged = [r.key for r in ours if self._misread(r)]
        if damaged:
            _log.warning("%s: an objective of %s is no number; it runs again", journal.path, ", ".join(damaged))
        return [r for r in ours if r.key not in damaged and not self._counts_less(r, journal)]

    def completed(self, record: TrialRecord) -> TrialRecord:
        """A record with the metrics of single classes that the study names, as far as it tells them."""
        more = class_metrics.derived_of(record.metrics, self.named)
        return replace(record, metrics={**record.metrics, **more}) if more else record

    def _counts_less(self, record: TrialRecord, journal: Journal) -> bool:
        """Whether a finished trial cannot say what the study asks of a class: an earlier release did not count it."""
        lacking = [name for name in self.class_metrics if record.metrics.get(name) is None]
        if record.status is not Status.FINISHED or not lacking:
            return False
        _log.warning("%s: %s has no %s; it runs again", journal.path, record.key, ", ".join(lacking))
        return True

    def _misread(self, record: TrialRecord) -> bool:
        """Whether a finished trial has an objective that is there and no number: no trial ends so."""
        found = record.metrics
        values = [found[name] for name in self.config.search.objectives if found.get(name) is not None]
        return record.status is Status.FINISHED and any(number(value) is None for value in values)
