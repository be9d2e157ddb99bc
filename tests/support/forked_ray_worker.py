"""A worker of Ray in a process that `tests.support.forked` has forked."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from rssearch.backend.local_ray import _read_again
from tests.support import forked


def main() -> None:
    _read_again()  # what Ray's own code has read of the environment before the fork
    script, *_ = sys.argv[1:]
    # As a Python that is started with the script has them: Ray adds the folders of the driver.
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    others = [path for path in sys.path if path not in (str(forked.PROJECT), *given)]
    sys.path[:] = [str(Path(script).parent), *given, *others]
    sys.argv = sys.argv[1:]
    runpy.run_path(script, run_name="__main__")
