"""Commands that see file systems of their own."""

from __future__ import annotations

import os


def private_mounts(mounts: dict[str, str], *command: str) -> list[str]:
    """The command line that runs a command where empty tmpfs file systems hide these folders, from nobody else.

    Args:
        mounts: the size of each, such as ``64k``, by its folder.
        command: what to run.
    """
    steps = [f"mount -t tmpfs -o size={size} none '{folder}'" for folder, size in mounts.items()]
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *root, "sh", "-ec", "\n".join([*steps, 'exec "$@"']), "sh", *command]
