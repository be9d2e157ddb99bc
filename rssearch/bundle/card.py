"""The model card: what a network is, reaches and costs, and how to use it. What was not measured is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rssearch.bundle import usage
from rssearch.bundle.files import INT8, ONNX
from rssearch.data.registry import ALIASES, FAMILIES, prefix_of
from rssearch.escaping import markdown, markdown_code
from rssearch.front import gains
from rssearch.metrics import DIFFERENCE, human, title_of
from rssearch.models import is_own
from rssearch.report.cells import DISTURBED, FOOTNOTE, cell, latencies, notes, speedup_of
from rssearch.report.recorded import Recorded
from rssearch.storage.location import Location

Z = 1.959963984540054  # the normal distribution's quantile of 0.975: intervals of 95 %

_CARD = """\
# {model}, {cut}

{purpose}, found by the study `{study}` (trial `{key}`) with rssearch.

{results}

{measured}

* **Data:** {dataset}. The network was chosen on the validation images; the test images were read once, for the trials
  on the front and for the networks that they were pruned from.
* **Licence of the data:** {licence}
* **Split:** {split}{notes}
* **Classes:** {classes}
* **Images are normalised by:** {normalize}, as `preprocessing.json` has it in numbers.
* **MACs:** multiply-accumulate operations of one image of {size}, counted by {counter}.
* **Made with:** {versions}

## The ONNX {models}

{onnx}

## Use

Without torch, from the command line or from Python, with `pip install {packages}` and rssearch without
its dependencies (`pip install --no-deps PATH/OF/RSSEARCH`):

```sh
python -m rssearch.bundle PATH/OF/THIS/FOLDER {image}
```

```python
from rssearch.bundle import predict

network = predict.open_network("PATH/OF/THIS/FOLDER")  # checks its files against manifest.json
{predict}
```

{alone}

{torch}

```python
import json
from pathlib import Path

import torch

{imports}

folder = Path("PATH/OF/THIS/FOLDER")
model = bundle.load(folder{trust})  # checks every file against manifest.json
about = json.loads((folder / "preprocessing.json").read_text())

{use}
```
"""


def card(found: Recorded, row: Mapping[str, Any], about: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Write the model card.

    Args:
        found: the study.
        row: the trial.
        about: what was kept with its weights.
        measured: the content of ``measured.json``.

    Returns:
        Markdown.
    """
    row = gains.compared(row)
    remarks = notes([row])
    asked = [
        f"{title_of(n).lower()} {row[n]}" for n in ("rate", "allocation", "round_to", "seed") if row.get(n) is not None
    ]
    if row.get("requested_macs_ratio") is not None:
        asked.insert(0, f"to {100 * row['requested_macs_ratio']:.3g} % of the MACs")
    height, width = about["input_shape"][1:]
    size = f"{height} x {width}"
    return _CARD.format(
        model=markdown(about["model"]),
        cut=markdown(", ".join([f"pruned by {row.get('method', 'a trial of its own')}", *asked])),
        trust=", allow_imports=True" if is_own(about["model"]) else "",
        **usage.texts(about),
        size=size,
        study=found.study,
        key=row["key"],
        results=_results(row, measured),
        measured="\n\n".join([_latency(row), *([f"{'. '.join(remarks)}."] if remarks else [])]),
        dataset=markdown_code(str(row.get("dataset", "unknown"))),
        licence=_licence(row.get("dataset")),
        split=markdown_code(str(row["split_hash"])) if row.get("split_hash") else "unknown",
        notes="".join(f"\n* **Note on the data:** {markdown(note)}" for note in _notes(found.folder, row)),
        classes=", ".join(map(markdown, about["classes"])),
        normalize=markdown(str(about.get("normalize", "dataset"))),
        counter=markdown(str(row.get("macs_counter", "an unknown counter"))),
        versions=markdown(_versions(found.folder)),
        models="models" if "calibration_images" in measured else "model",
        onnx="\n".join(_onnx(measured)),
    )


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a binomial proportion (Wilson 1927, JASA 22).

    Args:
        share: of successes.
        count: of trials, at least 1.
    """
    middle, scale = share + Z**2 / (2 * count), 1 + Z**2 / count
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return (middle - half) / scale, (middle + half) / scale


def _results(row: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The table of qualities and costs; beside those before pruning, and the differences, where there is a baseline."""
    before = next(iter(gains.baselines([row])), None)
    heads = ["", "this network", *(("before pruning", "difference") if before else ())]
    lines = [f"| {' | '.join(heads)} |".replace("|  |", "| |"), "|---" * len(heads) + "|"]
    for name in _measures(row):
        beside = (cell(before, name), _difference(row, name)) if before else ()
        lines.append(f"| {' | '.join([title_of(name), _value(row, name, measured), *beside])} |")
    return "\n".join(lines)


