"""How images are divided into train, val and test: the section ``settings.split`` of the YAML."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from rssearch.config.scalars import Integer
from rssearch.config.section import Section, Share, or_a_name
from rssearch.errors import shown

__all__ = ["SPLITS", "Split", "block_metres"]

SPLITS: dict[str, dict[str, float]] = {
    # The published splits know no validation set: a tenth of the training share is held out for selection.
    name: {"train": share * 0.9, "val": share * 0.1, "test": 1 - share}
    for name, share in {"80/20": 0.8, "70/30": 0.7, "20/80": 0.2, "10/90": 0.1}.items()
}
_BLOCK = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(k?m)")


def block_metres(size: str) -> float:
    """The side of a spatial block in metres, from a text such as ``10km``. Raises ValueError for another text."""
    match = _BLOCK.fullmatch(size)
    metres = float(match[1]) * (1000 if match[2] == "km" else 1) if match else 0.0
    if metres <= 0:
        raise ValueError(f"{shown(size)} is no length above 0 in km or m, such as 10km or 500m")
    return metres


class Split(Section):
    """Shares of the images, stratified by class. In the YAML also one of the published splits, such as ``80/20``."""

    model_config = ConfigDict(json_schema_extra=or_a_name(SPLITS))

    train: Share = Field(0.7, description="share of the images that networks are trained on; above 0")
    val: Share = Field(
        0.1, description="share of the images that trials are compared on: objectives and fronts; above 0"
    )
    test: Share = Field(
        0.2, description="share of the images that are read once, for the front's members; train + val + test is 1"
    )
    seed: Integer = Field(0, ge=0, description="random seed of the division; the published test set of a dataset stays")
    file: str | None = Field(
        None,
        min_length=1,
        description="a table of path and split (and label), such as the split.csv of a study: its division is "
        "repeated; relative to the working directory",
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="a regular expression with one group, searched in each image's name: images with the same text "
        "there are of one place, which is in one split",
    )
    by: Literal["block"] | None = Field(
        None, description="block: images of one square of the ground are in one split; needs georeferenced files"
    )
    size: str | None = Field(None, description="by: block; side of these squares, in km or m, such as 10km")
    sha256: dict[str, str] = Field(
        default_factory=dict,
        description="of what split files say, by their names as they stand in file; filled in when a study starts, and "
        "compared with the file where it is given",
    )

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not set: keys of studies hold what they held before these settings existed."""
        found: dict[str, Any] = dump(self)
        return {name: value for name, value in found.items() if name not in _LATER_SPLIT or value}

    @model_validator(mode="before")
    @classmethod
    def _published(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in SPLITS:
                raise ValueError(f"no published split is called {shown(value)}; known: {', '.join(SPLITS)}")
            return SPLITS[value]
        return value

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, not {total:g}")
        if self.train <= 0 or self.val <= 0:
            raise ValueError("train and val must be above 0: networks are trained on one and selected on the other")
        return self

    @model_validator(mode="after")
    def _one_rule(self) -> Split:
        rules = [name for name in ("file", "group", "by") if getattr(self, name) is not None]
        if len(rules) > 1:
            raise ValueError(f"{' and '.join(rules)} are different divisions; give one of them")
        if (self.by is None) != (self.size is None):
            raise ValueError("by: block and size go together, such as {by: block, size: 10km}")
        if self.size is not None:
            try:
                block_metres(self.size)
            except ValueError as error:
                raise ValueError(f"size: {error}") from None
        if self.group is not None:
            try:
                brackets = re.compile(self.group).groups
            except re.error as error:
                raise ValueError(f"group: {shown(self.group)} is no regular expression: {error}") from None
            if brackets != 1:
                raise ValueError(
                    f"group: {shown(self.group)} has {brackets} groups in brackets; it must have one, which is the "
                    "place, such as (tile\\d+)_; (?:...) is none"
                )
        return self


_LATER_SPLIT = frozenset({"file", "group", "by", "size", "sha256"})
