"""The tables of capabilities.md, asked of the registries and of the checks that every study goes through.

`python docs/capabilities.py` writes them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rssearch import data, models, pruning
from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.pruning.allocate import ALLOCATIONS
from rssearch.sampling.sampler import CAPABILITIES
from rssearch.trials import prune
from rssearch.trials.point import NO_METHOD, OTHERS

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- {}: written by capabilities.py -->\n", "<!-- end -->\n"
SETS = {"classification": "synthetic_scenes", "segmentation": "synthetic_buildings"}
METHODS = (*pruning.METHODS, *OTHERS)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def allowed(model: str, method: str, settings: dict[str, Any] | None = None, **more: Any) -> bool:
    """Whether a study may have such a point."""
    amount = {} if {"rate", "rates"} & more.keys() else {"macs_ratio": 0.5}
    point = {"dataset": SETS[models.task_of(model)], "model": model, "method": method, **amount, **more}
    try:
        prune.check(point, Settings.model_validate(settings or {}))
    except InputError:
        return False
    return True


def networks() -> str:
    """Network by network: the methods that are refused."""
    rows = []
    for name in models.list_models():
        refused = [method for method in METHODS if not allowed(name, method)]
        texts = [f"all but {_names(refused)}" if refused else "all"]
        if "batch_norm" in models.options_of(name):
            given = {"model": {"networks": {name: {"batch_norm": True}}}}
            refused = [method for method in METHODS if not allowed(name, method, given)]
            texts.append(f"with `batch_norm: true` all but {_names(refused)}")
        rows.append((f"`{name}`", models.task_of(name), "; ".join(texts), _names(models.options_of(name)) or "none"))
    return table(("network", "task", "methods", "options"), rows)


def methods() -> str:
    """The amounts, allocations and steps that methods take, and what they need; those that are alike stand together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in METHODS:
        alike.setdefault(_takes(name), []).append(name)
    rows = [(_names(names), *takes) for takes, names in alike.items()]
    return table(("method", "amount", "allocation", "may be", "in steps", "needs"), rows)


def _takes(name: str) -> tuple[str, ...]:
    method = pruning.METHODS.get(name)
    if method is None:
        return (
            ("`macs_ratio`", "its own", "none", "no", "images")
            if name != NO_METHOD
            else ("no matter", "none", "none", "no", "")
        )
    amounts: dict[str, Any] = {"rate": 0.5, "macs_ratio": 0.5, "rates": "lfp-1"}
    return (
        _but([amount for amount, value in amounts.items() if not _can(name, **{amount: value})]),
        f"`{method.allocation}`",
        _but([how for how in ALLOCATIONS if not _can(name, allocation=how)]),
        _yes(_can(name, {"pruning": {"steps": 2}})),
        " and ".join(["images"] * method.needs_data + ["batch normalisation"] * method.needs_norms),
    )


def _but(refused: list[str]) -> str:
    return f"any but {_names(refused)}" if refused else "any"


def _can(method: str, settings: dict[str, Any] | None = None, **more: Any) -> bool:
    return allowed("resnet56", method, settings, **more)


def samplers() -> str:
    """Sampler by sampler: what it can do."""
    rows = [
        (
            f"`{name}`",
            can.summary,
            _yes(can.many_objectives),
            _yes(can.constraints),
            _yes(can.choices),
            _yes(can.continuous),
            "as pruned" if can.pruned else "by their last values",
            str(can.min_dimensions) if can.min_dimensions else "",
        )
        for name, can in CAPABILITIES.items()
    ]
    titles = ("several objectives", "learns from constraints", "choices", "continuous ranges", "stopped trials")
    return table(("sampler", "what it is", *titles, "dimensions at least"), rows)


def datasets() -> str:
    """Dataset by dataset: its task, and whether it can be downloaded."""
    rows = []
    for row in data.summary():
        name = row["name"]
        rows.append((f"`{name}`", row["task"], row["summary"], row["download"]))
    return table(("dataset", "task", "what it is", "download"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "networks": networks,
    "datasets": datasets,
    "samplers": samplers,
}


def written(page: str) -> str:
    """A page with its tables made again."""
    for name, make in TABLES.items():
        before, _, rest = page.partition(BEGIN.format(name))
        _, _, after = rest.partition(END)
        page = f"{before}{BEGIN.format(name)}\n{make()}\n{END}{after}"
    return page


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _yes(can: bool) -> str:
    return "yes" if can else "no"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
