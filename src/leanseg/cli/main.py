"""The `leanseg` command: finds the subcommand, prints a user's error as one sentence."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from leanseg import __version__
from leanseg.errors import LeansegError, MissingDependencyError, told

# Name -> one line for `leanseg --help`. The module of that name is imported only when its
# command is asked for, which keeps `--help` fast.
COMMANDS: dict[str, str] = {
    "train": "Train a network by a recipe, or resume a run.",
    "predict": "Segment scans with a model file.",
    "evaluate": "Score predicted label maps against references.",
    "report": "Write a run's self-contained HTML report.",
    "benchmark": "Measure models: size, time, memory, by engine and precision.",
    "info": "Say what a model file, scan or dataset is.",
    "convert": "Write a dataset in another layout.",
    "datasets": "List public datasets: home page, licence, expected layout.",
    "networks": "List networks: parameters, model file, work, latency.",
    "export": "Make a model file run without PyTorch, and check it.",
    "ensemble": "Join models of one plan into one that averages them.",
    "import-weights": "Turn published checkpoints into a model file.",
    "recipes": "List the built-in recipes, or print one.",
    "activations": "Histograms of a network's feature maps; dead channels.",
    "check": "Say what is wrong with a dataset, before training does.",
    "phantom": "Write a synthetic abdominal CT dataset.",
}
# What needs the `train` extra.
_WITH_TORCH = frozenset({"train", "networks", "export", "import-weights", "activations"})

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class _InterruptedError(Exception):
    """Ctrl-C while a command ran."""


def _placeholder(summary: str) -> Callable[[], None]:
    def command() -> None: ...

    command.__doc__ = summary
    return command


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"leanseg {__version__}")
        raise typer.Exit


def build_app(wanted: str | None) -> typer.Typer:
    """The command line with the module of one command loaded; the others only named.

    Args:
        wanted: The command that will run, or None for the overview alone.
    """
    app = typer.Typer(
        name="leanseg",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None if wanted is None else "rich",
    )

    @app.callback()
    def leanseg(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_show_version, is_eager=True, help="Print version."),
        ] = False,
    ) -> None:
        """Train, run, compare and ship compact networks that segment CT and MR volumes."""

    for name, summary in COMMANDS.items():
        function: Callable[..., Any] = _placeholder(summary)
        if name == wanted:
            module = import_module(f"leanseg.cli.{name.replace('-', '_')}")
            function = _guarded(module.command)
        app.command(name, short_help=summary)(function)
    return app


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with an interrupt passed by typer, which would call it "Aborted", exit 1."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt as error:
            raise _InterruptedError from error

    return guarded


def _require_torch(command: str) -> None:
    """Refuse a command without the `train` extra.

    Raises:
        MissingDependencyError: If PyTorch or Lightning Fabric is not installed.
    """
    for package in ("torch", "lightning_fabric"):
        if find_spec(package) is None:
            msg = f"leanseg {command} needs {package}; install it: pip install 'leanseg[train]'"
            raise MissingDependencyError(msg)


def run(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit 0 when all went well, 1 when some cases failed, 2 for a user's error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A file's name may be no text.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    wanted = given[0] if given and given[0] in COMMANDS else None
    try:
        with _terminable():
            if wanted in _WITH_TORCH and "--help" not in given:
                _require_torch(str(wanted))
            build_app(wanted)(args=given, prog_name="leanseg", standalone_mode=True)
    except LeansegError as error:
        _fail(str(error), EXIT_USER_ERROR)
    except (_InterruptedError, KeyboardInterrupt):
        _fail("interrupted; nothing half-written was left behind", EXIT_INTERRUPTED)
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        _fail(f"that needs more memory than there is{reason}; give less at a time", EXIT_USER_ERROR)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        _fail(f"the disk is full{where}; free some space and run again", EXIT_USER_ERROR)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind as an interrupt does, so that half-written files are cleared away."""
    process = os.getpid()

    def stop(signum: int, frame: object) -> None:
        if os.getpid() == process:
            raise SystemExit(128 + signum)
        # A worker forked from here: it has nothing to clear away.
        os._exit(128 + signum)

    # Only the main thread may set handlers, and one that somebody else set stays.
    ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(sentence: str, status: int) -> None:
    # A carriage return and newline first would break logs; a plain line suits both.
    print(f"leanseg: {told(sentence)}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    run()