def _measures(row: Mapping[str, Any]) -> list[str]:
    qualities = (
        f"{split}_{quality}"
        for split in ("val", "test")
        for quality in ("accuracy", "miou", "pixel_accuracy", "map", "micro_f1")
    )
    named = (*qualities, "macs", "params", "bytes", *latencies([row]))
    return [name for name in named if row.get(name) is not None]


def _value(row: Mapping[str, Any], name: str, measured: Mapping[str, Any]) -> str:
    split, _, quality = name.partition("_")
    count = row.get(f"{split}_images", measured["images"] if measured.get("split") == split else None)
    # The pixels of a scene are no independent trials: accuracy alone has an interval.
    among = f" ({_interval(row[name], count)})" if count and quality == "accuracy" else ""
    return cell(row, name) + among


def _difference(row: Mapping[str, Any], name: str) -> str:
    """Points of a quality, the share of a cost that is left, the speed-up of a latency."""
    if name.startswith("latency"):
        return cell(row, speedup_of(name))
    if row.get(name + DIFFERENCE) is not None:
        return f"{cell(row, name + DIFFERENCE)} points"
    left = row.get(f"{name}_ratio")
    return f"{human(f'{name}_ratio', left)} left" if left is not None else ""


def _interval(share: float, count: int) -> str:
    low, high = wilson(share, count)
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f} %, {count:,} images"


def _latency(row: Mapping[str, Any]) -> str:
    if row.get("latency_ms") is None:
        return "Its latency was not measured."
    late = f", 95th percentile {row['latency_p95_ms']:.3g} ms" if row.get("latency_p95_ms") is not None else ""
    return (
        f"Latency of one image: median {row['latency_ms']:.3g} ms, interquartile range {row['latency_iqr_ms']:.2g} ms"
        f"{late}, on {markdown(str(row['latency_device']))}, CPU threads: {row['latency_threads']}."
    )


