"""The only door to Ray: connect to it, run jobs on Ray Tune, several workers of a trial, shares of a GPU, retries.

Ray reads its settings when it is imported, so they are made here, before any module of this package imports it.
"""

import os
from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.backend.tune import connected as connected
    from rssearch.backend.tune import run_jobs as run_jobs

__all__ = ["connected", "run_jobs"]

_MODULES = {"connected": "tune", "run_jobs": "tune"}
__getattr__ = exports(__name__, _MODULES)

# Before Ray is imported. Nothing calls home; the user's own settings win.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
)  # Ray's next default: leaves CUDA_VISIBLE_DEVICES alone
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean the same in a trial
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # MLflow and our own files are the record
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C reaches us, and we end cleanly
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")  # nothing is resumed from Tune's own snapshots
