"""One network made smaller: a study of a few trials, its best network as a bundle, and what was lost and gained."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from rssearch.config.loading import parse_study
from rssearch.config.schema import Bound, StudyConfig
from rssearch.config.space import content_key
from rssearch.errors import InputError
from rssearch.front.constraints import broken
from rssearch.front.gains import compared
from rssearch.metrics import DIFFERENCE, human, title_of

__all__ = ["EPOCHS", "METHOD", "Request", "shrink", "table"]

# The highest mean at a quarter of the MACs among the methods that prune given weights: docs/results/pruning_methods.md.
METHOD = "compound"
_RATIOS = (0.8, 0.65, 0.5, 0.35, 0.25)  # of the MACs, that are tried for a latency
EPOCHS = 10  # of the fine-tuning
_MEASURES = (
    "val_accuracy",
    "test_accuracy",
    "val_miou",
    "test_miou",
    "val_map",
    "test_map",
    "macs",
    "params",
    "bytes",
    "latency_ms",
)


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        model: name of the network.
        data: name of the dataset.
        macs_ratio: share of the MACs that shall be left; None where a latency is given.
        latency_ms: at most so many milliseconds for an image, on this machine.
        weights: a name or a file; None: the baseline is trained first.
        normalize: what its images were normalised by; None: for a file, what measures best on the validation images.
        method: of the pruning.
        epochs: of the fine-tuning.
        more: dotted keys and values that replace those of the study.
    """

    model: str
    data: str
    macs_ratio: float | None = None
    latency_ms: float | None = None
    weights: str | None = None
    normalize: str | None = None
    method: str = METHOD
    epochs: int = EPOCHS
    more: Mapping[str, Any] = field(default_factory=dict)

    def study(self, places: Mapping[str, str]) -> StudyConfig:
        """The study that answers it. Raises InputError for what no study can be."""
        from rssearch import models
        from rssearch.config.loading import overridden

        if (self.macs_ratio is None) == (self.latency_ms is None):
            raise InputError("give one of --macs and --latency-ms")
        if self.latency_ms is not None and not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise InputError(f"--latency-ms {self.latency_ms:g}: must be a number of milliseconds above 0")
        if self.macs_ratio is not None and not math.isfinite(self.macs_ratio):
            raise InputError(f"--macs {self.macs_ratio:g}: must be a number in (0, 1]")
        quality = "val_map" if self.data.startswith("multilabel_") else "val_accuracy"
        quality = "val_miou" if models.task_of(self.model) == "segmentation" else quality
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
                "train": {"epochs": 0} if self.weights else {},
                "finetune": {"epochs": self.epochs, "lr": 0.01, "distill": 0.5, "recalibrate_batches": 10},
            },
            "search": {"objectives": {quality: "max", "macs": "min"}},
            **places,
        }
        if self.latency_ms is not None:
            document["search"]["constraints"] = {"latency_ms": {"max": self.latency_ms}}
        return parse_study(overridden(document, self.more), "shrink")

    def _key(self) -> str:
        try:
            return content_key(asdict(self))
        except (TypeError, ValueError) as error:
            raise InputError(f"--set: a value is none that a study may have: {error}") from None


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

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: is there already; a bundle needs a new or an empty folder")
    config = _normalised(request, places, console)
    if not request.weights:
        console.print(f"no --weights: {request.model} is trained for {config.settings.train.epochs} epochs first")
    status = search(config, address=address, console=console, summary=False)
    if status == INTERRUPTED or (status and request.latency_ms is None):
        return status
    found = recorded.read(config.study, config.storage)
    if not any(front.members for front in found.front()):
        raise InputError(_none_fits(request, found.constraints, found.rows))
    row = recorded.choose(found, best="accuracy")
    data_root = Path(config.data_root)
    path = bundle.export(found, row, out, data_root=data_root, check=False, int8=False)
    console.print(table(row))
    console.print(f"the network is in {path}; its study is {config.study}", soft_wrap=True)
    return status


def _normalised(request: Request, places: Mapping[str, str], console: Console) -> StudyConfig:
    """The study, with the normalisation that measures best where a file of weights comes without one."""
    from rssearch.models.weights import is_file
    from rssearch.study.checking import check_baselines

    config = request.study(places)
    if config.settings.normalize is not None or request.weights is None or not is_file(request.weights):
        return config
    found = [row for row in check_baselines(config) if row["normalize"] in ("dataset", "imagenet", "none")]
    best = max(found, key=lambda row: row["accuracy"])
    measured = ", ".join(f"{row['normalize']} {row['accuracy']:.1%}" for row in found)
    console.print(f"normalize: {best['normalize']}, the best on the validation images ({measured})", soft_wrap=True)
    settings = config.settings.model_copy(update={"normalize": best["normalize"]})
    return config.model_copy(update={"settings": settings})


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
    )


def table(row: Mapping[str, Any]) -> Any:
    """Before, after, and what was lost and gained, for the console.

    Args:
        row: of the trial, measured.
    """
    from rich.table import Table

    from rssearch.report.cells import DISTURBED, FOOTNOTE, cell

    full = compared(row)
    result = Table(box=None, padding=(0, 2))
    for title in ("", "before", "after", "lost and gained"):
        result.add_column(title, justify="left" if not title else "right")
    before = {name: full.get(f"baseline_{name}") for name in (*_MEASURES, "latency_iqr_ms")}
    for name in _MEASURES:
        if full.get(name) is None:
            continue
        cells = (cell(before, name), cell(full, name))
        result.add_row(title_of(name), *cells, _change(full, name))
        if any(DISTURBED in text for text in cells):
            result.caption, result.caption_justify = FOOTNOTE, "left"
    return result


def _change(row: Mapping[str, Any], name: str) -> str:
    if row.get(name + DIFFERENCE) is not None:
        return f"{human(name + DIFFERENCE, row[name + DIFFERENCE])} points"
    if name == "latency_ms":
        return f"{human('speedup', row['speedup'])} as fast" if row.get("speedup") is not None else ""
    ratio = row.get(f"{name}_ratio")
    return f"{human(f'{name}_ratio', ratio)} left" if ratio is not None else ""
