"""The how-to about weights of one's own, run as it is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.howtos import follow


@pytest.mark.slow
@pytest.mark.ray
def test_given_weights(tmp_path: Path, local_ray: str) -> None:
    printed, (row,) = follow("weights", tmp_path, local_ray)
    found = re.search(r"^accuracy on val: (\S+)$", printed, re.MULTILINE)
    assert found is not None
    assert float(row["baseline_val_accuracy"]) == float(found[1]) > 0.5  # the script's own number, to the digit
    assert "resnet18 with my.pt" in printed
    assert re.search(rf"^imagenet +{100 * float(found[1]):.1f} % ", printed, re.MULTILINE)
    for bundle in ("small", "net"):
        about = json.loads((tmp_path / bundle / "preprocessing.json").read_text())
        assert (about["normalize"], about["mean"]) == ("imagenet", pytest.approx([0.485, 0.456, 0.406]))
    assert "normalize: imagenet, the best on the validation images" in printed
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    start = lines.index("before after lost and gained")
    assert lines[start + 1].startswith(f"Validation accuracy {100 * float(found[1]):.1f} %")
    for title in ("Test accuracy", "MACs", "Parameters", "Latency (ms)"):
        assert any(line.startswith(title) for line in lines[start:]), title
