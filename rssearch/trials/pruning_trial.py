"""One trial of a pruning study on its worker: what it prunes, each part found or made once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from rssearch.pruning import Sensitivity
from rssearch.trial.session import Session
from rssearch.trials import baselines
from rssearch.trials.baselines import Baseline
from rssearch.trials.network_trial import NetworkTrial
from rssearch.trials.point import PruningPoint


class PruningTrial(NetworkTrial):
    """A `NetworkTrial` with the baseline that it prunes, its scores, or the network of its channel search."""

    def __init__(self, point: PruningPoint, session: Session) -> None:
        super().__init__(point, session)
        self.began = time.perf_counter()

    @classmethod
    def open(cls, config: Mapping[str, Any], session: Session) -> PruningTrial:
        """The trial of what Ray Tune hands over."""
        return cls(PruningPoint(config, session.context.settings), session)

    @cached_property
    def baseline(self) -> Baseline:
        """The trained, unpruned network, which stays as it is."""
        return baselines.baseline(self)

    @cached_property
    def dense(self) -> nn.Module:
        """The unpruned network that is scored and cut: the trained one, or the initial one where that is asked for."""
        return self.build_model() if self.point.is_untrained else self.baseline.model

    @cached_property
    def scores(self) -> Mapping[str, Tensor]:
        """The baseline's scores by the point's method."""
        return baselines.scores(self)

    @cached_property
    def sensitivities(self) -> Mapping[str, Sensitivity] | None:
        """What the baseline loses by cuts of single groups; None where the point does not ask for it."""
        return baselines.sensitivities(self) if self.point.needs_sensitivities else None
