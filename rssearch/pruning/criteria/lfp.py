"""Low Frequency Preference (LFP): spectra of feature maps.

For the map M_j of channel j of one image, m_j is the flattened ``log(1 + |FFT2(M_j)|)``. With M the matrix of the m_j
of one layer, the score of channel j is what the Frobenius norm of M loses with it (the paper's eq. 5-7),

    ||M||_F - sqrt(||M||_F^2 - r_j)  =  r_j / (||M||_F + sqrt(||M||_F^2 - r_j)),      r_j = ||m_j||^2,

and the right-hand form has no cancellation. ``log(1 + x)`` is finite for dead maps; centring the spectrum permutes it
and changes no norm. All bins weigh the same: the score measures log-spectral magnitude, not the share of low
frequencies.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rssearch.cost import forward_hooks, output_tensors
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
_CHUNK = 2**24  # values that are transformed at a time

Place = tuple[str, int, str]  # a module, the number of its call, and its "input" or "output"
Readout = dict[str, Tensor]  # group -> channels [width, k] of the maps


def lfp(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The spectral score, averaged over the images of a batch, then over batches, then over the maps of a group.

    A group's maps are those that its consuming layers read, taken behind the activation and before any pooling; after
    the addition where there is a residual. Maps that two branches read (behind the max-pooling of a ResNet's stem) are
    taken where the branches part. Where a layer reads anything else (a bare concatenation, a gated map), its own input
    is taken. The network runs in eval mode, once over the data.

    Raises:
        InputError: no data.
    """
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    places: dict[Place, Readout] | None = None
    totals: dict[str, dict[Place, Tensor]] = defaultdict(dict)
    batches = 0
    for x, _ in on_device(data, twin, "lfp"):
        places = places or find_maps(twin, graph, x[:1])
        for group, scores in _run(twin, x, places).items():
            for place, score in scores.items():
                totals[group][place] = totals[group].get(place, 0) + score
        batches += 1
    return {group: torch.stack(list(totals[group].values())).mean(0) / batches for group in graph.groups}


def spectral_energy(maps: Tensor) -> Tensor:
    """The squared norm r of the log-spectrum of each map.

    Args:
        maps: [N, C, H, W], real.

    Returns:
        [N, C], float32 (float64 for float64 maps).
    """
    if maps.dtype not in {torch.float32, torch.float64}:
        maps = maps.float()
    height, width = maps.shape[-2:]
    # A real map has a symmetric spectrum: the columns that rfft2 leaves out are copies of those that it counts.
    copies = maps.new_full((width // 2 + 1,), 2)
    copies[0] = 1
    if width % 2 == 0:
        copies[-1] = 1
    rows = max(1, _CHUNK // (maps.shape[1] * height * width))
    spectra = (torch.fft.rfft2(part).abs().log1p().square() for part in torch.split(maps, rows))
    return torch.cat([(spectrum * copies).sum((-2, -1)) for spectrum in spectra])


def norm_loss(energy: Tensor) -> Tensor:
    """What the Frobenius norm loses with each row, from the squared norms of the rows [N, C]; 0 for a zero matrix."""
    total = energy.sum(1, keepdim=True)
    denominator = total.sqrt() + (total - energy).clamp_min(0).sqrt()
    return torch.where(energy > 0, energy / denominator.clamp_min(torch.finfo(energy.dtype).tiny), 0)


def _run(model: nn.Module, x: Tensor, places: Mapping[Place, Readout]) -> dict[str, dict[Place, Tensor]]:
    """The scores of one batch: group -> place -> [width], the mean over its images."""
    names = {module: name for name, module in model.named_modules()}
    watched = {name for name, _, _ in places}
    calls: Counter[str] = Counter()
    scores: dict[str, dict[Place, Tensor]] = defaultdict(dict)

    def read(place: Place, maps: Tensor) -> None:
        if place not in places:
            return
        maps = maps.reshape(*maps.shape[:2], -1, maps.shape[-1] if maps.dim() > 3 else 1)
        energy = spectral_energy(maps)
        for group, channels in places[place].items():
            loss = norm_loss(energy[:, channels.ravel()]).mean(0)
            scores[group][place] = loss.reshape(channels.shape).mean(1).float().cpu()

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


def find_maps(model: nn.Module, graph: ChannelGraph, image: Tensor) -> dict[Place, Readout]:
    """Where the maps of each group can be read.

    The autograd graph of one image says which activation feeds which layer. `model` has to be in eval mode, with
    gradients.

    Raises:
        InputError: a group whose maps no convolution or linear layer reads.
    """
    consumers = {member.layer for group in graph.groups.values() for member in group.consumers}
    names = {module: name for name, module in model.named_modules()}
    calls: Counter[str] = Counter()
    activations: dict[Any, tuple[Place, int]] = {}  # autograd node -> place and channels
    readers: list[tuple[Place, Any, int]] = []  # of consumers: place, node of the input, channels of the input

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        name = names[module]
        if name in consumers:
            readers.append(((name, calls[name], "input"), inputs[0].grad_fn, inputs[0].shape[1]))

    def after(module: nn.Module, _: tuple[Any, ...], output: Tensor) -> None:
        name = names[module]
        if isinstance(module, _ACTIVATIONS):
            activations[output.grad_fn] = ((name, calls[name], "output"), output.shape[1])
        calls[name] += 1

    handles = [module.register_forward_pre_hook(before) for module in model.modules()]
    try:
        with forward_hooks(model, lambda _: True, after), torch.enable_grad():
            uses = _uses(output_tensors(model(image)))
    finally:
        for handle in handles:
            handle.remove()
    members = {(member.layer, name): member for name, g in graph.groups.items() for member in g.consumers}
    places: dict[Place, Readout] = defaultdict(dict)
    seen: dict[Any, Place] = {}
    for own, node, width in readers:
        source = node
        while source not in activations and source is not None and uses[source] == 1 and _reduces(source):
            source = source.next_functions[0][0]
        place, channels = activations.get(source) or (seen.setdefault(node, own), width)
        flat = width // channels  # columns of a linear layer for one map
        for (layer, name), member in members.items():
            if layer == own[0]:
                index = torch.from_numpy(member.index)
                places[place].setdefault(name, index.reshape(len(index), -1, flat)[:, :, 0] // flat)
    found = {group for readout in places.values() for group in readout}
    for name in graph.groups:
        if name not in found:
            raise InputError(f"method 'lfp': no convolution or linear layer reads the maps of group {name!r}")
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
