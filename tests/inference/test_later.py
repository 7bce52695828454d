"""Work in a thread of its own: its result, its error, and what the interpreter's end does to it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from leanseg.inference.later import Later


def test_the_result_or_the_error_as_often_as_asked() -> None:
    good, bad = Later(lambda: 7), Later(lambda: 1 // 0)
    for _ in range(2):
        assert good.result() == 7
        with pytest.raises(ZeroDivisionError):
            bad.result()
    assert good.is_done
    assert bad.is_done


def test_it_goes_on_meanwhile() -> None:
    gate = threading.Event()
    later = Later(lambda: gate.wait(10))
    assert not later.is_done
    gate.set()
    assert later.result() is True


@pytest.mark.parametrize("may_be_dropped", [True, False])
def test_the_end_of_the_interpreter(may_be_dropped: bool) -> None:
    code = (
        "import time\nfrom leanseg.inference.later import Later\n"
        f"Later(lambda: (time.sleep(1.5), print('ended')), may_be_dropped={may_be_dropped})\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ("" if may_be_dropped else "ended\n")
    assert may_be_dropped or time.monotonic() - started > 1.5
