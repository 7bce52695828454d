"""The command itself: help, version, wrong commands, how errors and signals end."""

from __future__ import annotations

import errno
import json
import signal
import sys
from types import ModuleType

import pytest
import typer

import leanseg as package
from leanseg.cli import main
from leanseg.errors import RecipeError


def test_help_names_every_command(leanseg) -> None:
    outcome = leanseg("--help")
    assert outcome.status == 0
    for name, summary in main.COMMANDS.items():
        assert name in outcome.out
        assert summary in outcome.out


def test_version(leanseg) -> None:
    assert leanseg("--version").out == f"leanseg {package.__version__}\n"


def test_without_arguments_help_is_shown(leanseg) -> None:
    outcome = leanseg()
    assert "predict" in outcome.out + outcome.err


def test_a_misspelt_command(leanseg) -> None:
    outcome = leanseg("predcit")
    assert outcome.status == 2
    assert "predcit" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", ["predict", "info"])
def test_help_of_a_command(leanseg, name: str) -> None:
    outcome = leanseg(name, "--help")
    assert outcome.status == 0
    assert "Usage: leanseg" in outcome.out


@pytest.fixture
def ends_with(leanseg, monkeypatch):
    """Run a command that ends with the given exception."""

    def run(error: BaseException | int):
        module = ModuleType("leanseg.cli.info")

        def command() -> None:
            """End."""
            if isinstance(error, int):
                signal.raise_signal(error)
            else:
                raise error

        module.command = command
        monkeypatch.setitem(sys.modules, "leanseg.cli.info", module)
        return leanseg("info")

    return run


def test_a_users_error(ends_with) -> None:
    outcome = ends_with(RecipeError("recipe.yaml: key 'eopchs' is not known; write 'epochs'"))
    assert outcome.status == 2
    assert outcome.err == "leanseg: recipe.yaml: key 'eopchs' is not known; write 'epochs'\n"


@pytest.mark.parametrize("how", [KeyboardInterrupt(), signal.SIGINT])
def test_ctrl_c(ends_with, how) -> None:
    outcome = ends_with(how)
    assert outcome.status == 130
    assert outcome.err == "leanseg: interrupted; nothing half-written was left behind\n"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_unwinds(ends_with) -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    outcome = ends_with(signal.SIGTERM)
    assert outcome.status == 128 + signal.SIGTERM
    assert outcome.err == "leanseg: terminated; nothing half-written was left behind\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_full_disk(ends_with) -> None:
    outcome = ends_with(OSError(errno.ENOSPC, "No space left on device", "out/mask.nii.gz"))
    assert outcome.status == 2
    assert outcome.err == (
        "leanseg: the disk is full while writing out/mask.nii.gz; free some space and run again\n"
    )


def test_the_status_of_a_command_that_chooses_one(ends_with) -> None:
    assert ends_with(typer.Exit(1)).status == 1


def test_our_own_mistakes_keep_their_traceback(ends_with) -> None:
    with pytest.raises(ZeroDivisionError):
        ends_with(ZeroDivisionError())
    with pytest.raises(OSError, match="odd"):
        ends_with(OSError(errno.EBADF, "odd"))


def test_help_as_json_is_what_typer_says(leanseg) -> None:
    outcome = leanseg("--help-json")
    assert outcome.status == 0
    told = json.loads(outcome.out)
    assert {one["name"]: one["summary"] for one in told["commands"]} == main.COMMANDS
    for one in told["commands"]:
        parsed = typer.main.get_command(main.build_app(one["name"])).commands[one["name"]]
        assert one["help"].split() == (parsed.help or "").split()
        parameters = {each.name: each for each in parsed.params if each.name != "help"}
        assert [each["name"] for each in one["arguments"] + one["options"]] == sorted(
            parameters, key=lambda name: parameters[name].param_type_name
        )
        for each in one["arguments"] + one["options"]:
            typers = parameters[each["name"]]
            assert each["required"] == typers.required, each
            assert each["help"] == typers.help, each
            assert each["help"].strip(), each
            several = typers.nargs == -1 or getattr(typers, "multiple", False)
            assert each["multiple"] == several, each
            assert each["values"] == (1 if several else typers.nargs), each
            if not each["required"]:
                assert str(each["default"]) == str(_as_json(typers.default)), each
            if "flags" in each:
                assert each["flags"] == [*typers.opts, *typers.secondary_opts], each
    predict = next(one for one in told["commands"] if one["name"] == "predict")
    found = {each["name"]: each for each in predict["arguments"] + predict["options"]}
    kinds = {name: found[name]["type"] for name in ("inputs", "phase", "preview", "tta")}
    assert kinds == {"inputs": "path", "phase": "int", "preview": "bool", "tta": "str"}


def _as_json(default: object) -> object:
    return json.loads(json.dumps(default, default=str))


def test_help_as_json_loads_nothing_heavy(leanseg_process) -> None:
    heavy = "{'torch', 'scipy', 'matplotlib', 'pydicom', 'openvino'}"
    code = f"import atexit, sys\natexit.register(lambda: print(sorted({heavy} & {{*sys.modules}})))"
    outcome = leanseg_process("--help-json", before=code)
    assert outcome.status == 0
    assert outcome.out.splitlines()[-1] == "[]"
