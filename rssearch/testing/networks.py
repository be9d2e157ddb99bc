"""What a network must keep to, so that it can be trained, pruned, counted, stored and rebuilt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rssearch import models, pruning
from rssearch.cost import counting
from rssearch.errors import InputError
from rssearch.pruning import ChannelGraph
from rssearch.pruning.channels import Kept
from rssearch.testing.clauses import check, require

__all__ = ["NETWORK_CLAUSES", "NetworkPart", "check_network"]


class NetworkPart:
    """A network under test.

    Args:
        name: of the registry, ``torchvision:NAME``, or ``module:name``.
        shape: (C, H, W) of its images.
        classes: how many there are.
        options: of the network.
        tolerance: for outputs that must be equal but for rounding, relative to the largest value.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 5,
        options: Mapping[str, Any] | None = None,
        tolerance: float = 1e-5,
    ) -> None:
        self.name, self.shape, self.classes, self.tolerance = name, shape, classes, tolerance
        self.options = dict(options or {})

    def build(self, seed: int = 0) -> nn.Module:
        """A fresh network with seeded parameters."""
        channels, size, _ = self.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return models.create(self.name, self.classes, in_channels=channels, input_size=size, **self.options)

    def images(self, count: int) -> Tensor:
        """A batch of random images [B, C, H, W]."""
        return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(count))

    @cached_property
    def model(self) -> nn.Module:
        """In evaluation mode, with another scale and shift for every normalised channel; not to be changed."""
        return randomise(self.build()).eval()

    @cached_property
    def graph(self) -> ChannelGraph:
        """Its coupled channels."""
        return pruning.trace(self.model, self.images(1))

    @cached_property
    def kept(self) -> Kept:
        """A random choice of more than half of the channels of every group."""
        generator = torch.Generator().manual_seed(1)
        return {
            name: tuple(sorted(torch.randperm(group.width, generator=generator)[: -(-group.width * 3 // 5)].tolist()))
            for name, group in self.graph.groups.items()
        }

    @cached_property
    def pruned(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network with these channels, and its spec."""
        return pruning.cut(self.model, self.graph, self.kept)


def check_network(
    name: str,
    *,
    shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 5,
    options: Mapping[str, Any] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Hold a network against its contract.

    Args:
        name: of the registry, ``torchvision:NAME``, or ``module:name`` for a user-defined one.
        shape: (C, H, W) of its images.
        classes: how many there are.
        options: of the network.
        tolerance: for outputs that must be equal but for rounding, relative to the largest value.

    Raises:
        ContractError: which clauses do not hold, and why.
    """
    check(name, NetworkPart(name, shape, classes, options, tolerance), NETWORK_CLAUSES)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give normalisation layers scales, shifts and statistics that make every channel different."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.affine and module.running_mean is not None:
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                assert module.running_var is not None
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference relative to the largest value."""
    return float(((one - other).abs().max() / one.abs().max().clamp_min(1e-12)).detach())


# The clauses


def creation_follows_the_seed(part: NetworkPart) -> None:
    """The same seed gives the same parameters."""
    first, second = part.build().state_dict(), part.build().state_dict()
    require(first.keys() == second.keys(), "two networks of one seed have other tensors")
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    require(not differing, f"two networks of one seed differ in {', '.join(differing[:3])}")


def unknown_options_are_refused(part: NetworkPart) -> None:
    """An option that it does not have is refused with an InputError."""
    try:
        models.check_options(part.name, {"no_such_option": 1})
    except InputError:
        return
    raise AssertionError("it takes an option called no_such_option")


def logits_have_their_shape(part: NetworkPart) -> None:
    """A batch of any size gives one row of finite logits for each image, or one map for each."""
    task = models.task_of(part.name)
    for count in (1, 2, 3):
        with torch.no_grad():
            logits = part.model(part.images(count))
        require(isinstance(logits, Tensor), f"it gives {type(logits).__name__}: name the entry, Entry(..., logits=...)")
        expected = (count, part.classes) if task == "classification" else (count, part.classes, *part.shape[1:])
        require(tuple(logits.shape) == expected, f"{count} images give {tuple(logits.shape)}, not {expected}")
        require(bool(logits.isfinite().all()), "its logits are not finite")


def images_do_not_depend_on_each_other(part: NetworkPart) -> None:
    """In evaluation mode an image gives the same alone and in a batch, and a second time."""
    images = part.images(3)
    with torch.no_grad():
        together, again = part.model(images), part.model(images)
        alone = torch.cat([part.model(image[None]) for image in images])
    require(torch.equal(together, again), "a second pass gives other logits")
    require(distance(together, alone) < part.tolerance, "an image gives other logits alone than in a batch")


def every_parameter_learns(part: NetworkPart) -> None:
    """A training step gives every parameter a finite gradient."""
    model = part.build().train()
    logits = model(part.images(4))
    torch.autograd.backward(logits.square().mean())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            require(parameter.grad is not None, f"{name} has no gradient")
            require(parameter.grad is not None and bool(parameter.grad.isfinite().all()), f"{name}: not finite")


def weights_can_be_stored(part: NetworkPart) -> None:
    """Its weights, stored as safetensors and loaded into a fresh network, give the same logits."""
    fresh = part.build(seed=1)
    weights = {name: tensor.contiguous() for name, tensor in part.model.state_dict().items()}
    fresh.load_state_dict(load(save(weights)))
    images = part.images(2)
    with torch.no_grad():
        require(torch.equal(fresh.eval()(images), part.model(images)), "they give other logits")


def channels_can_be_pruned(part: NetworkPart) -> None:
    """It has channels that can be pruned."""
    require(bool(part.graph.groups), f"none: {part.graph.why_fixed()}")


def costs_are_those_of_a_count(part: NetworkPart) -> None:
    """MACs and parameters of the graph are those that a count of the network gives."""
    found, graph = counting.profile(part.model, part.shape), part.graph
    require((graph.macs(), graph.params()) == (found.macs, found.params), _told(graph, None, found))


def pruned_costs_are_as_promised(part: NetworkPart) -> None:
    """MACs and parameters of a pruned network are those that its kept channels promise."""
    found, graph = counting.profile(part.pruned[0], part.shape), part.graph
    promised = graph.macs(part.kept), graph.params(part.kept), graph.conv_linear_macs(part.kept)
    require(promised == (found.macs, found.params, found.conv_linear_macs), _told(graph, part.kept, found))


def pruned_is_masked(part: NetworkPart) -> None:
    """A pruned network gives what the whole one gives with those channels set to zero."""
    images = part.images(2)
    with torch.no_grad():
        off = distance(pruning.masked(part.model, part.graph, part.kept)(images), part.pruned[0](images))
    require(off < part.tolerance, f"they differ by {off:.2g} of the largest logit")


def spec_rebuilds_it(part: NetworkPart) -> None:
    """The spec, as JSON, makes the same structure from a fresh network; with the weights it gives the same logits."""
    pruned, spec = part.pruned
    rebuilt = pruning.apply_spec(part.build(seed=1), json.loads(json.dumps(spec)))
    rebuilt.load_state_dict(load(save({name: tensor.contiguous() for name, tensor in pruned.state_dict().items()})))
    images = part.images(2)
    with torch.no_grad():
        require(torch.equal(rebuilt.eval()(images), pruned(images)), "it gives other logits")


def original_stays(part: NetworkPart) -> None:
    """Surgery leaves the original as it was."""
    before = {name: tensor.clone() for name, tensor in part.model.state_dict().items()}
    pruning.cut(part.model, part.graph, part.kept)
    after = part.model.state_dict()
    require(all(torch.equal(before[name], after[name]) for name in before), "its tensors have changed")


def _told(graph: ChannelGraph, kept: Kept | None, found: counting.Cost) -> str:
    return (
        f"{graph.macs(kept)} MACs and {graph.params(kept)} parameters are promised; "
        f"{found.macs} and {found.params} are counted"
    )


NETWORK_CLAUSES: tuple[Callable[[NetworkPart], None], ...] = (
    creation_follows_the_seed,
    unknown_options_are_refused,
    logits_have_their_shape,
    images_do_not_depend_on_each_other,
    every_parameter_learns,
    weights_can_be_stored,
    channels_can_be_pruned,
    costs_are_those_of_a_count,
    pruned_costs_are_as_promised,
    pruned_is_masked,
    spec_rebuilds_it,
    original_stays,
)
