"""The YAML of a study: its schema, its space, where it is found, and the user's code that it names."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.config.loading import load_study as load_study
    from rssearch.config.loading import parse_study as parse_study
    from rssearch.config.schema import Bound as Bound
    from rssearch.config.schema import Resources as Resources
    from rssearch.config.schema import Search as Search
    from rssearch.config.schema import StudyConfig as StudyConfig
    from rssearch.config.settings import Augment as Augment
    from rssearch.config.settings import ChannelSearch as ChannelSearch
    from rssearch.config.settings import Patches as Patches
    from rssearch.config.settings import Recipe as Recipe
    from rssearch.config.settings import Settings as Settings
    from rssearch.config.settings import Split as Split

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
    "Augment": "settings",
    "Bound": "schema",
    "ChannelSearch": "settings",
    "Patches": "settings",
    "Recipe": "settings",
    "Resources": "schema",
    "Search": "schema",
    "Settings": "settings",
    "Split": "settings",
    "StudyConfig": "schema",
    "load_study": "loading",
    "parse_study": "loading",
}
__getattr__ = exports(__name__, _MODULES)
