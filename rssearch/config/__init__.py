"""The YAML of a study: its schema, its space, where it is found, and the user's code that it names."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.config.loading import load_study as load_study
    from rssearch.config.loading import parse_study as parse_study
    from rssearch.config.schema import Augment as Augment
    from rssearch.config.schema import Bound as Bound
    from rssearch.config.schema import ChannelSearch as ChannelSearch
    from rssearch.config.schema import Patches as Patches
    from rssearch.config.schema import Recipe as Recipe
    from rssearch.config.schema import Resources as Resources
    from rssearch.config.schema import Search as Search
    from rssearch.config.schema import Settings as Settings
    from rssearch.config.schema import Split as Split
    from rssearch.config.schema import StudyConfig as StudyConfig

__all__ = [
    "Augment",
    "Bound",
    "ChannelSearch",
    "Patches",
    "Recipe",
    "Resources",
    "Search",
    "Settings",
    "Split",
    "StudyConfig",
    "load_study",
    "parse_study",
]

_MODULES = {
    "Augment": "schema",
    "Bound": "schema",
    "ChannelSearch": "schema",
    "Patches": "schema",
    "Recipe": "schema",
    "Resources": "schema",
    "Search": "schema",
    "Settings": "schema",
    "Split": "schema",
    "StudyConfig": "schema",
    "load_study": "loading",
    "parse_study": "loading",
}
__getattr__ = exports(__name__, _MODULES)
