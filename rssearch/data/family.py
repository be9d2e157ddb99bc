"""The small interface that every dataset family ends in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rssearch.data.listing import Listing, from_files, locate
from rssearch.data.scenes import SceneListing

Task = Literal["classification", "segmentation", "multilabel"]


@dataclass(frozen=True)
class Family:
    """A dataset that is known by name.

    Attributes:
        name: as in ``dataset: [name]``.
        summary: one line for people.
        source: paper or origin.
        folders: usual names of its folder or zip below a data root, in lower case.
        expected: images of each class (scenes of each group) in the full set, where it is published with fixed numbers.
        stem: file name, without its ending, of the n-th image of a class (scene of a group) in the full set.
        open: finds the dataset at a data root; None: by `folders` and the names of the classes.
        fetch: downloads it into a data root, with checksums; None: there is nothing to download.
        by_hand: how to get it where it cannot be downloaded by a program.
        licence: what is known of the licence of its images, as a sentence.
        task: what its targets are: a class for each image, several, or a mask.
    """

    name: str
    summary: str
    source: str
    folders: tuple[str, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)
    stem: Callable[[str, int], str] | None = None
    open: Callable[[Path], Listing | SceneListing] | None = None
    fetch: Callable[[Path], None] | None = None
    by_hand: str = ""
    licence: str = ""
    task: Task = "classification"

    def listing(self, root: Path, name: str) -> Listing | SceneListing:
        """Find the dataset. Raises InputError with the places looked at."""
        if self.open is not None:
            return self.open(root)
        hint = f"Get it with `rssearch data fetch {self.name}`, or name the folder it lies in as the data root."
        return locate(name, root, self.folders, self.expected, hint, from_files)
