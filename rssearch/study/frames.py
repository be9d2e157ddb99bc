"""The results of a study as pandas frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssearch.config.schema import StudyConfig
from rssearch.report import recorded
from rssearch.report.columns import listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Results", "results"]


@dataclass(frozen=True)
class Results:
    """What a study has found.

    Attributes:
        study: its name.
        trials: a row for each trial, with the columns of ``trials.csv``.
        front: the rows on the front of each dataset, by rising cost; where seeds vary, the means of the configurations.
        baseline: a row for each baseline whose objectives are known: the metrics before pruning, mean of the seeds.
        hypervolume: of each dataset, as the share of the box between the reference and the ideal point; where that is
            not known the plain hypervolume. See `rssearch.front`.
    """

    study: str
    trials: pd.DataFrame
    front: pd.DataFrame
    baseline: pd.DataFrame
    hypervolume: dict[str | None, float]

    def __repr__(self) -> str:
        shares = ", ".join(f"{dataset}: {volume:.4g}" for dataset, volume in self.hypervolume.items())
        return (
            f"Results({self.study!r}: {len(self.trials)} trials, {len(self.front)} on the front; hypervolume {shares})"
        )


def results(study: StudyConfig | str, storage: str | Path = "results") -> Results:
    """Read what a study has found so far.

    Args:
        study: its configuration, which names its storage, or its name.
        storage: where to look for a name.

    Raises:
        InputError: there is no such study in the storage.
    """
    import pandas as pd

    name, place = (study.study, study.storage) if isinstance(study, StudyConfig) else (study, storage)
    found = recorded.read(name, place)
    fronts = found.front()
    unpruned: list[dict[str, Any]] = [{"dataset": front.dataset, **row} for front in fronts for row in front.baselines]
    volumes = {
        front.dataset: front.hypervolume if front.relative_hypervolume is None else front.relative_hypervolume
        for front in fronts
    }
    return Results(
        study=name,
        trials=pd.DataFrame([*map(listed, found.rows)]),
        front=pd.DataFrame([listed(row) for front in fronts for row in front.members]),
        baseline=pd.DataFrame(unpruned),
        hypervolume=volumes,
    )
