"""Commands that list what there is: studies, and what a study may name."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rssearch.cli.arguments import AsJson, StudyStorage
from rssearch.cli.output import console, print_list, print_table


def studies(storage: StudyStorage = "results", as_json: AsJson = False) -> None:
    """The studies of a storage."""
    from rssearch.report import recorded

    rows = []
    for found in recorded.all_of(storage):
        statuses = [row["status"] for row in found.rows]
        members = sum(len(front.members) for front in found.front())
        rows.append((found.study, len(statuses), statuses.count("finished"), statuses.count("failed"), members))
    print_list(("study", "trials", "finished", "failed", "front"), rows, as_json)


def models(
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Those of all zoos whose name or weights hold this text.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The networks that a study may name."""
    from rssearch import models as registry
    from rssearch.models import listing

    own = {name: registry.MODELS[name].options for name in registry.list_models()}
    if search is None:
        rows = [(name, ", ".join(options) or "none") for name, options in own.items()]
        print_list(("model", "options"), [*rows, *listing.FORMS.items()], as_json)
        return
    print_list(("model", "options"), listing.search(search, own), as_json)
    for zoo in listing.missing():
        typer.echo(f"not searched, as it is not installed: {zoo}", err=True)


def methods(as_json: AsJson = False) -> None:
    """The pruning methods that a study may name."""
    from rssearch.pruning.methods import METHODS

    rows: list[tuple[str, ...]] = [
        (m.name, f"{m.summary}; {m.source}", m.allocation, "yes" if m.needs_data else "no") for m in METHODS.values()
    ]
    rows.append(("channel_nas", "lowest score of a differentiable channel search", "global", "yes"))
    rows.append(("slimmable", "by one training that shrinks through all budgets", "searched", "yes"))
    rows.append(("none", "nothing; the network is fine-tuned like the others", "", "no"))
    rows.append(("MODULE:NAME", "what your function scores lowest", "uniform", "yes"))
    print_list(("method", "what it removes first", "allocation", "sees data"), rows, as_json)


def samplers(as_json: AsJson = False) -> None:
    """The samplers, and what each can do."""
    from rssearch.sampling.sampler import CAPABILITIES

    rows = []
    for name, can in CAPABILITIES.items():
        lacks = {
            "several objectives": can.many_objectives,
            "choices": can.choices,
            "continuous ranges": can.continuous,
            "learning from constraints": can.constraints,
        }
        rows.append((name, can.summary, ", ".join(what for what, has in lacks.items() if not has)))
    print_list(("sampler", "what it is", "what it cannot do"), rows, as_json)


def papers(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A paper; without it they are listed.")] = None,
    as_json: AsJson = False,
) -> None:
    """The papers' tables beside recomputed parameters and MACs."""
    from rssearch import papers as published

    if name is None:
        rows = [(paper.name, paper.title, paper.summary) for paper in published.PAPERS.values()]
        titles = ("paper", "title", "summary" if as_json else "what can be reproduced")
        print_list(titles, rows, as_json)
        return
    table = published.recompute(published.get(name))
    if as_json:
        console.print_json(json.dumps(table.to_json()))
        return
    console.print(table.paper.title)
    print_table(("row", "count", "paper", "recomputed", "error", "status"), table.lines())
    for text in (*table.reasons(), *table.paper.notes):
        console.print(f"\n{text}")
