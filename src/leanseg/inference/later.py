"""Work that goes on in a thread of its own while this one does something else."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Later(Generic[Result]):
    """The result of a function that has just been started.

    Args:
        function: What to do.
        may_be_dropped: Whether the interpreter may end in the middle of it, after Ctrl-C, say;
            it must leave nothing half-done behind then. Libraries whose own threads must end
            before the process does, as OpenVINO's, may not be left at work.
    """

    def __init__(self, function: Callable[[], Result], *, may_be_dropped: bool = False) -> None:
        self._outcome: list[Result] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, args=(function,), daemon=may_be_dropped)
        self._thread.start()

    def _work(self, function: Callable[[], Result]) -> None:
        try:
            self._outcome.append(function())
        except BaseException as error:  # raised where the result is asked for
            self._error = error

    @property
    def is_done(self) -> bool:
        """Whether `result` would return at once."""
        return not self._thread.is_alive()

    def result(self) -> Result:
        """Wait for the function to end; what it returned, or raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._outcome[0]
