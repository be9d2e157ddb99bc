"""A deploy bundle: one trained, pruned network in a folder that needs neither the study nor its storage.

    architecture.json    the network's name, options and shapes, and the spec of the cut
    model.safetensors    the weights
    preprocessing.json   what turns an image into the network's input, and the names of its outputs
    model_card.md        where the network comes from, what it reaches and what it costs
    manifest.json        sha256 of each of them

Nothing in it is a pickle, and `load` checks every file before it uses it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from rssearch import models, pruning
from rssearch.errors import InputError
from rssearch.storage import Location, write_atomic
from rssearch.store import Files, Store
from rssearch.units import human, title_of

if TYPE_CHECKING:
    from rssearch.record import Recorded

FORMAT = "rssearch.bundle/1"  # the number grows when a reader of the old layout would misread the new one
ARCHITECTURE, WEIGHTS, PREPROCESSING, CARD, MANIFEST = (
    "architecture.json",
    "model.safetensors",
    "preprocessing.json",
    "model_card.md",
    "manifest.json",
)


def export(found: Recorded, row: Mapping[str, Any], out: Path) -> Path:
    """Write the network of a trial as a bundle. The folder appears whole or not at all.

    Args:
        found: the study.
        row: the trial, see `rssearch.record.choose`.
        out: the folder, which must be new or empty.

    Returns:
        The folder, absolute.

    Raises:
        InputError: the folder is in use, or the trial's weights are not in the store.
    """
    target = out.expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"--out {out}: is there already; a bundle needs a new or an empty folder")
    files = _contents(found, row)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for name, content in files.items():
            write_atomic(draft / name, content)
        load(draft)  # what cannot be read back is not handed out
        draft.chmod(0o755)  # mkdtemp makes it private
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def load(folder: str | Path) -> nn.Module:
    """Rebuild the network of a bundle on the CPU, in eval mode.

    Args:
        folder: a bundle, as `export` writes it.

    Returns:
        The network: float32 [B, C, H, W], normalised as ``preprocessing.json`` says, to logits [B, classes], or
        [B, classes, H, W] for segmentation.

    Raises:
        InputError: the folder is no bundle, or a file of it is missing or has been changed.
    """
    path = Path(folder).expanduser()
    files = _checked(path)
    try:
        about = json.loads(files[ARCHITECTURE])
        channels, size, _ = about["input_shape"]
        model = models.create(
            about["model"], about["num_classes"], in_channels=channels, input_size=size, **about["options"]
        )
        pruning.apply_spec(model, about["spec"])
        model.load_state_dict(load_tensors(files[WEIGHTS]))
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path}: the bundle does not describe a network of this version: {error}") from error
    return model.eval()


def _contents(found: Recorded, row: Mapping[str, Any]) -> Files:
    """All files of the bundle by name."""
    stored = Store(found.storage).get("models", row["key"])
    if stored is None:
        raise InputError(
            f"trial {row['key']}: its weights are not in {found.storage}/store. At its end a study keeps those of its "
            "front; with settings.keep_models: all, `rssearch search --fresh` trains the others again and keeps them"
        )
    about = json.loads(stored["about.json"])
    architecture = {
        "model": about["model"],
        # The trained weights that the baseline began with are not needed again, and nothing may be downloaded for them.
        "options": {name: value for name, value in about["options"].items() if name != "weights"},
        "num_classes": len(about["classes"]),
        "input_shape": about["input_shape"],
        "task": _task(about),
        "spec": json.loads(stored["spec.json"]),
    }
    preprocessing = {
        "input_shape": about["input_shape"],
        "channels": "RGB",
        **_geometry(about),
        "scale": "divide the 8-bit values by 255, subtract the mean, divide by the std",
        "mean": about["mean"],
        "std": about["std"],
        "classes": about["classes"],
    }
    files = {
        ARCHITECTURE: _json(architecture),
        WEIGHTS: stored["model.safetensors"],
        PREPROCESSING: _json(preprocessing),
        CARD: _card(found, row, about).encode(),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {**files, MANIFEST: _json({"format": FORMAT, "sha256": digests})}


def _task(about: Mapping[str, Any]) -> str:
    """What a stored network is for; stores of before segmentation do not say it."""
    return str(about.get("task", "classification"))


def _geometry(about: Mapping[str, Any]) -> dict[str, Any]:
    """How an image gets the size that the network takes."""
    if _task(about) == "segmentation":
        return {"resize": "never; a whole scene is predicted in tiles that overlap", "tiles": about["tiles"]}
    return {"resize": "the central square, scaled with an antialiased bilinear filter"}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _checked(folder: Path) -> Files:
    """The files of a bundle, each of them as it was written. What was read is what is used."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        digests = manifest["sha256"]
        if manifest["format"] != FORMAT:
            raise InputError(f"{folder}: the bundle has format {manifest['format']!r}; this version reads {FORMAT!r}")
        files = {name: (folder / name).read_bytes() for name in (ARCHITECTURE, WEIGHTS, PREPROCESSING, CARD)}
        changed = [name for name, content in files.items() if hashlib.sha256(content).hexdigest() != digests[name]]
    except OSError as error:
        raise InputError(f"{folder}: is no bundle, or not a whole one: {error.filename}: {error.strerror}") from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: {MANIFEST} is damaged ({type(error).__name__}: {error})") from None
    if changed:
        raise InputError(
            f"{folder}: {', '.join(changed)} changed after the export: the sha256 is not that of {MANIFEST}"
        )
    return files


