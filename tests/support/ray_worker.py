"""A worker of Ray, as a raylet starts it: the process is forked, see `tests.support.forked`, and this one waits for it.

It stands for Ray's ``setup_worker.py`` and imports nothing that takes time. What asks for more than variables of the
environment, such as another Python, gets Ray's own.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="


def main() -> int:
    arguments = [each for each in sys.argv[1:] if not each.startswith((CONTEXT, LANGUAGE))]
    contexts = [each.removeprefix(CONTEXT) for each in sys.argv[1:] if each.startswith(CONTEXT)]
    context = json.loads(contexts[-1] or "{}") if contexts else {}
    variables = context.pop("env_vars", None) or {}
    context.pop("java_jars", None)
    other_python = context.pop("py_executable", None) not in (None, sys.executable)
    if any(context.values()) or other_python or not Path(os.environ["FORKED_RAY_WORKERS"]).exists():
        own = Path(arguments[0]).with_name("setup_worker.py")
        os.execv(sys.executable, [sys.executable, str(own), *sys.argv[1:]])
    about = {
        "module": "tests.support.forked_ray_worker",
        "arguments": arguments,
        "cwd": os.getcwd(),
        "environment": {**os.environ, **variables},
        "bound": True,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as source:
        source.connect(os.environ["FORKED_RAY_WORKERS"])
        socket.send_fds(source, [json.dumps(about).encode()], [0, 1, 2])
        pid = int.from_bytes(source.recv(4), "big")
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda number, _: os.kill(pid, number))
        ended = int.from_bytes(source.recv(4), "big", signed=True)
    return ended if ended >= 0 else 128 - ended


if __name__ == "__main__":
    sys.exit(main())
