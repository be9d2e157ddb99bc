"""Contract suites: what a user-defined network, method, dataset or trial must keep to.

They are what rssearch's own parts are tested by. A test of your own part is three lines of pytest::

    from rssearch.testing import check_network

    def test_my_network():
        check_network("mymodels:tiny")

A suite runs every clause and raises one AssertionError that names those which do not hold. The clauses of each suite
are listed as `NETWORK_CLAUSES` and so on, for tests that want one result for each.
"""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.testing.clauses import ContractError as ContractError
    from rssearch.testing.datasets import IMAGE_CLAUSES as IMAGE_CLAUSES
    from rssearch.testing.datasets import SCENE_CLAUSES as SCENE_CLAUSES
    from rssearch.testing.datasets import check_dataset as check_dataset
    from rssearch.testing.methods import METHOD_CLAUSES as METHOD_CLAUSES
    from rssearch.testing.methods import check_method as check_method
    from rssearch.testing.networks import NETWORK_CLAUSES as NETWORK_CLAUSES
    from rssearch.testing.networks import check_network as check_network
    from rssearch.testing.trials import TRIAL_CLAUSES as TRIAL_CLAUSES
    from rssearch.testing.trials import check_trial as check_trial

__all__ = [
    "IMAGE_CLAUSES",
    "METHOD_CLAUSES",
    "NETWORK_CLAUSES",
    "SCENE_CLAUSES",
    "TRIAL_CLAUSES",
    "ContractError",
    "check_dataset",
    "check_method",
    "check_network",
    "check_trial",
]

_MODULES = {
    "IMAGE_CLAUSES": "datasets",
    "METHOD_CLAUSES": "methods",
    "NETWORK_CLAUSES": "networks",
    "SCENE_CLAUSES": "datasets",
    "TRIAL_CLAUSES": "trials",
    "ContractError": "clauses",
    "check_dataset": "datasets",
    "check_method": "methods",
    "check_network": "networks",
    "check_trial": "trials",
}
__getattr__ = exports(__name__, _MODULES)