def _onnx(measured: Mapping[str, Any]) -> list[str]:
    """What the ONNX models are, and what was measured of them."""
    parity = measured["parity"]
    lines = [
        f"`{ONNX}` (opset {measured['opset']}, a batch of any size) gives the network's logits within "
        f"{parity['largest_difference']:.2g} (the largest is {parity['largest_logit']:.3g}), by onnxruntime on "
        f"{parity['images']} {markdown(parity['source'])}."
    ]
    for name, found in measured.get("models", {}).items():
        lines.append(f"`{name}` gives the network's {found['output']} within {found['bound']:.2g}: {_runtimes(found)}.")
    if "calibration_images" in measured:
        lines.append(
            f"`{INT8}` has weights and activations of 8 bits (static, QDQ, a scale for each channel of the weights), "
            f"calibrated on {measured['calibration_images']} images of the training split."
        )
    if "quality" not in measured:
        return [*lines, "Neither its quality on the study's images nor its latency was measured at the export."]
    split = {"test": "test", "val": "validation"}[measured["split"]]
    lines += ["", f"On the {measured['images']:,} {split} {measured['unit']} of the study:", ""]
    names = list(measured["quality"][ONNX])
    lines += [f"| | {' | '.join(map(title_of, names))} |", "|---" * (1 + len(names)) + "|"]
    for model, found in measured["quality"].items():
        title = (
            f"recorded by the study, in {measured.get('recorded_in', 'torch')}" if model == "recorded" else f"`{model}`"
        )
        lines.append(f"| {title} | {' | '.join(_exact(n, found[n], measured['images']) for n in names)} |")
    latency = measured["latency"]
    lines += [
        "",
        f"Milliseconds for one image on {markdown(latency['device'])}, CPU threads: {latency['threads']}, "
        f"{latency['passes']} passes, measured at the export:",
        "",
        "| | median | interquartile range | 95th percentile |",
        "|---|---|---|---|",
    ]
    marks = []
    for model, times in latency.items():
        if isinstance(times, dict):
            title = model if model == "torch" else f"`{model}`"
            noisy = gains.is_disturbed(
                {"latency_ms": times["median_ms"], "latency_iqr_ms": times["iqr_ms"]}, "latency_ms"
            )
            marks.append(DISTURBED if noisy else "")
            spread = f"{times['iqr_ms']:.2g}{marks[-1]}"
            lines.append(f"| {title} | {times['median_ms']:.3g} | {spread} | {times['p95_ms']:.3g} |")
    return [*lines, *(["", f"{FOOTNOTE}."] if any(marks) else [])]


def _runtimes(found: Mapping[str, Any]) -> str:
    """By how much the outputs of an ONNX model differ from the network's, in each runtime."""
    return ", ".join(
        f"{runtime} {markdown(value) if isinstance(value, str) else f'{value:.2g}'}"
        for runtime, value in found["largest_difference"].items()
    )


def _exact(name: str, value: float | None, count: int) -> str:
    if value is None:
        return ""
    if name != "accuracy":
        return f"{100 * value:.2f} %"
    low, high = wilson(value, count)
    return f"{100 * value:.2f} % ({100 * low:.1f} to {100 * high:.1f})"


def _licence(dataset: str | None) -> str:
    if dataset is None:
        return "unknown, as is the dataset."
    if prefix_of(dataset):
        return "that of your own images."
    family = FAMILIES.get(ALIASES.get(dataset, dataset))
    return (family.licence if family else "") or "not known to rssearch; ask the publisher."


def _notes(folder: Location, row: Mapping[str, Any]) -> list[str]:
    """What the study's record says of the trial's images: files left out, images in two splits."""
    named = {name: row.get(name) for name in ("dataset", "split_hash")}
    data = _environment(folder).get("data", [])
    same = [entry for entry in data if {"dataset": entry["name"], "split_hash": entry["split_hash"]} == named]
    return list(dict.fromkeys(note for entry in same for note in entry["notes"]))


def _environment(folder: Location) -> dict[str, Any]:
    path = folder / "environment.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _versions(folder: Location) -> str:
    """The versions that the study ran on, as its environment.json says."""
    known = _environment(folder)
    versions = {"python": known.get("python"), **known.get("versions", {})}
    made = ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "unknown versions"
    here = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "onnx", "onnxruntime"))
    return f"{made}; exported with {here}"


def summary(folder: Path) -> list[str]:
    """What was measured of a bundle, in a few lines for people."""
    from rssearch.bundle.files import MEASURED, read

    measured = json.loads(read(folder, (MEASURED,))[MEASURED])
    parity = measured["parity"]
    within = f"{parity['largest_difference']:.2g}"
    lines = [f"{ONNX}: the network's logits within {within}, on {parity['images']} {parity['source']}"]
    for name, found in measured.get("models", {}).items():
        lines.append(f"{name}: the network's {found['output']} within {found['bound']:.2g}: {_runtimes(found)}")
    for model, found in measured.get("quality", {}).items():
        values = ", ".join(f"{title_of(n).lower()} {v:.6f}" for n, v in found.items() if v is not None)
        lines.append(f"{model}: {measured['split']} {values} ({measured['images']:,} {measured['unit']})")
    return lines
