"""What a study leaves for people: tables, plots, the page, comparisons."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.report.files import format_front as format_front
    from rssearch.report.files import write_front as write_front
    from rssearch.report.recorded import Recorded as Recorded
    from rssearch.report.recorded import choose as choose
    from rssearch.report.recorded import read as read

__all__ = ["Recorded", "choose", "format_front", "read", "write_front"]

_MODULES = {
    "Recorded": "recorded",
    "choose": "recorded",
    "format_front": "files",
    "read": "recorded",
    "write_front": "files",
}
__getattr__ = exports(__name__, _MODULES)
