"""``python -m rssearch.agent URL --name NAME``: measure the networks of a study on this machine.

It needs Python, onnxruntime and NumPy; PyTorch and Ray are not needed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rssearch.agent import protocol
from rssearch.errors import InputError, unknown


def start(url: str, name: str, token_file: Path | None, authority: Path | None, provider: str) -> None:
    """Read the token, and measure until the process is ended.

    Raises:
        InputError: something that was given cannot be used, or the study does not know it.
    """
    import onnxruntime

    from rssearch.agent.client import Study, run

    if not re.fullmatch(protocol.NAME, name):
        raise InputError("--name: 1 to 32 letters, digits, '-' and '_', as in the study's devices")
    if provider not in onnxruntime.get_available_providers():
        raise unknown("provider of onnxruntime", provider, onnxruntime.get_available_providers())
    token = read_token(token_file)
    os.environ.pop(protocol.TOKEN, None)  # no process that is started here needs it
    study = Study(url, name, token, authority)
    run(study, provider, lambda line: print(line, flush=True))  # noqa: T201


def read_token(file: Path | None) -> str:
    """The token of a file, or of the environment. Raises InputError."""
    if file is None:
        return protocol.check_token(os.environ.get(protocol.TOKEN), "--token-file")
    try:
        return protocol.check_token(file.read_text(), "--token-file")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {file}: {getattr(error, 'strerror', None) or 'is no text'}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status: 2 for a mistake, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m rssearch.agent", description=(__doc__ or "").partition(":")[2])
    parser.add_argument("url", metavar="URL", help="of the study, such as https://host:8765")
    parser.add_argument("--name", required=True, help="of this device, as in the study's YAML")
    parser.add_argument("--token-file", type=Path, help=f"holds the token; otherwise it is in {protocol.TOKEN}")
    parser.add_argument("--ca", type=Path, help="certificates to trust, where the study's is not signed publicly")
    parser.add_argument("--provider", default="CPUExecutionProvider", help="of onnxruntime")
    given = parser.parse_args(arguments)
    try:
        start(given.url, given.name, given.token_file, given.ca, given.provider)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
