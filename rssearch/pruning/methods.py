"""The pruning methods by name. Each is a recipe: how the network is trained, scored, cut and fine-tuned.

``MODULE:NAME`` is a user-defined method: a `Method`, or a criterion alone, of a module that can be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, nn

from rssearch.config import imports
from rssearch.errors import InputError, unknown
from rssearch.pruning.allocate import Allocation
from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches
from rssearch.pruning.criteria.bn_scale import SHORTCUT_NORMS, bn_scale
from rssearch.pruning.criteria.chip import chip
from rssearch.pruning.criteria.compound import SCHEMES, compound
from rssearch.pruning.criteria.fpgm import fpgm
from rssearch.pruning.criteria.group import group_l2, group_taylor
from rssearch.pruning.criteria.hrank import hrank
from rssearch.pruning.criteria.l1 import l1
from rssearch.pruning.criteria.l2 import l2
from rssearch.pruning.criteria.lfp import LOGARITHMS, lfp
from rssearch.pruning.criteria.random import random
from rssearch.pruning.criteria.taylor import taylor

Criterion = Callable[..., dict[str, Tensor]]  # called as criterion(model, graph, data, seed, **options)


@dataclass(frozen=True)
class Method:
    """A pruning method.

    Attributes:
        name: as in the registry.
        summary: one line: what is removed first.
        source: the paper.
        criterion: gives the scores.
        allocation: from scores to kept channels, where not asked otherwise; see `rssearch.pruning.allocate`.
        needs_data: whether the criterion sees images and labels.
        needs_norms: whether it reads the scales of batch normalisation.
        options: options of the criterion -> allowed values, the default first.
        train: what the method changes in the recipe that trains the network, before it is pruned.
        finetune: what it changes in the recipe of the fine-tuning.
        elasticity: whether the criterion reads what `rssearch.pruning.Elasticity` recorded during the training.
        soft: whether filters are only set to zero during the fine-tuning, and removed at its end.
        start: what is scored and cut: the trained baseline, or the ``initial`` network with random parameters. In the
            second case no baseline is trained, and the cut network is initialised again at its own widths.
        retrain: whether the cut network is trained by the whole recipe that trains baselines, not by that of the
            fine-tuning; `finetune` changes that one then.
        score_passes: what the criterion takes of each image that it sees, in forward passes: 3 with a backward pass.
    """

    name: str
    summary: str
    source: str
    criterion: Criterion
    allocation: Allocation = "uniform"
    needs_data: bool = False
    needs_norms: bool = False
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    finetune: Mapping[str, Any] = field(default_factory=dict)
    elasticity: bool = False
    soft: bool = False
    start: Literal["trained", "initial"] = "trained"
    retrain: bool = False
    score_passes: int = 1

    def __post_init__(self) -> None:
        """Refuse what excludes one another. Raises InputError."""
        if self.soft and self.start == "initial":
            raise InputError(f"method {self.name!r}: soft pruning needs start='trained'; it cuts what it has trained")


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("random", "random channels", "the usual control experiment", random),
        Method("l1", "smallest L1 norm of the filter", "Li et al., ICLR 2017", l1),
        Method(
            "scratch",
            "control: the widths of l1, initialised at these widths and trained as the baseline is",
            "Liu et al., ICLR 2019, scratch-E",
            l1,
            start="initial",
            retrain=True,
        ),
        Method(
            "rewind",
            "control: as l1, then the whole training again with the weights that are left",
            "Learning-rate rewinding: Renda et al., ICLR 2020",
            l1,
            retrain=True,
        ),
        Method("l2", "smallest L2 norm of the filter", "Li et al., ICLR 2017", l2),
        Method(
            "sfp",
            "smallest L2 norm; only zeroed, again in each epoch, until the fine-tuning ends",
            "Soft filter pruning: He et al., IJCAI 2018",
            l2,
            soft=True,
        ),
        Method("fpgm", "filters nearest the geometric median", "He et al., CVPR 2019", fpgm),
        Method("lamp", "smallest share of the layer's remaining L2 norms", "Lee et al., ICLR 2021", l2, "lamp"),
        Method(
            "bn_scale",
            "smallest BN scale",
            "Liu et al., ICCV 2017, its criterion alone",
            bn_scale,
            "global_mean",  # scales that were never made sparse differ between layers by offsets: some would be emptied
            needs_norms=True,
        ),
        Method(
            "slimming",
            "smallest BN scale, after training with an L1 penalty on the scales",
            "Network slimming: Liu et al., ICCV 2017",
            bn_scale,
            "global",
            needs_norms=True,
            train={"bn_l1": "auto"},
        ),
        Method(
            "remotetrimmer",
            "smallest BN scale, after training with attention that is folded in; fine-tuned on hard samples",
            "RemoteTrimmer: Zou et al., ICASSP 2025",
            bn_scale,
            needs_norms=True,
            options={"shortcut_norms": SHORTCUT_NORMS},
            train={"attention": True},
            finetune={"loss": "adaptive_mining"},
        ),
        Method(
            "cap",
            "smallest BN scale, after training with attention that is folded in",
            "RemoteTrimmer's channel attention pruning alone",
            bn_scale,
            needs_norms=True,
            options={"shortcut_norms": SHORTCUT_NORMS},
            train={"attention": True},
        ),
        Method(
            "aml",
            "smallest BN scale; fine-tuned on hard samples",
            "RemoteTrimmer's adaptive mining loss alone",
            bn_scale,
            needs_norms=True,
            options={"shortcut_norms": SHORTCUT_NORMS},
            finetune={"loss": "adaptive_mining"},
        ),
        Method(
            "compound",
            "both elasticity and BN scale among the smallest",
            "Compound pruning: Jiang et al.",
            compound,
            "joint",
            needs_data=True,
            needs_norms=True,
            options={"scheme": SCHEMES},
            elasticity=True,
            score_passes=3,
        ),
        Method(
            "taylor",
            "smallest first-order change of the loss",
            "Molchanov et al., CVPR 2019",
            taylor,
            "global",
            needs_data=True,
            score_passes=3,
        ),
        Method(
            "group_l2",
            "smallest squared L2 norm in all layers of the group, readers included",
            "DepGraph: Fang et al., CVPR 2023",
            group_l2,
        ),
        Method(
            "group_taylor",
            "smallest first-order change of the loss by the weights of all layers of the group",
            "DepGraph: Fang et al., CVPR 2023, and Molchanov et al., CVPR 2019",
            group_taylor,
            "global",
            needs_data=True,
            score_passes=3,
        ),
        Method(
            "lfp",
            "smallest log-spectral magnitude of the maps",
            "Low Frequency Preference (LFP)",
            lfp,
            needs_data=True,
            options={"log": tuple(LOGARITHMS)},
        ),
        Method("hrank", "smallest rank of the maps", "Lin et al., CVPR 2020", hrank, needs_data=True),
        Method(
            "chip",
            "smallest loss of the nuclear norm of all maps without the channel's",
            "Channel independence (CHIP): Sui et al., NeurIPS 2021",
            chip,
            needs_data=True,
        ),
    )
}


def list_methods() -> list[str]:
    """The names of the registry."""
    return sorted(METHODS)


def get_method(name: str) -> Method:
    """A method by name. Raises InputError if there is none."""
    if name in METHODS:
        return METHODS[name]
    if not imports.is_import(name):
        raise unknown("method", name, [*METHODS, "MODULE:NAME"])
    found, _ = imports.load(name)
    if isinstance(found, Method):
        return replace(found, name=name)
    if not callable(found):
        raise InputError(f"{name}: is neither a function that scores channels nor a rssearch.pruning.Method")
    # Nobody says whether a criterion alone sees data: it may, and gets them.
    return Method(name, (found.__doc__ or name).strip().splitlines()[0], name, found, needs_data=True)


def code_of(name: str) -> str | None:
    """What the code of a user-defined method is, see `rssearch.config.imports.fingerprint`; None for all others."""
    return imports.fingerprint(name) if name not in METHODS and imports.is_import(name) else None


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Check the options of a method's criterion. Raises InputError."""
    known = get_method(method).options
    for name, value in options.items():
        if name not in known:
            has = f"it has: {', '.join(known)}" if known else "it has none"
            raise InputError(f"method {method!r} has no option {name!r} ({value!r}); {has}")
        if value not in known[name]:
            raise unknown(f"{name} of {method}", str(value), known[name])


