"""What the page shows of a study beside its trials: from the study's folder, and from the store next to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from rssearch.report.members import PICTURE
from rssearch.storage import uris
from rssearch.storage.artifacts import Store
from rssearch.storage.location import Location, names
from rssearch.trial.interface import MEMBERS, PREDICTIONS

DOCUMENTS = ("study.yaml", "environment.json")
Channels = Mapping[str, tuple[int, int]]  # layer -> channels that are left, channels of the whole network


@dataclass(frozen=True)
class StudyFiles:
    """What was found.

    Attributes:
        pictures: trial's key -> picture of what it predicts.
        channels: trial's key -> its layers, of those whose networks are in the store; None without a folder.
        documents: name -> text.
        confusions: key of a member or of a baseline -> picture of its confusion matrix.
    """

    pictures: Mapping[str, Location] = field(default_factory=dict)
    channels: Mapping[str, Channels] | None = None
    documents: Mapping[str, str] = field(default_factory=dict)
    confusions: Mapping[str, Location] = field(default_factory=dict)


def study_files(folder: Location | None, keys: Iterable[str]) -> StudyFiles:
    """Look for pictures, channels and documents.

    Args:
        folder: the study's, ``<storage>/<study>``; None: nothing is looked for.
        keys: of the trials whose channels are wanted.
    """
    if folder is None:
        return StudyFiles()
    store = Store(folder.parent)
    specs = {key: files["spec.json"] for key in keys if (files := store.get("models", key, names=["spec.json"]))}
    channels = {key: kept_channels(json.loads(spec)) for key, spec in specs.items()}
    paths = {name: folder / name for name in DOCUMENTS}
    return StudyFiles(
        pictures={n.removesuffix(".png"): folder / PREDICTIONS / n for n in names(folder / PREDICTIONS)},
        channels={key: layers for key, layers in channels.items() if layers},
        confusions={path.parent.name: path for path in (folder / MEMBERS).glob(f"*/{PICTURE}")},
        documents={name: _without_secrets(path.read_text()) for name, path in paths.items() if path.is_file()},
    )


def kept_channels(spec: Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]]) -> dict[str, tuple[int, int]]:
    """The outputs of each layer that a spec cuts, see `rssearch.pruning.make_spec`: (left, whole), in its order."""
    return {
        layer: (len(sides["out"]), sides["width"]["out"]) for layer, sides in spec["layers"].items() if "out" in sides
    }


def _without_secrets(text: str) -> str:
    """A document of an earlier release may have some; a page is handed on more easily than a team's YAML."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return uris.hidden(text)
    shown = uris.hidden_in(document)
    return text if shown == document else yaml.safe_dump(shown, sort_keys=False)
