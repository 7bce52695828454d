"""The `leanseg` command: finds the subcommand, prints a user's error as one sentence."""

from __future__ import annotations

import atexit
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
from typing import TYPE_CHECKING, Any, NoReturn

from leanseg.errors import LeansegError, ToldError, require_package, told
from leanseg.progress import tells_the_end

if TYPE_CHECKING:
    from types import FrameType

    # Imported late: a signal while it is imported must find its handler.
    import typer

# Name -> one line for `leanseg --help`. The module of that name is imported only when its
# command is asked for, which keeps `--help` fast.
COMMANDS: dict[str, str] = {
    "train": "Train a network, planned or by a recipe, or resume a run.",
    "plan": "Plan a training and show what it will cost.",
    "show": "Draw a recipe's samples, with and without augmentation.",
    "predict": "Segment scans with a model file.",
    "evaluate": "Score predicted label maps against references.",
    "measure": "Volumes, grey values and extents of a mask's labels.",
    "robustness": "Measure Dice under thicker slices, noise and other changes.",
    "study": "Train and compare methods by a study file.",
    "calibrate": "Fit probabilities and reviews to labelled scans.",
    "review": "Say which results to trust, without labels.",
    "compare": "Compare runs or tools case by case, with statistics.",
    "report": "Write a run's self-contained HTML report.",
    "benchmark": "Measure models: size, time, memory, by engine and precision.",
    "info": "Describe a model file, scan or dataset.",
    "convert": "Write a dataset in another layout.",
    "datasets": "List public datasets: home page, licence, expected layout.",
    "networks": "List networks: parameters, model file, work, latency.",
    "export": "Export a model file's network, to run without PyTorch.",
    "ensemble": "Join models of one plan into an ensemble.",
    "stack": "Train a network that combines those of several runs.",
    "models": "List models that others published; fetch one by its name.",
    "import-weights": "Turn published checkpoints into a model file.",
    "recipes": "List the built-in recipes, or print one.",
    "activations": "Draw histograms of feature maps; find dead channels.",
    "check": "Find problems in a dataset before training.",
    "phantom": "Write a synthetic abdominal CT dataset.",
}
# What needs the `train` extra.
_WITH_TORCH = frozenset(
    {"train", "plan", "study", "show", "networks", "export", "stack", "import-weights"}
    | {"activations"}
)

EXIT_USER_ERROR = 2
_STOPPED = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_INSIST_S = 0.3
# What a user can mend about a file.
_USERS_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EBUSY, errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV, errno.ETXTBSY, errno.ESTALE),
)
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT)


class _StoppedError(Exception):
    """A signal came while a command ran; typer would call it "Aborted", exit 1."""


def _show_version(wanted: bool) -> None:
    import typer

    if wanted:
        from leanseg import __version__

        typer.echo(f"leanseg {__version__}")
        raise typer.Exit


def _show_help_json(wanted: bool) -> None:
    import json

    import typer

    if wanted:
        from leanseg.cli.help_json import described

        typer.echo(json.dumps(described(COMMANDS), indent=2, default=str))
        raise typer.Exit


def build_app(wanted: str | None) -> typer.Typer:
    """The command line with the module of one command loaded; the others only named.

    Args:
        wanted: The command that will run, or None for the overview alone.
    """
    import typer

    app = typer.Typer(
        name="leanseg",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None if wanted is None else "rich",
    )

    @app.callback()
    def leanseg(
        version: bool = typer.Option(
            False, "--version", callback=_show_version, is_eager=True, help="Print version."
        ),
        help_json: bool = typer.Option(
            False,
            "--help-json",
            callback=_show_help_json,
            is_eager=True,
            help="Print every command and option as JSON.",
        ),
    ) -> None:
        """Train, run, compare and ship compact networks that segment CT and MR volumes."""

    for name, summary in COMMANDS.items():
        place = app.command(name, short_help=summary)
        if name == wanted:
            place(_guarded(import_module(f"leanseg.cli.{name.replace('-', '_')}").command))
        else:
            place(lambda: None)
    return app


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command, with whatever goes wrong after a signal taken for its consequence."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt as error:
            raise _StoppedError from error

    return guarded


def _require_torch(command: str) -> None:
    """Refuse a command without the `train` extra.

    Raises:
        MissingDependencyError: If PyTorch or Lightning Fabric is not installed.
    """
    for package in ("torch", "lightning_fabric"):
        require_package(package, f"leanseg {command}", "leanseg[train]")