def check_network(method: str, graph: ChannelGraph) -> None:
    """Refuse a network that a method can never score, before it is trained.

    Raises:
        InputError: no channels that can be pruned, or no batch normalisation for a method that reads its scales.
    """
    if not graph.groups:
        raise InputError(f"the network has no prunable channels: {graph.why_fixed()}")
    if get_method(method).needs_norms and not any(m.kind == "norm" for g in graph.groups.values() for m in g.members):
        raise InputError(f"method {method!r} reads the scales of batch normalisation, and the network has none")


def score(
    model: nn.Module,
    graph: ChannelGraph,
    method: str,
    *,
    data: Batches | None = None,
    seed: int = 0,
    elasticity: Mapping[str, Tensor] | None = None,
    **options: str,
) -> dict[str, Tensor]:
    """The scores of all channels.

    Args:
        model: the network, which stays as it is.
        graph: its channel graph.
        method: a name of the registry.
        data: batches (images, labels), for the methods that need them. They are gone through once.
        seed: of the random method.
        elasticity: what `rssearch.pruning.Elasticity` recorded, for the methods that read it; they take `data` instead
            where there is no record.
        options: of the method's criterion.

    Returns:
        Group -> scores [width] ([criteria, width] for the allocation ``joint``) on the CPU, higher means keep. A method
        may leave out groups that it cannot judge; they stay whole.

    Raises:
        InputError: unknown method or option, a network that the method cannot score, or a method that needs data and
            got none.
    """
    chosen = get_method(method)
    check_options(method, options)
    check_network(method, graph)
    record = {"elasticity": elasticity} if chosen.elasticity else {}
    return chosen.criterion(model, graph, data, seed, **record, **options)
