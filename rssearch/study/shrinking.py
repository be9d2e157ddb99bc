"""One network made smaller: a study of a few trials, its best network as a bundle, and what was lost and gained."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rssearch.config.loading import parse_study
from rssearch.config.schema import Bound, StudyConfig
from rssearch.config.space import content_key
from rssearch.config.weight_names import is_file
from rssearch.errors import InputError
from rssearch.front.constraints import broken
from rssearch.study.shrink_defaults import EPOCHS, METHOD
from rssearch.study.shrink_tables import sizes, table, too_lossy, too_noisy

if TYPE_CHECKING:
    from rssearch.study.shrink_baseline import Begun

__all__ = ["Request", "check", "shrink"]

_RATIOS = (0.8, 0.65, 0.5, 0.35, 0.25)  # of the MACs, that are tried for a latency
_OF_NAMED = "imagenet"  # the dataset whose classes named weights have


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        model: name of the network.
        data: name of the dataset.
        macs_ratio: share of the MACs that shall be left; None where a latency is given.
        latency_ms: at most so many milliseconds for an image, on this machine.
        weights: a file, or a name: then the head is new, and the baseline is trained first; None: it is trained from
            scratch.
        normalize: what its images were normalised by, as ``settings.normalize`` says it; None: for a file, what
            measures best on the validation images.
        method: of the pruning.
        epochs: of the fine-tuning.
        more: dotted keys and values that replace those of the study.
    """

    model: str
    data: str
    macs_ratio: float | None = None
    latency_ms: float | None = None
    weights: str | None = None
    normalize: str | Mapping[str, Any] | None = None
    method: str = METHOD
    epochs: int = EPOCHS
    more: Mapping[str, Any] = field(default_factory=dict)

    def check(self, places: Mapping[str, str]) -> None:
        """Refuse what no study can be, as far as that takes neither torch nor the data. Raises InputError."""
        if (self.macs_ratio is None) == (self.latency_ms is None):
            raise InputError("give one of --macs and --latency-ms")
        if self.latency_ms is not None and not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise InputError(f"--latency-ms {self.latency_ms:g}: must be a number of milliseconds above 0")
        if self.macs_ratio is not None and not 0 < self.macs_ratio <= 1:
            raise InputError(f"--macs {self.macs_ratio:g}: must be a number in (0, 1]")
        self._parsed("val_accuracy", places)

    def study(self, places: Mapping[str, str]) -> StudyConfig:
        """The study that answers it. Raises InputError for what no study can be."""
        from rssearch import models, pruning
        from rssearch.config.imports import is_import

        self.check(places)
        known = self.method in pruning.METHODS or is_import(self.method)
        if known and pruning.get_method(self.method).start == "initial":
            raise InputError(f"--method {self.method}: begins with new weights, so it shrinks no network")
        quality = "val_map" if self.data.startswith("multilabel_") else "val_accuracy"
        return self._parsed("val_miou" if models.task_of(self.model) == "segmentation" else quality, places)

    def _parsed(self, quality: str, places: Mapping[str, str]) -> StudyConfig:
        from rssearch.config.loading import overridden

        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.model).strip("-")[:60]
        document: dict[str, Any] = {
            "study": f"shrink-{name}-{self._key()}",
            "trial": "trials.prune:run",
            "space": {
                "dataset": [self.data],
                "model": [self.model],
                "method": [self.method],
                "macs_ratio": list(_RATIOS) if self.macs_ratio is None else [self.macs_ratio],
            },
            "settings": {
                "normalize": self.normalize,
                "model": {"networks": {self.model: {"weights": self.weights}} if self.weights else {}},
                "train": self._training(),
                "finetune": {"epochs": self.epochs, "lr": 0.01, "distill": 0.5, "recalibrate_batches": 10},
            },
            "search": {"objectives": {quality: "max", "macs": "min"}},
            **places,
        }
        if self.latency_ms is not None:
            document["search"]["constraints"] = {"latency_ms": {"max": self.latency_ms}}
        return parse_study(overridden(document, self.more), "shrink")

    def _training(self) -> dict[str, Any]:
        """How the baseline is trained: not at all from a whole network, gently where only its head is new."""
        if self.weights is None:
            return {}
        whole = is_file(self.weights) or self.data == _OF_NAMED
        return {"epochs": 0} if whole else {"lr": 0.01}

    def _key(self) -> str:
        try:
            return content_key(asdict(self))
        except (TypeError, ValueError) as error:
            raise InputError(f"--set: a value is none that a study may have: {error}") from None


