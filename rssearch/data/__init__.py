"""Datasets: found by name, decoded once to uint8, divided by class or group, and read in batches on the device."""

from rssearch.data.imageset import ImageDataset, ImageSet
from rssearch.data.masks import IGNORE
from rssearch.data.registry import create, fetch, fingerprint, list_datasets, load, summary, task, task_in
from rssearch.data.sceneset import AnyDataset, AnySet, PatchDataset, Scene, SceneSet
from rssearch.data.verify import Report, verify

__all__ = [
    "IGNORE",
    "AnyDataset",
    "AnySet",
    "ImageDataset",
    "ImageSet",
    "PatchDataset",
    "Report",
    "Scene",
    "SceneSet",
    "create",
    "fetch",
    "fingerprint",
    "list_datasets",
    "load",
    "summary",
    "task",
    "task_in",
    "verify",
]
