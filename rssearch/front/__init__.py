"""Which trials are best: Pareto fronts, hypervolumes, knees, several seeds, constraints."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.front.pareto import Direction as Direction
    from rssearch.front.pareto import chance as chance
    from rssearch.front.pareto import hypervolume as hypervolume
    from rssearch.front.pareto import knee as knee
    from rssearch.front.pareto import layers as layers
    from rssearch.front.pareto import non_dominated as non_dominated
    from rssearch.front.pareto import reference_point as reference_point
    from rssearch.front.trials import Front as Front
    from rssearch.front.trials import front_rows as front_rows
    from rssearch.front.trials import fronts as fronts

__all__ = [
    "Direction",
    "Front",
    "chance",
    "front_rows",
    "fronts",
    "hypervolume",
    "knee",
    "layers",
    "non_dominated",
    "reference_point",
]

_MODULES = {
    "Direction": "pareto",
    "Front": "trials",
    "chance": "pareto",
    "front_rows": "trials",
    "fronts": "trials",
    "hypervolume": "pareto",
    "knee": "pareto",
    "layers": "pareto",
    "non_dominated": "pareto",
    "reference_point": "pareto",
}
__getattr__ = exports(__name__, _MODULES)
