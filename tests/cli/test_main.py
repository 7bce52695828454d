"""The command itself: help, version, wrong commands, how errors and signals end."""

from __future__ import annotations

import errno
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
