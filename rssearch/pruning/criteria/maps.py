"""The feature maps of every group: where they are, and scores that are read from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rssearch.cost.counting import duplicate, forward_hooks, output_tensors
from rssearch.errors import InputError
from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches, on_device

_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Mish,
)
# Autograd nodes between an activation and the layer that reads its maps.
_REDUCTIONS = ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool", "Mean", "View", "Reshape", "Squeeze")

Place = tuple[str, int, str]  # a module, the number of its call, and its "input" or "output"
Readout = dict[str, tuple[int, Tensor]]  # group -> the axis of the channels, and which of them it is [width, k]
PerImage = Callable[[Tensor], Tensor]  # maps [N, C, H, W] -> scores [N, C]


def score_maps(
    model: nn.Module, graph: ChannelGraph, data: Batches | None, method: str, per_image: PerImage
) -> dict[str, Tensor]:
    """Scores of feature maps, averaged over the images of a batch, then over batches, then over the maps of a group.

    A group's maps are those that its consuming layers read, taken behind the activation and before any pooling; after
    the addition where there is a residual. Maps that two branches read (behind the max-pooling of a ResNet's stem) are
    taken where the branches part. Where a layer reads anything else (a bare concatenation, a gated map), its own input
    is taken. The network runs in eval mode, once over the data, as a copy that reads the weights of `model`, which
    stays as it is.

    Args:
        model: the network.
        graph: its channel graph.
        data: batches (images, labels).
        method: the name of the method, for errors.
        per_image: scores the maps of the channels of one group, [N, C, H, W] on the device of the model, for each image
            by itself, [N, C]; not a number where they are not finite. What a linear layer reads are maps of 1 x 1,
            unless it flattens larger ones.

    Returns:
        Group -> scores [width], CPU float32.

    Raises:
        InputError: no data, maps that are not finite, or a group whose maps no convolution or linear layer reads.
    """
    twin = duplicate(model, share=True).eval().requires_grad_(True)
    places: dict[Place, Readout] | None = None
    totals: dict[str, dict[Place, Tensor]] = defaultdict(dict)
    batches = 0
    for x, _ in on_device(data, twin, method):
        places = places or find_maps(twin, graph, x[:1], method)
        for group, scores in _run(twin, x, places, method, per_image).items():
            for place, score in scores.items():
                totals[group][place] = totals[group].get(place, 0) + score
        batches += 1
    return {group: torch.stack(list(totals[group].values())).mean(0) / batches for group in graph.groups}


def _run(
    model: nn.Module, x: Tensor, places: Mapping[Place, Readout], method: str, per_image: PerImage
) -> dict[str, dict[Place, Tensor]]:
    """The scores of one batch: group -> place -> [width], the mean over its images."""
    names = {module: name for name, module in model.named_modules()}
    watched = {name for name, _, _ in places}
    calls: Counter[str] = Counter()
    scores: dict[str, dict[Place, Tensor]] = defaultdict(dict)

    def read(place: Place, maps: Tensor) -> None:
        for group, (axis, channels) in places.get(place, {}).items():
            own = _select(maps.movedim(axis, 1), channels.ravel())
            own = own.reshape(*own.shape[:2], -1, own.shape[-1] if own.dim() > 3 else 1)
            found = per_image(own).mean(0)
            if not bool(found.isfinite().all()):
                raise InputError(f"method {method!r}: the maps of group {group!r} are not finite")
            scores[group][place] = found.reshape(channels.shape).mean(1).float().cpu()

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        read((names[module], calls[names[module]], "input"), inputs[0])

    def after(module: nn.Module, _: tuple[Any, ...], output: Tensor) -> None:
        read((names[module], calls[names[module]], "output"), output)
        calls[names[module]] += 1

    handles = [module.register_forward_pre_hook(before) for module in model.modules() if names[module] in watched]
    try:
        with forward_hooks(model, lambda module: names[module] in watched, after), torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return scores


def _select(maps: Tensor, channels: Tensor) -> Tensor:
    """Some channels (axis 1) of maps; the maps themselves where it is all of them in their order."""
    if torch.equal(channels, torch.arange(maps.shape[1])):
        return maps
    return maps[:, channels.to(maps.device)]


def of_finite(per_image: PerImage) -> PerImage:
    """Scores of a function that takes finite maps alone."""

    def scores(maps: Tensor) -> Tensor:
        if bool(maps.sum().isfinite() or maps.isfinite().all()):  # the sum alone may overflow
            return per_image(maps)
        return maps.new_full(maps.shape[:2], torch.nan)

    return scores


def find_maps(model: nn.Module, graph: ChannelGraph, image: Tensor, method: str) -> dict[Place, Readout]:
    """Where the maps of each group can be read.

    The autograd graph of one image says which activation feeds which layer. `model` has to be in eval mode, with
    gradients; `method` is only named in errors.

    Raises:
        InputError: a group whose maps no convolution or linear layer reads.
    """
    consumers = {member.layer for group in graph.groups.values() for member in group.consumers}
    names = {module: name for name, module in model.named_modules()}
    calls: Counter[str] = Counter()
    activations: dict[Any, tuple[Place, torch.Size]] = {}  # autograd node -> place and shape
    readers: list[
        tuple[Place, Any, int, torch.Size]
    ] = []  # of consumers: place; node, channel axis, shape of the input

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        name, axis = names[module], inputs[0].dim() - 1 if isinstance(module, nn.Linear) else 1
        readers.append(((name, calls[name], "input"), inputs[0].grad_fn, axis, inputs[0].shape))

    def after(module: nn.Module, _: tuple[Any, ...], output: Tensor) -> None:
        name = names[module]
        if isinstance(module, _ACTIVATIONS):
            activations[output.grad_fn] = ((name, calls[name], "output"), output.shape)
        calls[name] += 1

    handles = [model.get_submodule(name).register_forward_pre_hook(before) for name in consumers]
    watched = {name for name, module in model.named_modules() if name in consumers or isinstance(module, _ACTIVATIONS)}
    try:
        with forward_hooks(model, lambda module: names[module] in watched, after), torch.enable_grad():
            uses = _uses(output_tensors(model(image)))
    finally:
        for handle in handles:
            handle.remove()
    members = {(member.layer, name): member for name, g in graph.groups.items() for member in g.consumers}
    places: dict[Place, Readout] = defaultdict(dict)
    seen: dict[Any, Place] = {}
    for own, node, axis, shape in readers:
        source = node
        while axis == 1 and source not in activations and source is not None and uses[source] == 1 and _reduces(source):
            source = source.next_functions[0][0]
        indices = {name: torch.from_numpy(m.index) for (layer, name), m in members.items() if layer == own[0]}
        place, whole = activations.get(source, (own, shape))
        flat = shape[axis] // whole[axis]  # columns of a linear layer for one map
        fits = flat * whole[axis] == shape[axis] and not any(index.shape[1] % flat for index in indices.values())
        if place == own or not fits:  # it does not where the activation has its channels in another axis
            place, flat = seen.setdefault(node, own), 1
        for name, index in indices.items():
            channels = index.reshape(len(index), -1, flat)[:, :, 0] // flat
            places[place].setdefault(name, (axis, channels))
    found = {group for readout in places.values() for group in readout}
    for name in graph.groups:
        if name not in found:
            raise InputError(f"method {method!r}: no convolution or linear layer reads the maps of group {name!r}")
    return dict(places)


def _reduces(node: Any) -> bool:
    return bool(node.name().startswith(_REDUCTIONS)) and len(node.next_functions) == 1


def _uses(outputs: list[Tensor]) -> Counter[Any]:
    """How many autograd nodes read the result of each."""
    uses: Counter[Any] = Counter()
    stack = [output.grad_fn for output in outputs]
    visited = set(stack)
    while stack:
        for node, _ in stack.pop().next_functions:  # type: ignore[union-attr]
            if node is not None:
                uses[node] += 1
                if node not in visited:
                    visited.add(node)
                    stack.append(node)
    return uses