def run(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit 0 when all went well, 1 when some cases failed, 2 for a user's error.

    After Ctrl-C and SIGTERM, half-written files are cleared away and it exits with 130 and 143.
    """
    with _stoppable(ours_alone=arguments is None) as signals:
        try:
            _run(list(sys.argv[1:] if arguments is None else arguments))
        except BaseException as error:
            if signals or isinstance(error, _StoppedError | KeyboardInterrupt):
                number = signals[0] if signals else signal.SIGINT
                what = f"{_STOPPED[number]}; nothing half-written was left behind"
                try:
                    if tells_the_end():
                        _fail(what, 128 + number)
                    raise SystemExit(128 + number)
                finally:
                    if arguments is None:
                        _end_at_once(128 + number)
            if isinstance(error, ToldError):
                raise SystemExit(EXIT_USER_ERROR) from error
            if isinstance(error, LeansegError):
                _fail(str(error), EXIT_USER_ERROR)
            if isinstance(error, MemoryError):
                reason = f" ({error})" if str(error) else ""
                what = f"that needs more memory than there is{reason}; give less at a time"
                _fail(what, EXIT_USER_ERROR)
            if isinstance(error, OSError) and (sentence := _sentence(error)):
                _fail(sentence, EXIT_USER_ERROR)
            raise


def _run(given: list[str]) -> None:
    for stream in (sys.stdout, sys.stderr):
        # A file's name may be no text.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    wanted = given[0] if given and given[0] in COMMANDS else None
    if wanted in _WITH_TORCH and "--help" not in given:
        _require_torch(str(wanted))
    build_app(wanted)(args=given, prog_name="leanseg", standalone_mode=True)


def _sentence(error: OSError) -> str:
    """What the system says of a file, as a sentence; "" if no user can mend it."""
    if error.errno in _OF_THE_DISK:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free some space and run again"
    if error.errno not in _USERS_ERRORS or not (error.filename or error.errno == errno.EIO):
        return ""
    what = error.filename or "a file"
    return f"{what}: cannot be read or written ({error.strerror}); correct the path or its rights"


@contextmanager
def _stoppable(*, ours_alone: bool) -> Iterator[list[signal.Signals]]:
    """Let SIGINT and SIGTERM unwind, so that half-written files are cleared away.

    Args:
        ours_alone: Whether the process ends with the command.

    Yields:
        The signals that have come.
    """
    came: list[signal.Signals] = []
    process, over = os.getpid(), threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            # A worker forked from here: it has nothing to clear away.
            os._exit(128 + signum)
        came.append(signal.Signals(signum))
        if len(came) == 1 and os.name == "posix":
            threading.Thread(target=insist, daemon=True).start()
        if not _is_unwinding(sys.exception()):
            raise KeyboardInterrupt

    def insist() -> None:
        # A finaliser, a callback or an import may have swallowed the interrupt.
        while not over.wait(_INSIST_S):
            os.kill(process, came[0])

    def unraisable(about: sys.UnraisableHookArgs) -> None:
        if not came:
            hook(about)

    # Only the main thread may set handlers, and those that somebody else set stay.
    free = (signal.SIG_DFL, signal.default_int_handler)
    in_main = threading.current_thread() is threading.main_thread()
    ours = [each for each in _STOPPED if in_main and signal.getsignal(each) in free]
    previous = {each: signal.signal(each, stop) for each in ours}
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield came
    finally:
        over.set()
        if not ours_alone:
            sys.unraisablehook = hook
        for each, handler in previous.items():
            if ours_alone:
                # The process is about to end: at once, or with the status that it was given.
                handler = signal.SIG_IGN if came else lambda n, _: os._exit(128 + n)
            signal.signal(each, handler)


def _end_at_once(status: int) -> None:
    """End without what Python and libraries do last, which fails where they were interrupted."""
    threading._shutdown()  # type: ignore[attr-defined]  # Waits for results on their way.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)


def _is_unwinding(error: BaseException | None) -> bool:
    """Whether an interrupt is being dealt with; another one would only get in the way."""
    while error is not None and not isinstance(error, KeyboardInterrupt | _StoppedError):
        error = error.__context__
    return error is not None


def _fail(sentence: str, status: int) -> NoReturn:
    # A carriage return and newline first would break logs; a plain line suits both.
    print(f"leanseg: {told(sentence)}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    run()
