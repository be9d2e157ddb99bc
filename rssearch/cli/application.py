"""The application: its commands in the order of the help, and what becomes of errors."""

from __future__ import annotations

import errno
import gc
import sys
from typing import Annotated, Any, NoReturn

import typer

from rssearch.cli import agent, data, front, init, lists, search, shrink, ui
from rssearch.cli.output import console
from rssearch.errors import InputError, cut
from rssearch.escaping import printable
from rssearch.storage import uris
from rssearch.storage.location import FULL
from rssearch.study.console import PlainConsole, plain_logs

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
for command in (
    *(init.init, search.plan, search.search, shrink.shrink),
    *(front.front, front.export, front.compare, front.register),
    *(agent.agent, lists.studies, ui.ui, lists.models, lists.methods, lists.samplers, lists.papers),
):
    app.command()(command)
app.add_typer(data.app, name="data")

_MOST = 4000  # characters of a message
# A path that the system does not let us use.
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ETXTBSY, errno.EBUSY),
)

_errors = PlainConsole(stderr=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        console.print(f"rssearch {metadata.version('rssearch')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Pruning-rate and architecture search for remote-sensing CNNs.

    Start with `rssearch search quickstart`.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status: see `rssearch --help`.

    Args:
        arguments: the words after `rssearch`; those of the process when left out.

    Raises:
        SystemExit: always. Status 0: done, 1: trials failed, 2: a mistake in the arguments, the YAML or a path,
            130: interrupted.
    """
    plain_logs()
    # The modules that a command imports are a million objects that stay: to look for garbage among them after each 700
    # new ones, as Python does, takes a tenth of the time until `plan` answers.
    gc.set_threshold(100_000, 50, 50)
    try:
        sys.exit(app(args=arguments, prog_name="rssearch", standalone_mode=False))
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in FULL:
            _fail(f"{error.filename}: {error.strerror}; no file is damaged, and the same command resumes from here")
        if error.errno not in _REFUSED:
            raise
        _fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # of Typer, whose releases do not agree where their classes are
        if not hasattr(error, "format_message"):
            raise
        _misused(error)


def _misused(error: Any) -> NoReturn:
    """Print a mistake in the arguments as Typer does, with short and harmless values."""
    from typer.rich_utils import rich_format_error

    error.message = cut(printable(error.message), 300)
    rich_format_error(error)
    sys.exit(error.exit_code)


def _fail(message: str) -> NoReturn:
    _errors.print(f"error: {cut(uris.hidden(message), _MOST)}", style="red", soft_wrap=True)
    sys.exit(2)
