"""From a baseline to a fine-tuned smaller network: at once, in several steps, or by soft pruning.

Of a method that starts with the initial network the cut gives the widths alone: at these the network is initialised
again, see `rssearch.models.initialisation`.

A trial that was interrupted resumes after its last epoch: its checkpoint says which surgery had been done by then.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from rssearch import pruning
from rssearch.config.settings import Recipe
from rssearch.cost.compute import Work
from rssearch.pruning import ChannelGraph, Elasticity
from rssearch.pruning.channels import Kept
from rssearch.pruning.surgery import kept_by
from rssearch.train.loop import OnEpoch, recalibrate
from rssearch.trials import baselines, searches, slimmables, spending
from rssearch.trials.network_trial import History, reporter
from rssearch.trials.point import CHANNEL_NAS, NO_METHOD, SLIMMABLE
from rssearch.trials.pruning_trial import PruningTrial

Spec = dict[str, Any]
OnShape = Callable[[nn.Module], object]


class FineTuned(NamedTuple):
    """A pruned and fine-tuned network.

    Attributes:
        model: the network.
        spec: relative to the baseline.
        history: the records of all epochs.
        work: all of it; None where an earlier release began it, and did not write down what it took.
    """

    model: nn.Module
    spec: Spec
    history: History
    work: list[Work] | None


def prune_and_finetune(trial: PruningTrial, on_shape: OnShape = lambda _: None) -> FineTuned:
    """Prune a trial's baseline as its point says, and fine-tune it.

    Args:
        trial: keeps the checkpoints and reports the epochs, counted over all steps.
        on_shape: called once, as soon as a network has its final shape: before the last step's fine-tuning.
    """
    if trial.point.is_soft:
        tuned = _softly(trial)
        on_shape(tuned.model)
        return tuned
    return _in_steps(trial, on_shape)


def _in_steps(trial: PruningTrial, on_shape: OnShape) -> FineTuned:
    """Surgery and fine-tuning in turns; most studies have one step."""
    dense, session = trial.dense, trial.session
    targets = pruning.check_steps(trial.settings.pruning.steps, trial.point.macs_ratio)
    recipes = _divided(trial.point.finetune_recipe, len(targets))
    state = _State(0, pruning.make_spec(trial.graph, {}), [], None, [])
    model = dense
    if (kept := session.load_checkpoint()) is not None:
        state = _State.unpack(kept)
        model = pruning.apply_spec(copy.deepcopy(dense), state.spec)
    elasticity: Mapping[str, Tensor] = {}
    for step in range(state.step, len(targets)):
        last = step == len(targets) - 1
        if state.checkpoint is None:
            macs = None if trial.point.macs_ratio is None else targets[step] * trial.graph.macs()
            model, surgery = _cut(trial, model, macs, elasticity, first=step == 0)
            work = state.with_work(_looked(trial, state.spec, first=step == 0))
            state = _State(step, pruning.compose(state.spec, surgery), state.history, None, work)
        if last:
            on_shape(model)
        watch, macs_now = None if last else Elasticity(model), _macs(trial, state.spec)
        history = trial.train(
            model,
            recipes[step],
            teacher=dense if recipes[step].distill > 0 else None,
            resume=state.checkpoint,
            on_epoch=state.counting(_reporter(trial, state, macs_now, recipes[step])),
            elasticity=watch,
        )
        elasticity = {} if watch is None else watch.values()
        work = state.with_work(spending.training(trial, macs_now, recipes[step], taught=True))
        state = _State(step, state.spec, state.continued(history), None, work)
    return FineTuned(model, state.spec, state.history, state.work)


def _looked(trial: PruningTrial, spec: Spec, *, first: bool) -> list[Work]:
    """The work of choosing which channels of a network go, but for what trials share."""
    if trial.point.method_name == SLIMMABLE:
        return spending.derivation(trial)
    if first:
        return []
    scored = spending.scoring(trial, _macs(trial, spec))
    if trial.point.needs_sensitivities:
        scored += spending.sensitivities(trial, kept_by(trial.graph, spec))
    return scored


def _macs(trial: PruningTrial, spec: Spec) -> int:
    return trial.graph.macs(kept_by(trial.graph, spec))


def _reporter(trial: PruningTrial, state: _State, macs: int, recipe: Recipe) -> OnEpoch:
    """What keeps and reports an epoch of a step, with what the trial took until then."""

    def spent(epoch: int) -> dict[str, Any]:
        epochs = epoch - len(state.history)
        return spending.reported(state.with_work(_of(trial, macs, recipe, epochs)), trial)

    return reporter(trial.session, spent)


def _of(trial: PruningTrial, macs: int, recipe: Recipe, epochs: int) -> list[Work]:
    return spending.training(trial, macs, recipe, taught=True, epochs=epochs)


class _State(NamedTuple):
    """What the steps until now have done: number of the step, spec, records, work; and the checkpoint of its training.

    The work is None where an earlier release began the trial.
    """

    step: int
    spec: Spec
    history: History
    checkpoint: bytes | None
    work: list[Work] | None

    def with_work(self, more: list[Work]) -> list[Work] | None:
        """The work until now and some more."""
        return None if self.work is None else self.work + more

    def continued(self, records: History) -> History:
        """The records of the steps before and of this one, counted over all steps."""
        return self.history + [record | {"epoch": record["epoch"] + len(self.history)} for record in records]

    def counting(self, on_epoch: OnEpoch) -> OnEpoch:
        """Count the epochs over all steps, and put before each checkpoint what the steps until then have done."""

        def counted(record: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
            (record,) = self.continued([record])[len(self.history) :]
            on_epoch(record, lambda: self.pack(checkpoint()))

        return counted

    def pack(self, checkpoint: bytes) -> bytes:
        """A line of JSON before the checkpoint of the step's training."""
        header = {"step": self.step, "spec": self.spec, "history": self.history, "work": self.work}
        return json.dumps(header).encode() + b"\n" + checkpoint

    @classmethod
    def unpack(cls, content: bytes) -> _State:
        """The inverse of `pack`."""
        header, _, checkpoint = content.partition(b"\n")
        state = json.loads(header)
        before: list[tuple[int, int, int]] | None = state.get("work", None if state["step"] else [])
        work = None if before is None else [Work(*each) for each in before]
        return cls(state["step"], state["spec"], state["history"], checkpoint, work)


