"""Which channels of a network belong together.

The edges (this channel of that layer feeds, or is added to, that channel of another) come from Torch-Pruning's
dependency graph; this is the only file that touches it. None of its pruner classes is used: they share mutable default
arguments between instances, and so keep modules and options of one call alive in the next. From the edges we build our
own groups as connected components, because grouped convolutions, concatenations and flattening need exact index maps.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch_pruning
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch_pruning.pruner.function import BasePruningFunc

from rssearch.cost import forward_hooks, output_tensors, thop_macs
from rssearch.errors import InputError
from rssearch.models.resnet_cifar import IndexShortcut
from rssearch.pruning.channels import ChannelGraph, Group, Indices, Kept, Member
from rssearch.pruning.cost_table import Count, Shapes, Side, build_tables

__all__ = ["ChannelGraph", "Group", "Kept", "Member", "trace"]

# Layers without parameters that work channel by channel: they cost something, so their width has to be known.
_PASSING = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.Upsample,
    nn.UpsamplingBilinear2d,
    nn.UpsamplingNearest2d,
)


def trace(model: nn.Module, example_input: Tensor) -> ChannelGraph:
    """Find the coupled channels of a network.

    A copy is run in eval mode; the original keeps its mode, gradients and hooks, and nothing of it stays referenced.

    Args:
        model: a network that takes one batch of images and returns a tensor (or a tuple, list or dict of tensors).
        example_input: a batch [N, C, H, W]; its first image is used.

    Raises:
        InputError: the network cannot be traced, with the reason.
    """
    with torch.inference_mode(False), torch.enable_grad():
        twin = copy.deepcopy(model).eval().requires_grad_(True)
        image = example_input[:1].detach().clone()
        calls = _record_calls(twin, image)
        atoms = _Atoms(twin, calls)
        for root, items in _coupled(twin, image, calls, atoms):
            atoms.link(root, items)
    groups, fixed = atoms.groups()
    full = np.array([group.width for group in groups.values()], float)
    position = {name: i for i, name in enumerate(groups)}
    per_width: dict[tuple[str, Side], dict[str, int]] = defaultdict(dict)
    for name, group in groups.items():
        for member in group.members:
            per_width[member.layer, member.side][name] = member.index.shape[1]
    counts = {}
    for side, size in atoms.sizes.items():
        row = np.zeros(len(groups))
        for name, k in per_width[side].items():
            row[position[name]] = k
        counts[side] = Count(size - float(row @ full), row)
    tables = build_tables(twin, calls, counts, full, thop_macs(twin, image))
    return ChannelGraph(groups, fixed, tuple(example_input.shape), atoms.sizes, tables)


def _record_calls(model: nn.Module, image: Tensor) -> dict[str, list[Shapes]]:
    """Run the model: the layers in order of execution, with the shapes of their input and output at each call."""
    names = {module: name for name, module in model.named_modules()}
    calls: dict[str, list[Shapes]] = defaultdict(list)

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            calls[names[module]].append((tuple(inputs[0].shape), tuple(output.shape)))

    with forward_hooks(model, lambda module: not list(module.children()), record), torch.no_grad():
        model(image)
    for name, shapes in calls.items():
        if isinstance(model.get_submodule(name), _PASSING) and len({x[1] for x, _ in shapes}) > 1:
            raise InputError(f"layer {name!r} is used for maps of different widths: give each use a layer of its own")
    return dict(calls)


class _Passing(BasePruningFunc):  # type: ignore[misc]
    """Tells Torch-Pruning that a layer passes its channels on."""

    def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:  # noqa: ARG002
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int | None:  # noqa: ARG002
        return None

    get_in_channels = get_out_channels


class _Index(BasePruningFunc):  # type: ignore[misc]
    """Tells Torch-Pruning that the two sides of an index shortcut are independent."""

    def prune_out_channels(self, layer: IndexShortcut, idxs: Any) -> nn.Module:  # noqa: ARG002
        return layer

    def prune_in_channels(self, layer: IndexShortcut, idxs: Any) -> nn.Module:  # noqa: ARG002
        return layer

    def get_out_channels(self, layer: IndexShortcut) -> int:
        return layer.out_channels

    def get_in_channels(self, layer: IndexShortcut) -> int:
        return layer.in_channels


Item = tuple[str, Side, Indices, Indices]  # layer, side, its channels, the root's channels; both of one length


def _coupled(
    model: nn.Module, image: Tensor, calls: dict[str, list[Shapes]], atoms: _Atoms
) -> Iterator[tuple[str, list[Item]]]:
    """For each convolution and linear layer, what its output channels are coupled with."""
    outputs: list[Tensor] = []

    def forward(network: nn.Module, x: Tensor) -> list[Tensor]:
        outputs.extend(output_tensors(network(x)))
        return outputs

    graph = torch_pruning.DependencyGraph()
    custom: dict[Any, BasePruningFunc] = {kind: _Passing() for kind in _PASSING}
    custom[IndexShortcut] = _Index()
    try:
        graph.build_dependency(model, image, forward_fn=forward, customized_pruners=custom, verbose=False)
    except (ArithmeticError, AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"the channels of {type(model).__name__} cannot be followed ({reason})") from error
    names = {module: name for name, module in model.named_modules()}
    last = {output.grad_fn for output in outputs}
    done: set[nn.Module] = set()
    for name in calls:
        root = model.get_submodule(name)
        if (
            not isinstance(root, _ConvNd | nn.Linear)
            or root not in graph.module2node
            or root in done
            or _is_depthwise(root)
        ):
            continue
        pruner = graph.get_pruner_of_module(root)
        group = graph.get_pruning_group(root, pruner.prune_out_channels, list(range(pruner.get_out_channels(root))))
        items: list[Item] = []
        for item in group:
            node, layer = item.dep.target, item.dep.target.module
            out = item.dep.handler == graph.get_pruner_of_module(layer).prune_out_channels
            index, of_root = np.asarray(item.idxs, np.int64), np.asarray(item.root_idxs, np.int64)
            if isinstance(layer, torch_pruning.ops._OutputOp) or (out and node.grad_fn in last):
                atoms.fix(name, of_root, "reaches the output of the network")
            if isinstance(layer, nn.Parameter):
                atoms.fix(name, of_root, "is combined with a bare parameter")
            elif layer in names:  # else it is an operation such as an addition
                sides = [side for side in _sides(layer, out) if (names[layer], side) in atoms.sizes]
                items += [(names[layer], side, index, of_root) for side in sides]
                if not sides:
                    atoms.fix(name, of_root, f"passes through {names[layer]} ({type(layer).__name__})")
                if out and len(index) == atoms.sizes.get((names[layer], "out")):
                    done.add(layer)
        yield name, items


def _sides(layer: nn.Module, out: bool) -> tuple[Side, ...]:
    """The sides of a layer that an edge of Torch-Pruning touches; those of a depthwise convolution are one to it."""
    if _is_depthwise(layer):
        return ("in", "out")
    if isinstance(layer, _ConvNd | nn.Linear | IndexShortcut):
        return ("out",) if out else ("in",)
    return ("both",)


def _is_depthwise(layer: nn.Module) -> bool:
    """As Torch-Pruning sees it."""
    return isinstance(layer, _ConvNd) and layer.groups == layer.out_channels > 1


class _Atoms:
    """The channels of all sides of all layers, and which of them are linked.

    Attributes:
        sizes: channels of each (layer, side).
    """

    def __init__(self, model: nn.Module, calls: dict[str, list[Shapes]]) -> None:
        self.kinds: dict[str, str] = {}
        self.sizes: dict[tuple[str, Side], int] = {}
        blocked: dict[str, int] = {}
        for name, shapes in calls.items():
            layer = model.get_submodule(name)
            match layer:
                case _ConvNd():
                    self._add(name, "conv", {"in": layer.in_channels, "out": layer.out_channels})
                    if layer.groups > 1:
                        blocked[name] = layer.groups
                case nn.Linear():
                    self._add(name, "linear", {"in": layer.in_features, "out": layer.out_features})
                case IndexShortcut():
                    self._add(name, "index", {"in": layer.in_channels, "out": layer.out_channels})
                case _BatchNorm() | _InstanceNorm():
                    self._add(name, "norm", {"both": layer.num_features})
                case nn.PReLU() if layer.num_parameters > 1:
                    self._add(name, "prelu", {"both": shapes[0][0][1]})
                case _ if isinstance(layer, (*_PASSING, nn.PReLU)):
                    self._add(name, "passing", {"both": shapes[0][0][1]})
        ends = np.cumsum([0, *self.sizes.values()])
        self._start = dict(zip(self.sizes, ends.tolist(), strict=False))
        self._total = int(ends[-1])
        self._edges: list[tuple[Indices, Indices]] = []
        self._fixed: list[tuple[Indices, str]] = []
        self._reached = np.zeros(self._total, bool)
        self._blocked = blocked
        for name, blocks in blocked.items():
            first = self._of(name, "out").reshape(blocks, -1)[:, :1]
            for side in ("in", "out"):
                of_side = self._of(name, side).reshape(blocks, -1)
                self._edges.append((np.broadcast_to(first, of_side.shape).ravel(), of_side.ravel()))

    def _add(self, name: str, kind: str, sides: dict[Side, int]) -> None:
        self.kinds[name] = kind
        for side, size in sides.items():
            self.sizes[name, side] = size

    def _of(self, layer: str, side: Side) -> Indices:
        start = self._start[layer, side]
        return np.arange(start, start + self.sizes[layer, side])

    def link(self, root: str, items: list[Item]) -> None:
        """Couple channels of the items with output channels of the root."""
        outputs = self._of(root, "out")
        for layer, side, index, of_root in items:
            atoms = self._of(layer, side)
            if index.size and (index.min() < 0 or index.max() >= atoms.size):
                raise InputError(f"the channels of {layer!r} cannot be followed: an index is beyond its {atoms.size}")
            self._edges.append((outputs[of_root], atoms[index]))
            self._reached[atoms[index]] = True

    def fix(self, root: str, channels: Indices, reason: str) -> None:
        """Output channels of the root that must stay."""
        self._fixed.append((self._of(root, "out")[channels], reason))

    def groups(self) -> tuple[dict[str, Group], dict[str, str]]:
        """The connected components, those with the same layers put together; and the layers that must stay."""
        for name in self._blocked:  # blocks of input channels whose origin is unknown, such as the image
            atoms = self._of(name, "in")
            self._fixed.append((atoms[~self._reached[atoms]], "is a grouped convolution over fixed channels"))
        rows = np.concatenate([edge[0] for edge in self._edges] or [np.zeros(0, np.int64)])
        columns = np.concatenate([edge[1] for edge in self._edges] or [np.zeros(0, np.int64)])
        links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(self._total, self._total))
        count, labels = connected_components(links, directed=False)
        reasons: dict[int, str] = {}
        for atoms, reason in reversed(self._fixed):
            reasons.update(dict.fromkeys(np.unique(labels[atoms]).tolist(), reason))
        signatures: list[list[tuple[str, Side, int]]] = [[] for _ in range(count)]
        fixed: dict[str, str] = {}
        for layer, side in self.sizes:
            units, sizes = np.unique(labels[self._of(layer, side)], return_counts=True)
            for unit, size in zip(units.tolist(), sizes.tolist(), strict=True):
                signatures[unit].append((layer, side, size))
                if side == "out" and self.kinds[layer] != "index" and unit in reasons:
                    fixed.setdefault(layer, reasons[unit])
        found: dict[tuple[tuple[str, Side, int], ...], list[int]] = defaultdict(list)
        for unit, signature in enumerate(signatures):
            produced = any(side == "out" and self.kinds[layer] != "index" for layer, side, _ in signature)
            if produced and unit not in reasons:
                found[tuple(signature)].append(unit)
        groups = [self._group(signature, np.array(units), labels) for signature, units in found.items()]
        order = {name: i for i, name in enumerate(self.kinds)}
        groups.sort(key=lambda group: (order[group.producers[0].layer], group.producers[0].index[0, 0]))
        return _named(groups), fixed

    def _group(self, signature: tuple[tuple[str, Side, int], ...], units: Indices, labels: Indices) -> Group:
        first, side = next(
            (layer, side) for layer, side, _ in signature if side == "out" and self.kinds[layer] != "index"
        )
        rank = np.full(labels.max() + 1, -1)
        ordered = labels[self._of(first, side)]
        ordered = ordered[np.isin(ordered, units)]
        rank[ordered[np.sort(np.unique(ordered, return_index=True)[1])]] = np.arange(len(units))
        members = []
        for layer, of_layer, k in signature:
            ranks = rank[labels[self._of(layer, of_layer)]]
            inside = np.flatnonzero(ranks >= 0)
            index = inside[np.argsort(ranks[inside], kind="stable")].reshape(len(units), k)
            members.append(Member(layer, of_layer, index, self.kinds[layer], layer in self._blocked))
        return Group(first, len(units), tuple(members))


def _named(groups: list[Group]) -> dict[str, Group]:
    """Groups by name; where a layer's channels fall into several groups, the later ones carry their first channel."""
    named: dict[str, Group] = {}
    for group in groups:
        name = group.name if group.name not in named else f"{group.name}[{group.producers[0].index[0, 0]}]"
        named[name] = Group(name, group.width, group.members)
    return named
