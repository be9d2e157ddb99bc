"""Which channels of a network belong together."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rssearch.cost.counting import count, duplicate, output_tensors
from rssearch.errors import InputError
from rssearch.pruning import functional
from rssearch.pruning.atoms import Atoms
from rssearch.pruning.channels import ChannelGraph, Group, Indices, Kept, Member
from rssearch.pruning.cost_table import Count, Side, build_tables
from rssearch.pruning.following import Follower
from rssearch.pruning.surgery import try_cut

_log = logging.getLogger(__name__)

__all__ = ["ChannelGraph", "Group", "Kept", "Member", "check_traceable", "trace"]


_ATTEMPTS = 32  # cuts on trial before all of a set that fails stays whole


def trace(model: nn.Module, example_input: Tensor) -> ChannelGraph:
    """Find the coupled channels of a network.

    A copy is run in eval mode, and one in training mode for branches that only run there; the original keeps its mode,
    gradients and hooks, and nothing of it stays referenced. Channels that cannot be followed through an operation stay
    whole (`ChannelGraph.fixed` says why).

    Args:
        model: a network that takes one batch of images and returns a tensor (or a tuple, list or dict of tensors).
        example_input: a batch [N, C, H, W]; its first image is used.

    Raises:
        InputError: the network gives no tensors, or has parameters without a shape.
    """
    _check(model, example_input)
    with torch.inference_mode(False), torch.no_grad():
        twin = duplicate(model).eval()
        image = example_input[:1].detach().clone()
        atoms = Atoms()
        try:
            follower = _follow(twin, image, atoms)
        except InputError:
            raise
        except Exception as error:  # the network's own code may raise anything
            shape = "x".join(map(str, image.shape[1:]))
            raise InputError(f"{type(model).__name__} does not run on an image of {shape}: {error}") from error
        calls = dict(follower.calls)
        trains = _follow_training(twin, image, atoms)
        for name in [name for name in atoms.kinds if name not in calls]:
            calls[name] = []
            if atoms.kinds[name] in {"conv", "linear"}:
                atoms.fix(atoms.of(name, "out"), "runs in training only")
        _lift_zeros(twin)
        groups, fixed = atoms.groups()
        while failures := _failures(twin, groups, atoms, image, training=trains, thorough=follower.branches):
            for channels, reason in failures:
                atoms.fix(channels, reason)
            groups, fixed = atoms.groups()
        for name, layer in twin.named_modules():
            if isinstance(layer, _ConvNd | nn.Linear) and name not in atoms.kinds:
                fixed.setdefault(name, "did not run, so that nothing is known of what it reads")
        whole = count(twin, image, in_place=True)
        tables = build_tables(twin, calls, *_counts(groups, atoms), whole)
        graph = ChannelGraph(groups, fixed, tuple(example_input.shape), atoms.sizes, tables)
        functional.fit(twin, graph, image, calls, whole)
    return graph


def _check(model: nn.Module, example_input: Tensor) -> None:
    if not isinstance(example_input, Tensor) or example_input.dim() < 2 or not len(example_input):
        raise InputError("the example must be a batch [N, C, H, W] of one image or more")
    check_traceable(model)


def check_traceable(model: nn.Module) -> None:
    """Refuse a network that is compiled, or whose parameters have no shape yet. Raises InputError."""
    for name, parameter in model.named_parameters():
        if torch.nn.parameter.is_lazy(parameter):
            raise InputError(f"{name} has no shape yet: run the network once before it is pruned")
    for name, module in model.named_modules():
        kind = {"OptimizedModule": "compiled"}.get(type(module).__name__)
        kind = "TorchScript" if isinstance(module, torch.jit.ScriptModule) else kind
        if kind is not None:
            raise InputError(f"{name or type(model).__name__} is {kind}: prune the network before that")


def _lift_zeros(model: nn.Module) -> None:
    """Give parameters that are all zero other values: behind a gate of zero no cut on trial would show a fault."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point() and not parameter.any():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def _failures(
    model: nn.Module, groups: dict[str, Group], atoms: Atoms, image: Tensor, *, training: bool, thorough: bool
) -> list[tuple[Indices, str]]:
    """Channels that a cut on trial damages, with the reason: the forward pass counts on their width.

    No trace shows that a number in the code is a width (``x.view(-1, 16)``). All groups are cut at once; where that
    fails, first without the guesses, and then the guilty are looked for by halves. `thorough` is for a network whose
    code reads the values of a tensor: it may take another branch for a bright image than for a dark one.
    """
    graph = ChannelGraph(groups, {}, tuple(image.shape), atoms.sizes, {})
    generator = torch.Generator().manual_seed(0)
    kept = {
        name: sorted(torch.randperm(group.width, generator=generator)[: group.width // 2].tolist())
        for name, group in groups.items()
        if group.width > 1
    }
    attempts = itertools.count(1)

    def attempt(names: Sequence[str]) -> str | None:
        try:
            pruned = try_cut(model, graph, {name: kept[name] for name in names}, thorough=thorough)
            if training:
                with torch.random.fork_rng([]):
                    pruned.train()(image.expand(2, *image.shape[1:]).clone())
        except Exception as error:  # noqa: BLE001  # the network's own code may raise anything
            return str(error) or type(error).__name__
        return None

    def search(names: Sequence[str]) -> dict[str, str]:
        number, reason = next(attempts), attempt(names)
        if reason is None:
            return {}
        if len(names) == 1:
            return {names[0]: f"does not bear a cut on trial ({reason})"}
        half = len(names) // 2
        found = {} if number > _ATTEMPTS else search(names[:half]) | search(names[half:])
        return found or dict.fromkeys(names, f"does not bear a cut on trial together with others ({reason})")

    if not kept or attempt([*kept]) is None:
        return []
    if (reason := attempt([])) is not None:
        what = f"{type(model).__name__} does not give the same twice in evaluation mode ({reason})"
        raise InputError(f"{what}: no cut of it could be proved")
    return atoms.take_guesses() or [
        (atoms.of(first.layer, "out")[first.index.ravel()], reason)
        for name, reason in search([*kept]).items()
        for first in groups[name].producers[:1]
    ]


def _follow(model: nn.Module, images: Tensor, atoms: Atoms) -> Follower:
    follower = Follower(model, atoms)
    with follower:
        output = model(images)
    if not output_tensors(output):
        raise InputError(f"{type(model).__name__} gives {type(output).__name__}, in which there is no tensor to follow")
    follower.fix_output(output)
    return follower


def _follow_training(model: nn.Module, image: Tensor, atoms: Atoms) -> bool:
    """The same in training mode, and whether the network runs there.

    The model is in eval mode again afterwards, with the buffers that it had. What was found until it failed counts.
    """
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng([image.device] if image.device.type == "cuda" else []):
            _follow(model.train(), image.expand(2, *image.shape[1:]).clone(), atoms)
    except Exception as error:  # noqa: BLE001  # the network's own code may raise anything
        _log.warning(
            "%s does not run in training mode on images alone (%s): branches that run only there are not followed",
            *(type(model).__name__, str(error) or type(error).__name__),
        )
        return False
    finally:
        model.eval()
        for buffer, value in before:
            buffer.copy_(value)
    return True


def _counts(groups: dict[str, Group], atoms: Atoms) -> tuple[dict[tuple[str, Side], Count], npt.NDArray[np.float64]]:
    """The channels of each side as a function of the widths of the groups, and the whole widths."""
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
    return counts, full
