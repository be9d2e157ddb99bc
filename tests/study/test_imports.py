"""What a driver imports: a study whose trial needs neither torch nor MLflow does not wait for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from rssearch import search
study = {"study": "plain", "trial": "tests.support.toy:plain", "space": {"rate": [0.5]}, "storage": sys.argv[1],
         "search": {"objectives": {"val_accuracy": "max", "macs": "min"}}}
from rssearch.config.loading import parse_study
assert search(parse_study(study)) == 0
print([name for name in ("torch", "mlflow", "torchvision") if name in sys.modules])
"""


@pytest.mark.ray
def test_a_driver_imports_neither_torch_nor_mlflow(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
