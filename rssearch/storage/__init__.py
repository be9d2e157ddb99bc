"""Bytes that survive: places on disks and in object stores, artifacts, locks, the journal."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.storage.artifacts import Store as Store
    from rssearch.storage.journal import Journal as Journal
    from rssearch.storage.location import Location as Location
    from rssearch.storage.location import locate as locate
    from rssearch.storage.location import write_atomic as write_atomic

__all__ = ["Journal", "Location", "Store", "locate", "write_atomic"]

_MODULES = {
    "Journal": "journal",
    "Location": "location",
    "Store": "artifacts",
    "locate": "location",
    "write_atomic": "location",
}
__getattr__ = exports(__name__, _MODULES)
