"""Jobs in processes of their own: several at a time, under a ceiling, none lost."""

from __future__ import annotations

import math
import os
import signal

import pytest

from leanseg.errors import LeansegError
from leanseg.executors import Job, Processes

# When a job began and ended.
WHEN = "[__import__('time').time(), __import__('time').sleep(0.2), __import__('time').time()]"


def test_a_job_that_fails_or_dies_stops_no_other() -> None:
    jobs = [
        Job("root", math.sqrt, (9,)),
        Job("wrong", math.sqrt, (-9,)),
        Job("killed", signal.raise_signal, (signal.SIGKILL,)),
        Job("gone", os._exit, (3,)),
    ]
    ended = {each.job.name: each for each in Processes(2).run(jobs)}
    assert ended["root"].value == 3
    assert ended["root"].failure is None
    assert ended["wrong"].failure == "ValueError: math domain error"
    assert ended["killed"].failure == "its process was ended by signal 9"
    assert ended["gone"].failure == "its process ended with status 3"


def test_jobs_stay_under_a_joint_ceiling() -> None:
    jobs = [Job(str(n), eval, (WHEN,), memory_bytes=n) for n in (6, 5, 4)]
    times = {each.job.name: each.value for each in Processes(3, memory_bytes=10).run(jobs)}
    # 6 and 4 have room together; 5 waits for one of them.
    assert times["5"][0] >= min(times["6"][2], times["4"][2])
    with pytest.raises(LeansegError, match=r"^6: needs about .* --memory allows"):
        Processes(3, memory_bytes=5).run(jobs)


def test_threads_of_libraries() -> None:
    one = Job("threads", os.getenv, ("OMP_NUM_THREADS",), cores=3)
    [ended] = Processes(1).run([one])
    assert ended.value == "3"