def _cut(
    trial: PruningTrial, model: nn.Module, macs: float | None, elasticity: Mapping[str, Tensor], *, first: bool
) -> tuple[nn.Module, Spec]:
    """The surgery of one step: the first by the baseline's scores, later ones by scores of the network as it is now.

    `macs` are to be left, where asked.
    """
    point = trial.point
    if point.method_name == CHANNEL_NAS:
        derived = searches.derived(trial)
        return derived.model, derived.spec
    if point.method_name == SLIMMABLE:
        return slimmables.derived(trial)
    if point.method_name == NO_METHOD:
        return pruning.cut(model, trial.graph, {})
    if point.is_untrained:
        whole, untrained = baselines.score(trial, model, {})
        _, spec = pruning.cut(model, whole, point.allocate(whole, untrained, point.macs_ratio))
        return trial.narrow_model(spec), spec
    if first:
        graph, ranks, curves = trial.graph, trial.scores, trial.sensitivities
    else:
        graph, ranks = baselines.score(trial, model, elasticity)
        measured = point.needs_sensitivities
        curves = baselines.measure_sensitivities(trial, model, graph, ranks) if measured else None
    ratio = None if macs is None else min(1.0, macs / graph.macs())
    return pruning.cut(model, graph, point.allocate(graph, ranks, ratio, whole=trial.graph, sensitivities=curves))


def _softly(trial: PruningTrial) -> FineTuned:
    """Fine-tune at full size; the filters that would go are zeroed before and after each epoch. They go at the end."""
    point, dense, recipe = trial.point, trial.dense, trial.point.finetune_recipe
    model, macs = copy.deepcopy(dense), trial.graph.macs()

    def work(epochs: int | None = None) -> list[Work]:
        """The channels are chosen before the first epoch, after each, and once more at the end."""
        times = recipe.epochs + 2 if epochs is None else epochs + 1
        training = spending.training(trial, macs, recipe, taught=True, epochs=epochs)
        return [*training, *(spending.scoring(trial, macs) * times)]

    def kept() -> tuple[ChannelGraph, Kept]:
        graph, ranks = baselines.score(trial, model, {})
        return graph, point.allocate(graph, ranks, point.macs_ratio)

    def zero(_: int) -> None:
        pruning.zero_filters(model, *kept())

    checkpoint = trial.session.load_checkpoint()
    if checkpoint is None:
        zero(-1)
    history = trial.train(
        model,
        recipe,
        teacher=dense if recipe.distill > 0 else None,
        resume=checkpoint,
        on_epoch=reporter(trial.session, lambda epoch: spending.reported(work(epoch), trial)),
        after_epoch=zero,
    )
    smaller, spec = pruning.cut(model, *kept())
    recalibrate(
        smaller,
        trial.images.split("train"),
        recipe.recalibrate_batches,
        batch_size=recipe.batch_size,
        device=trial.device,
        seed=point.seed,
        precision=recipe.precision,
    )
    recalibrated = Work(_macs(trial, spec), spending.recalibrated(trial, recipe))
    return FineTuned(smaller, spec, history, [*work(), recalibrated])


def _divided(recipe: Recipe, steps: int) -> list[Recipe]:
    """The recipe of each step: equal shares of the epochs, what is over in the last; a whole schedule each."""
    share = recipe.epochs // steps
    epochs = [share] * (steps - 1) + [recipe.epochs - share * (steps - 1)]
    return [recipe.model_copy(update={"epochs": number}) for number in epochs]
