"""The YAML of a first study on a user's own images: `rssearch init`."""

from __future__ import annotations

import re
import shlex
from statistics import median_low

from rssearch.config import plain_yaml
from rssearch.config.loading import parse_study
from rssearch.config.reference import SCHEMA_FILE
from rssearch.data.survey import Survey
from rssearch.imaging.contents import shown

__all__ = ["describe", "name_of", "notes", "study_text"]

_SHOWN = 10  # classes that a comment names

_TEXT = """\
# yaml-language-server: $schema={schema}
# {about}
#
# A first study with a small budget: two pruning methods at three pruning ratios. `rssearch plan` on this file prints
# what it would cost, and all other keys with their defaults; `rssearch search` runs it, or resumes it.
study: {study}
trial: trials.prune:run             # prune a trained baseline, fine-tune it, measure it
space:                              # every combination of these values is a trial
  dataset:
    - {dataset}
  model: [{model}]{model_comment}
  method: [l1, lfp]                 # `rssearch methods` lists all
  rate: [0.3, 0.5, 0.7]             # share of the filters to remove; or macs_ratio: [0.5], of the MACs to keep
  # seed: [0, 1, 2]                 # each combination once for each seed: results are means with their spread
settings:
{settings}
search:
  sampler: grid                     # or tpe, nsga2, ... with trials: 40; `rssearch samplers` lists all
  objectives: {{{quality}: max, macs: min}}
  # constraints: {{macs_ratio: {{max: 0.6}}}}   # a trial that breaks one is refused before it is trained
data_root: {root}
"""

_SPLIT = """\
  split: {{train: 0.7, val: 0.1, test: 0.2}}   # {split}
  augment: {{hflip: true, vflip: true, rotate90: true}}   # false where images have an up and a down
"""

_IMAGES = """\
  input_size: {size}                    # height and width that images are scaled to; larger is slower, often better
  train: {{epochs: {epochs}, batch_size: {batch}, lr: {lr:g}, warmup_epochs: 1}}   # of the baseline, before pruning
  finetune: {{epochs: {tuning}, batch_size: {batch}, lr: {tuning_lr:g}, recalibrate_batches: 10}}"""

_SCENES = """\
  patches: {{size: {size}, overlap: 0}}   # windows of the scenes, which are never scaled
  model: {{networks: {{unet: {{base: 16}}}}}}   # a narrow network; the published one has base: 64
  train: {{epochs: {epochs}, batch_size: 8, optimizer: adamw, lr: 2e-3, weight_decay: 1e-4, warmup_epochs: 1}}
  finetune: {{epochs: {tuning}, batch_size: 8, optimizer: adamw, lr: 5e-4, recalibrate_batches: 10}}"""


def name_of(found: Survey) -> str:
    """The name of the study: that of the folder, with what a name may hold."""
    stem = re.sub(r"\.zip$", "", found.name.partition(":")[2], flags=re.IGNORECASE)
    return f"{re.sub(r'[^A-Za-z0-9_]+', '-', stem).strip('-')[:80] or 'my'}-methods"


def describe(found: Survey) -> str:
    """What the folder holds, in one line."""
    kind = "scenes" if found.task == "segmentation" else "images"
    counts = [f" ({count})" for count in found.counts] or [""] * len(found.classes)
    names = [f"{shown(label)}{count}" for label, count in zip(found.classes, counts, strict=True)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    sizes = ", ".join(f"{width}x{height}" for (height, width), _ in found.sizes.most_common(3))
    of_sizes = f" and {len(found.sizes) - 3} other sizes" if len(found.sizes) > 3 else ""
    listed = f"{len(names)} classes: {', '.join(names[:_SHOWN])}{more}"
    return f"{found.images} {kind} of {sizes}{of_sizes} pixels in {listed}"


def notes(found: Survey) -> list[str]:
    """What its owner should know of the folder: a sentence each."""
    if not found.unreadable:
        return list(found.notes)
    named = ", ".join(found.unreadable[:3]) + (", ..." if len(found.unreadable) > 3 else "")
    how = f"rssearch data verify {shlex.quote(found.name)} --data-root {shlex.quote(str(found.root))}"
    return [
        *found.notes,
        f"{len(found.unreadable)} of {found.looked_at} images looked at cannot be read ({named}), which would end the "
        f"study: `{how}` says why, `on_error: skip` among the settings leaves them out",
    ]


def study_text(found: Survey) -> str:
    """The YAML, with comments. It is read back as `plan` would read it, so that what is written is a study."""
    scenes = found.task == "segmentation"
    text = _TEXT.format(
        schema=SCHEMA_FILE.as_uri(),
        about=describe(found),
        study=name_of(found),
        dataset=_scalar(found.name),
        root=_scalar(str(found.root)),
        model="unet" if scenes else "resnet20",
        model_comment="                     # or [unet, micronet]"
        if scenes
        else "                 # `rssearch models` lists all",
        settings=_SPLIT.format(split=_division(found)) + (_for_scenes(found) if scenes else _for_images(found)),
        quality="val_miou" if scenes else "val_accuracy",
    )
    parse_study(plain_yaml.load(text), name_of(found))
    return text


def _division(found: Survey) -> str:
    return "the folder's own division is kept" if found.divided else "shares of the images"


def _for_images(found: Survey) -> str:
    shorter = median_low(min(size) for size in found.sizes.elements())
    large = found.train >= 5000
    size = max(8, min(32 if large else 64, shorter // 8 * 8))
    batch = 128 if large else 32
    epochs = max(4, min(30, int(40_000 * (64 / size) ** 2) // found.train))  # of a baseline, minutes on two cores
    return _IMAGES.format(
        size=size,
        epochs=epochs,
        tuning=max(1, epochs // 4),
        batch=batch,
        lr=0.1 * batch / 128,
        tuning_lr=0.02 * batch / 128,
    )


def _for_scenes(found: Survey) -> str:
    shorter = median_low(min(size) for size in found.sizes.elements())
    size = next((size for size in (128, 64) if size <= shorter), 32)
    epochs = max(4, min(30, 4_000 * size**2 // max(found.train, 1)))
    return _SCENES.format(size=size, epochs=epochs, tuning=max(1, epochs // 4))


def _scalar(text: str) -> str:
    """A text as one line of YAML that means it."""
    return plain_yaml.dump([text], width=2**31).removeprefix("- ").removesuffix("\n")
