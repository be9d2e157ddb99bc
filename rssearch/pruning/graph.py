"""Which channels of a network belong together."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rssearch.cost import count, duplicate, output_tensors
from rssearch.errors import InputError
from rssearch.pruning import functional
from rssearch.pruning.atoms import Atoms
from rssearch.pruning.channels import ChannelGraph, Group, Indices, Kept, Member
from rssearch.pruning.cost_table import Count, Shapes, Side, build_tables
from rssearch.pruning.following import Follower
from rssearch.pruning.surgery import try_cut

__all__ = ["ChannelGraph", "Group", "Kept", "Member", "trace"]


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
    lazy = [name for name, parameter in model.named_parameters() if torch.nn.parameter.is_lazy(parameter)]
    if lazy:
        raise InputError(f"{lazy[0]} has no shape yet: run the network once before it is pruned")
    with torch.inference_mode(False), torch.no_grad():
        twin = duplicate(model).eval()
        image = example_input[:1].detach().clone()
        atoms = Atoms()
        calls = _follow(twin, image, atoms)
        only_in_training = _follow_training(twin, image, atoms) - calls.keys()
        calls |= {name: [] for name in atoms.kinds if name in only_in_training}
        groups, fixed = atoms.groups()
        while failures := _failures(twin, groups, atoms, image, training=bool(only_in_training)):
            for channels, reason in failures:
                atoms.fix(channels, reason)
            groups, fixed = atoms.groups()
        whole = count(twin, image)
        tables = build_tables(twin, calls, *_counts(groups, atoms), whole)
        graph = ChannelGraph(groups, fixed, tuple(example_input.shape), atoms.sizes, tables)
        functional.fit(twin, graph, image, calls, whole)
    return graph


def _failures(
    model: nn.Module, groups: dict[str, Group], atoms: Atoms, image: Tensor, *, training: bool
) -> list[tuple[Indices, str]]:
    """Channels that a cut on trial damages, with the reason: the forward pass counts on their width.

    No trace shows that a number in the code is a width (``x.view(-1, 16)``). All groups are cut at once; where that
    fails, first without the guesses, and then the guilty are looked for by halves.
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
            pruned = try_cut(model, graph, {name: kept[name] for name in names})
            if training:
                with torch.random.fork_rng([]):
                    duplicate(pruned).train()(image.expand(2, *image.shape[1:]))
        except (InputError, RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
            return str(error)
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

    # A network that differs from itself (random in eval mode) cannot be judged; cutting it is refused later.
    if not kept or attempt([*kept]) is None or attempt([]) is not None:
        return []
    return atoms.take_guesses() or [
        (atoms.of(first.layer, "out")[first.index.ravel()], reason)
        for name, reason in search([*kept]).items()
        for first in groups[name].producers[:1]
    ]


def _follow(model: nn.Module, images: Tensor, atoms: Atoms) -> dict[str, list[Shapes]]:
    follower = Follower(model, atoms)
    with follower:
        output = model(images)
    if not output_tensors(output):
        raise InputError(f"{type(model).__name__} gives {type(output).__name__}, in which there is no tensor to follow")
    follower.fix_output(output)
    return dict(follower.calls)


def _follow_training(model: nn.Module, image: Tensor, atoms: Atoms) -> set[str]:
    """The same in training mode; a network that does not run there, on images alone, has no such branches.

    The model is in eval mode again afterwards, with the buffers that it had. Returns the layers that ran.
    """
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng([image.device] if image.device.type == "cuda" else []):
            return {*_follow(model.train(), image.expand(2, *image.shape[1:]).clone(), atoms)}
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, AssertionError, InputError):
        return set()
    finally:
        model.eval()
        for buffer, value in before:
            buffer.copy_(value)


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
