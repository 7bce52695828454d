"""Children: their reports, their ends."""

from __future__ import annotations

import json
import os
import signal

import pytest

from leanseg.benchmarking import child, processes
from leanseg.benchmarking.machine import usable_cores
from leanseg.benchmarking.processes import ChildError, pinned_cores, run_child
from leanseg.errors import RecipeError

ENGINE = "leanseg.benchmarking.engine_child"


def test_cores_are_as_many_as_threads():
    assert pinned_cores(1) == usable_cores()[:1]


@pytest.mark.parametrize("threads", [0, -1, 10_000])
def test_more_threads_than_cores_are_refused(threads):
    with pytest.raises(RecipeError, match=f"threads is {threads}"):
        pinned_cores(threads)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Makes a child of a few lines of code."""

    def make(code: str) -> str:
        (tmp_path / "some_child.py").write_text(
            "from leanseg.benchmarking.child import report, serve\n"
            "from leanseg.errors import RecipeError\n"
            f"def work(job):\n    {code}\nserve(work)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return "some_child"

    return make


def test_reports_arrive_in_order_with_their_times(script):
    name = script("print('chatter'); report('first', job=job); report('second', n=2)")
    heard = []
    run = run_child(
        name,
        {"what": "ever"},
        threads=1,
        environment={"SOME_VARIABLE": "1"},
        on_event=lambda event, facts: heard.append(event),
    )
    assert heard == ["first", "second"]
    assert run.events["first"]["job"]["what"] == "ever"
    assert run.events["second"] == {"n": 2}
    assert 0 < run.at["first"] <= run.at["second"] <= run.seconds
    assert run.refusal is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")
def test_children_get_variables_and_their_cores(script):
    code = "import os; report('it', value=os.environ['X_Y'], cores=sorted(os.sched_getaffinity(0)))"
    run = run_child(script(code), {}, threads=1, environment={"X_Y": "z"})
    assert run.events["it"] == {"value": "z", "cores": usable_cores()[:1]}


def test_a_users_error_is_a_refusal(script):
    run = run_child(script("raise RecipeError('no such thing')"), {}, threads=1)
    assert run.refusal == ("RecipeError", "no such thing")


def test_memory_that_is_used_up_is_a_refusal(script):
    run = run_child(script("raise MemoryError"), {}, threads=1)
    assert run.refusal is not None and "memory" in run.refusal[1]


def test_a_crash_is_told_by_the_last_line(script):
    with pytest.raises(ChildError, match=r"status 1 \(KeyError: 'lost'\)"):
        run_child(script("raise KeyError('lost')"), {}, threads=1)


def test_a_kill_is_told_as_one(script):
    with pytest.raises(ChildError, match="killed"):
        run_child(script("import os; os.kill(os.getpid(), 9)"), {}, threads=1)


def test_an_interrupt_leaves_no_child_behind(script, monkeypatch):
    name = script("import os, time; report('alive', pid=os.getpid()); time.sleep(60)")
    found = []

    def interrupt(event, facts):
        found.append(facts["pid"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(name, {}, threads=1, on_event=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(found[0], signal.SIGTERM)


def test_a_model_that_is_not_there(tmp_path):
    job = {
        "model": str(tmp_path / "no.leanseg"),
        "scan": "x.nii.gz",
        "output": str(tmp_path),
        "engine": "torch",
        "precision": "f32",
        "allow_imports": False,
        "warm": False,
    }
    run = run_child(ENGINE, job, threads=1)
    assert run.refusal is not None and run.refusal[0] == "ModelFileError"


def test_a_report_is_one_line_of_json(capsys):
    child.report("it", text="two\nlines")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(child.MARK)
    assert json.loads(line.removeprefix(child.MARK)) == {"event": "it", "text": "two\nlines"}


def test_peak_memory_is_plausible():
    assert 20 < child.own_peak_memory_mb() < 100_000


def test_a_long_last_line_is_shortened():
    assert len(processes._why(1, "x" * 5000)) < 400
    assert "nothing was said" in processes._why(1, "\n")