def check(request: Request, out: Path, places: Mapping[str, str]) -> None:
    """Refuse at once what needs neither torch nor the data to be refused. Raises InputError."""
    request.check(places)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: is there already; a bundle needs a new or an empty folder")


def shrink(request: Request, out: Path, places: Mapping[str, str], console: Console, address: str | None = None) -> int:
    """Prune one network, fine-tune it, export it, and print what was lost and gained.

    Args:
        request: what is asked for.
        out: the folder of the bundle; it must be new or empty.
        places: ``data_root`` and ``storage`` where they are given.
        console: where to print.
        address: of a Ray cluster, see `rssearch.study.run.search`.

    Returns:
        The exit status of the search. It is 1, too, where some of the ratios that are tried for a latency cannot be
        met: the bundle is of another one.

    Raises:
        InputError: it cannot be done; or no network keeps the latency, or another constraint.
    """
    from rssearch import bundle
    from rssearch.report import recorded
    from rssearch.study.run import INTERRUPTED, search

    check(request, out, places)
    begun = _begin(request.study(places), request)
    config = begun.config
    if begun.line is not None:
        console.print(begun.line, soft_wrap=True)
    if request.latency_ms is not None:
        count = len(config.space["macs_ratio"].cells() or ())
        console.print(f"--latency-ms {request.latency_ms:g}: {count} sizes are timed, and those that keep it tuned")
    status = search(config, address=address, console=console, summary=False)
    if status == INTERRUPTED or (status and request.latency_ms is None):
        return status
    found = recorded.read(config.study, config.storage)
    fits = any(front.members for front in found.front())
    row = recorded.choose(found, best="accuracy") if fits else {}
    if request.latency_ms is not None:
        console.print(sizes(found.rows, request.latency_ms, row.get("key")))
        console.print()
    if not fits:
        raise InputError(_none_fits(request, found.constraints, found.rows))
    data_root = Path(config.data_root)
    path = bundle.export(found, row, out, data_root=data_root, check=False, int8=False)
    console.print(table(row, request.latency_ms))
    for text in filter(None, (begun.warning, too_noisy(found.rows, request.latency_ms))):
        console.print(f"warning: {text}", soft_wrap=True)
    tuned = config.settings.finetune
    if hint := too_lossy(row, tuned.epochs, tuned.batch_size):
        console.print(f"hint: {hint}", soft_wrap=True)
    console.print(f"the network is in {path}; its study is {config.study}", soft_wrap=True)
    return status


def _begin(config: StudyConfig, request: Request) -> Begun:
    """The study with its normalisation, which is found out where a file of weights comes without one."""
    from rssearch.study import shrink_baseline

    if request.weights is None:
        line = f"no --weights: {request.model} is trained for {config.settings.train.epochs} epochs first"
        return shrink_baseline.Begun(config, line)
    if not is_file(request.weights):
        shrink_baseline.fetch(config, request.model)
        epochs = config.settings.train.epochs
        line = (
            f"--weights {request.weights}: {request.model} begins with them, and is trained for {epochs} epochs first"
        )
        return shrink_baseline.Begun(config, line if epochs else None)
    return shrink_baseline.begin(config, request.weights)


def _none_fits(request: Request, limits: Mapping[str, Bound], rows: Iterable[Mapping[str, Any]]) -> str:
    """Why there is no network to export."""
    if request.latency_ms is None:
        found = {f"{name} is {row[name]:,.12g}": None for row in rows for name in broken(limits, row)}
        return f"search.constraints: no network keeps them; {', '.join(found)}"
    tried = [row for row in rows if row.get("latency_ms") is not None]
    if not tried:
        return f"--latency-ms {request.latency_ms:g}: no network could be measured"
    fastest = min(tried, key=lambda row: float(row["latency_ms"]))
    return (
        f"--latency-ms {request.latency_ms:g}: none of {len(tried)} networks keeps it; the fastest takes "
        f"{fastest['latency_ms']:.3g} ms with {fastest['macs_ratio']:.3g} of the MACs"
        + (f"; {noise}" if (noise := too_noisy(tried, request.latency_ms)) else "")
    )
