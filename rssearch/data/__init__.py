"""Datasets: found by name, decoded once to uint8, divided by class, and read in batches on the device."""

from rssearch.data.imageset import ImageDataset, ImageSet
from rssearch.data.registry import create, fetch, fingerprint, list_datasets, load, summary
from rssearch.data.verify import Report, verify

__all__ = [
    "ImageDataset",
    "ImageSet",
    "Report",
    "create",
    "fetch",
    "fingerprint",
    "list_datasets",
    "load",
    "summary",
    "verify",
]
