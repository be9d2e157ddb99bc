"""A trial on its worker: the images, the network with its seeded weights, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rssearch import models, pruning
from rssearch.config.settings import Recipe
from rssearch.data import AnySet
from rssearch.models import initialisation
from rssearch.models.weights import parse, read
from rssearch.nas import halves
from rssearch.pruning import ChannelGraph, Elasticity
from rssearch.scores import PER_CLASS
from rssearch.storage import scratch
from rssearch.train.context import TrainContext
from rssearch.train.data_parallel import ALONE
from rssearch.train.evaluation import measured
from rssearch.train.loop import Objective, OnEpoch, fit
from rssearch.trial import turns
from rssearch.trial.interface import WEIGHTS
from rssearch.trial.session import Session
from rssearch.trials import architecture, images, normalisation, tasks
from rssearch.trials.architecture import Architecture
from rssearch.trials.keys import Keys
from rssearch.trials.point import PruningPoint

History = list[dict[str, float]]


class NetworkTrial:
    """A point on the worker that trains its network; the images are mapped or loaded once.

    Args:
        point: resolved.
        session: of the trial.
    """

    def __init__(self, point: PruningPoint, session: Session) -> None:
        self.point, self.session, self.settings = point, session, point.settings
        self.device = session.device
        self.keys = Keys(point, session.data_root)
        self.per_class = tasks.per_class(session.context.named)

    @cached_property
    def images(self) -> AnySet:
        """Its image set, normalised as the point says."""
        return normalisation.applied(self.plain_images, normalisation.of_point(self.point))

    @cached_property
    def plain_images(self) -> AnySet:
        """Its image set: mapped from the object store, or loaded where the study did not share it."""
        found: AnySet | None = self.session.shared(self.keys.data)
        if found is None:
            workers = max(1, int(self.session.context.cpus))
            found = images.load(self.point, self.session.data_root, workers=workers)
        return found

    @cached_property
    def architecture(self) -> Architecture:
        """Its network before pruning."""
        return Architecture(self.point.model, self.point.options_text, self.images.input_shape, self.images.num_classes)

    def build_model(self) -> nn.Module:
        """Its network with seeded parameters, which are to be replaced by trained ones."""
        return self._create(self.point.shape_options)

    def narrow_model(self, spec: dict[str, Any]) -> nn.Module:
        """Its network with the widths of a spec, as if it had been designed and initialised so."""
        with initialisation.recorded() as calls:
            model = self.build_model()
        names = initialisation.names_of(model)
        narrow = pruning.apply_spec(model, spec)
        initialisation.initialise(narrow, calls, names, self.point.seed)
        return narrow

    def initial_model(self) -> nn.Module:
        """Its network as its training begins: with seeded parameters, or with the weights that the study names."""
        point = self.point
        if point.weights_file is None:
            return self._create(point.options)
        content = self._weights_content()
        if models.takes_weights(point.model):
            with scratch.folder("rssearch-weights-") as folder:
                path = folder / Path(point.weights_file).name
                path.write_bytes(content)
                return self._create({**point.options, "weights": str(path)})
        model = self.build_model()
        channels, size, _ = self.images.input_shape
        network = models.Network(point.model, self.images.num_classes, channels, point.shape_options)
        models.load_weights(model, parse(point.weights_file, content), network, size)
        return model

    def _create(self, options: Mapping[str, Any]) -> nn.Module:
        channels, size, _ = self.images.input_shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.point.seed)
            return models.create(
                self.point.model, self.images.num_classes, in_channels=channels, input_size=size, **options
            )

    def _weights_content(self) -> bytes:
        """The file of weights as the study began with it, from the store or, where no study put it there, its place."""
        point = self.point
        assert point.weights_file is not None
        assert point.weights_sha256 is not None
        files = self.session.store.get(WEIGHTS, point.weights_sha256)
        return read(point.weights_file).content if files is None else files[WEIGHTS]

    @property
    def graph(self) -> ChannelGraph:
        """The coupled channels of its network before pruning."""
        return architecture.graph(self.architecture)

    def trace(self, model: nn.Module) -> ChannelGraph:
        """The coupled channels of a network, on its device."""
        device = next(model.parameters()).device
        return pruning.trace(model, torch.zeros(1, *self.images.input_shape, device=device))

    def train(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        teacher: nn.Module | None = None,
        resume: bytes | None = None,
        on_epoch: OnEpoch | None = None,
        after_epoch: Callable[[int], None] | None = None,
        elasticity: Elasticity | None = None,
        objective: Objective | None = None,
        held_out: float = 0.0,
    ) -> History:
        """Train a network in place, as `rssearch.train.fit` does, together with the other workers of the trial.

        `held_out` is the share of the training images that are left out, see `rssearch.nas.halves`.
        """
        worker_group = self.session.context.worker_group or ALONE
        worker_group.call(
            _train_along, self.point.values, model=model, recipe=recipe, teacher=teacher, resume=resume,
            objective=objective, held_out=held_out,
        )  # fmt: skip
        train = self.images.split("train")
        if held_out:
            train, _ = halves(train, held_out, self.point.seed)
        context = TrainContext(self.device, self.point.seed, self.session.micro_batches, worker_group, self.per_class)
        with in_turns(self.session, on_epoch) as then:
            return fit(
                model,
                train,
                self.images.split("val"),
                recipe,
                augment=self.settings.augment,
                context=context,
                teacher=teacher,
                resume=resume,
                on_epoch=then,
                after_epoch=after_epoch,
                elasticity=elasticity,
                objective=objective,
            )

    def validate(self, model: nn.Module, batch_size: int) -> dict[str, Any]:
        """What a network reaches on the validation split, named as metrics are, with what is counted of each class."""
        scores = measured(model, self.images.split("val"), batch_size=batch_size, device=self.device)
        found = {**scores.metrics(self.per_class), PER_CLASS: scores.per_class.to_json()}
        return {f"val_{name}": value for name, value in found.items()}

    def rehearse(self, recipes: Sequence[Recipe]) -> None:
        """Take a few steps by each recipe with the whole network, and keep nothing."""
        split = self.images.split("train")
        for recipe in recipes:
            if recipe.epochs == 0:
                continue
            few = split.part(np.arange(min(len(split), 3 * recipe.batch_size)))
            model, teacher = self.build_model(), self.build_model()
            fit(
                model,
                few,
                few,
                recipe.model_copy(update={"epochs": 1, "recalibrate_batches": 0}),
                augment=self.settings.augment,
                context=TrainContext(self.device),
                teacher=teacher if recipe.distill > 0 else None,
                elasticity=Elasticity(model),
            )

    def shared_session(self, key: str, *, reported: bool = False) -> Session:
        """A session for what trials share: whichever of them makes it, another can resume from its checkpoint.

        Its epochs are reported where this session is that artifact's own preparation, or where they are the trial's
        own ones (`reported`); not as those of a trial that had to make it on the way.
        """
        own = self.session
        return Session(own.context, key, {}, own.report if reported or own.key == key else None)


def _train_along(config: dict[str, Any], session: Session, *, model: nn.Module, recipe: Recipe, **more: Any) -> None:
    """What the other workers of a trial do when the first one trains."""
    NetworkTrial(PruningPoint(config, session.context.settings), session).train(model, recipe, **more)


@contextmanager
def in_turns(session: Session, on_epoch: OnEpoch | None) -> Iterator[OnEpoch | None]:
    """Have a share of the machine where the study's trials measure, and yield it after each epoch.

    Of the workers of one trial the first one's share alone counts: the others wait for it in their first step.
    """
    if not session.context.requested or not (session.context.worker_group or ALONE).is_main:
        yield on_epoch
        return
    with turns.training() as yield_turn:

        def then(record: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
            if on_epoch is not None:
                on_epoch(record, checkpoint)
            yield_turn()

        yield then


def reporter(session: Session, spent: Callable[[int], dict[str, Any]] = lambda _: {}) -> OnEpoch:
    """What is called after each epoch: keeps the checkpoint, then tells the study, with what was `spent` until then."""

    def on_epoch(record: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
        session.save_checkpoint(checkpoint())
        session.report(record | spent(int(record["epoch"])))

    return on_epoch
