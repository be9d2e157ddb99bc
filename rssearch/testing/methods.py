"""What a pruning method must keep to, so that its trials can be compared, repeated and resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rssearch import models, pruning
from rssearch.cost import counting
from rssearch.errors import InputError
from rssearch.pruning import Method
from rssearch.pruning.allocate import ALLOCATIONS
from rssearch.testing.clauses import check, require
from rssearch.testing.networks import NetworkPart, distance

__all__ = ["METHOD_CLAUSES", "MethodPart", "check_method"]

_RATIO = 0.5  # of the MACs that shall be left
_MISSED = 0.01  # as `rssearch.pruning.allocate` promises


class MethodPart:
    """A method under test on one network.

    Args:
        name: of the registry, or ``module:name``.
        network: what it prunes.
        options: of its criterion.
    """

    def __init__(self, name: str, network: NetworkPart, options: Mapping[str, Any] | None = None) -> None:
        self.name, self.network = name, network
        self.options: dict[str, Any] = dict(options or {})

    @cached_property
    def method(self) -> Method:
        """What the name means."""
        return pruning.get_method(self.name)

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Two batches of random images and labels, the same ones each time."""
        part, generator = self.network, torch.Generator().manual_seed(0)
        maps = part.shape[1:] if models.task_of(part.name) == "segmentation" else ()
        return [
            (
                torch.randn(4, *part.shape, generator=generator),
                torch.randint(0, part.classes, (4, *maps), generator=generator),
            )
            for _ in range(2)
        ]

    def score(self) -> dict[str, Tensor]:
        """The scores of the network's channels, computed now."""
        part = self.network
        return pruning.score(part.model, part.graph, self.name, data=iter(self.batches()), seed=0, **self.options)

    @cached_property
    def scores(self) -> dict[str, Tensor]:
        """The same, computed once."""
        return self.score()


def check_method(
    name: str,
    *,
    model: str = "resnet20",
    shape: tuple[int, int, int] = (3, 32, 32),
    options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
) -> None:
    """Hold a pruning method against its contract, on one network.

    Args:
        name: of the registry, or ``module:name`` for a user-defined one.
        model: the network that it prunes.
        shape: (C, H, W) of its images.
        options: of the method.
        model_options: of the network.

    Raises:
        ContractError: which clauses do not hold, and why.
    """
    part = MethodPart(name, NetworkPart(model, shape, options=model_options), options)
    check(f"{name} on {model}", part, METHOD_CLAUSES)


# The clauses


def it_says_what_it_is(part: MethodPart) -> None:
    """It has a name, a summary, and an allocation that there is."""
    method = part.method
    require(method.name == part.name, f"its name is {method.name!r}")
    require(bool(method.summary), "it has no summary: the first line of its docstring")
    require(method.allocation in ALLOCATIONS, f"there is no allocation {method.allocation!r}")


def scores_have_their_shape(part: MethodPart) -> None:
    """Scores are finite, one for each channel of groups that there are; `joint` methods have one per criterion."""
    require(bool(part.scores), "it scores no group at all")
    for name, scores in part.scores.items():
        require(name in part.network.graph.groups, f"there is no group {name!r}")
        width = part.network.graph.groups[name].width
        require(scores.shape[-1] == width, f"{name}: {tuple(scores.shape)} for {width} channels")
        require(scores.dim() == (2 if part.method.allocation == "joint" else 1), f"{name}: {tuple(scores.shape)}")
        require(scores.is_floating_point(), f"{name}: {scores.dtype} is no floating-point type")
        require(bool(scores.isfinite().all()), f"{name}: a score is not finite")
        require(scores.device.type == "cpu", f"{name}: on {scores.device}, not on the CPU")


def scores_repeat_themselves(part: MethodPart) -> None:
    """The same network, images and seed give the same scores, whatever ran before."""
    first = part.scores
    torch.rand(1)  # another state of the global random numbers
    second = part.score()
    require(first.keys() == second.keys(), "a second call scores other groups")
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    require(not differing, f"a second call scores {', '.join(differing[:3])} differently")


def the_network_stays(part: MethodPart) -> None:
    """Scoring leaves the network as it was: tensors, mode, gradients."""
    model = part.network.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    part.score()
    after = model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    require(not changed, f"it changes {', '.join(changed[:3])}")
    require([module.training for module in model.modules()] == modes, "it leaves modules in another mode")
    require(all(parameter.grad is None for parameter in model.parameters()), "it leaves gradients behind")


def the_budget_is_met(part: MethodPart) -> None:
    """Half of the MACs are left within 1 %, and counted so on the pruned network."""
    graph = part.network.graph
    kept = pruning.allocate(graph, part.scores, allocation=part.method.allocation, macs_ratio=_RATIO)
    pruned, _ = pruning.cut(part.network.model, graph, kept)
    found = counting.profile(pruned, part.network.shape)
    require(found.macs == graph.macs(kept), f"{graph.macs(kept)} MACs are promised, {found.macs} counted")
    ratio = found.macs / graph.macs()
    require(abs(ratio / _RATIO - 1) <= _MISSED, f"{ratio:.3f} of the MACs are left, not {_RATIO}")


def pruned_is_masked(part: MethodPart) -> None:
    """The pruned network gives what the whole one gives with those channels set to zero."""
    network, images = part.network, part.network.images(2)
    pruned = pruning.prune(
        network.model, images, part.name, macs_ratio=_RATIO, data=part.batches(), seed=0, **part.options
    )
    with torch.no_grad():
        off = distance(pruning.masked(network.model, network.graph, pruned.kept)(images), pruned.model(images))
    require(off < network.tolerance, f"they differ by {off:.2g} of the largest logit")


def unknown_options_are_refused(part: MethodPart) -> None:
    """An option that it does not have is refused with an InputError."""
    try:
        pruning.check_options(part.name, {"no_such_option": "1"})
    except InputError:
        return
    raise AssertionError("it takes an option called no_such_option")


METHOD_CLAUSES: tuple[Callable[[MethodPart], None], ...] = (
    it_says_what_it_is,
    scores_have_their_shape,
    scores_repeat_themselves,
    the_network_stays,
    the_budget_is_met,
    pruned_is_masked,
    unknown_options_are_refused,
)