_CARD = """\
# {model}, {cut}

{purpose}, found by the study `{study}` (trial `{key}`) with rssearch.

| | this network | before pruning |
|---|---|---|
{results}

{measured}

* **Data:** `{dataset}`. The network was chosen on the validation images; the test images were read once, for the trials
  on the front.
* **Split:** {split}
* **Classes:** {classes}
* **MACs:** multiply-accumulate operations of one image of {size}, counted by {counter}.
* **Made with:** {versions}

## Use

```python
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

{imports}

folder = Path("PATH/OF/THIS/FOLDER")
model = bundle.load(folder)  # checks every file against manifest.json
about = json.loads((folder / "preprocessing.json").read_text())

{use}
```
"""

_IMPORTS = {
    "classification": "from rssearch import bundle",
    "segmentation": "from rssearch import bundle\nfrom rssearch.segmentation import predict_scene",
}
_USE = {
    "classification": """\
channels, height, width = about["input_shape"]
image = Image.open("image.png").convert("RGB").resize((width, height), Image.Resampling.BILINEAR)  # of a square image
pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
with torch.inference_mode():
    probabilities = model(((pixels - mean) / std)[None]).softmax(1)[0]
print(about["classes"][int(probabilities.argmax())], float(probabilities.max()))""",
    "segmentation": """\
image = Image.open("image.png").convert("RGB")  # of any size, at the resolution of the training scenes
pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
labels = predict_scene(model, (pixels - mean) / std, **about["tiles"]).argmax(0)  # [height, width]
for index, name in enumerate(about["classes"]):
    print(name, float((labels == index).float().mean()))""",
}


def _card(found: Recorded, row: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The model card. What a trial did not measure is left out, never guessed."""
    asked = [
        f"{title_of(n).lower()} {row[n]}" for n in ("rate", "allocation", "round_to", "seed") if row.get(n) is not None
    ]
    lines = []
    qualities = [f"{split}_{name}" for name in ("accuracy", "miou", "pixel_accuracy") for split in ("val", "test")]
    for name in (*qualities, "macs", "params"):
        if row.get(name) is not None:
            before, share = row.get(f"baseline_{name}"), row.get(f"{name}_ratio")
            left = f" ({human(f'{name}_ratio', share)} left)" if share is not None else ""
            lines.append(f"| {title_of(name)} | {human(name, row[name])}{left} | {human(name, before)} |")
    measured = "Its latency was not measured."
    if row.get("latency_ms") is not None:
        measured = (
            f"Latency of one image: median {row['latency_ms']:.3g} ms, interquartile range "
            f"{row['latency_iqr_ms']:.2g} ms, on {row['latency_device']}, CPU threads: {row['latency_threads']}."
        )
    height, width = about["input_shape"][1:]
    size, count, task = f"{height} x {width}", len(about["classes"]), _task(about)
    purpose = {
        "classification": f"A classifier of {size} RGB images into {count} classes",
        "segmentation": f"A network that gives each pixel of an RGB scene one of {count} classes",
    }
    return _CARD.format(
        model=about["model"],
        cut=", ".join([f"pruned by {row.get('method', 'a trial of its own')}", *asked]),
        purpose=purpose[task],
        imports=_IMPORTS[task],
        use=_USE[task],
        size=size,
        study=found.study,
        key=row["key"],
        results="\n".join(lines),
        measured=measured,
        dataset=row.get("dataset", "unknown"),
        split=f"`{row['split_hash']}`" if row.get("split_hash") else "unknown",
        classes=", ".join(about["classes"]),
        counter=row.get("macs_counter", "an unknown counter"),
        versions=_versions(found.folder),
    )


def _versions(folder: Location) -> str:
    """The versions that the study ran on, as its environment.json says."""
    path = folder / "environment.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    versions = {"python": known.get("python"), **known.get("versions", {})}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "unknown versions"
