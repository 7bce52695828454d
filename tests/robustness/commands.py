"""Every command with every odd thing in the place of each of its paths."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import layout_samples
from leanseg.errors import LeansegError
from robustness import sound
from robustness.harness import Target, WrongError

# In braces stand sound things; those that are written begin with "new".
COMMANDS = (
    "predict {tiny.leanseg} {scan.nii} -o {new} --engine torch",
    "predict {tiny.leanseg} {scans} -o {new} --engine torch",
    "evaluate {masks} {references} -o {new}",
    "evaluate {masks/a.nii.gz} {references/a.nii.gz} -o {new}",
    "robustness {tiny.leanseg} {data} -o {new} --factors scale --labels organ=1",
    "calibrate {tiny.leanseg} {data} -o {new.leanseg} --labels organ=1",
    "review {known.leanseg} {scans} {results}",
    "report {run} -o {new.html}",
    "benchmark {tiny.leanseg} --scan {scan.nii} --engine torch --precision f32 --repeats 1"
    " --json {new.json}",
    "info {scan.nii}",
    "info {tiny.leanseg}",
    "info {data}",
    "info --json {data/dataset.json}",
    "convert {data} --to plain -o {new}",
    "export {tiny.leanseg} -o {new.leanseg}",
    "export {tiny.leanseg} -o {kept.leanseg} --onnx {new.onnx}",
    "ensemble {tiny.leanseg} {tiny.leanseg} -o {new.leanseg}",
    "ensemble {run} -o {new.leanseg}",
    "import-weights obelisk {a.pth} -o {new.leanseg}",
    "activations {tiny.leanseg} {scan.nii} -o {new} --inputs 1",
    "check {data} --json {new.json}",
    "check {data} --html {new.html}",
    "check {data} --fix {new}",
    "check {data} --splits {splits.json}",
    "phantom {new} --cases 1 --size 64 --slices 20",
    "train {recipe.yaml} --data {data} -o {new} --cache {new_cache}",
    "train --resume {run}",
    "show {recipe.yaml} {data} -o {new.png} --samples 1",
    "networks {monet}",
    "recipes {monet-ct}",
    "datasets {chaos}",
)

Odd = Callable[[Path, Path], str]


def copied(name: str) -> Odd:
    """The sound thing under another name."""

    def make(folder: Path, kept: Path) -> str:
        place = folder / (name + "".join(kept.suffixes))
        if kept.is_dir():
            shutil.copytree(kept, place)
        elif kept.is_file():
            shutil.copy(kept, place)
        return str(place)

    return make


def made(name: str, make: Callable[[Path], Any]) -> Odd:
    """Something else under a name with the right suffix."""

    def odd(folder: Path, kept: Path) -> str:
        place = folder / (name + "".join(kept.suffixes))
        make(place)
        return str(place)

    return odd


def other_kind(folder: Path, kept: Path) -> str:
    """A folder for a file, a file for a folder."""
    place = folder / ("other" + "".join(kept.suffixes))
    place.write_text("x") if kept.is_dir() or not kept.suffix else place.mkdir()
    return str(place)


def with_fifo(folder: Path, kept: Path) -> str:
    """A folder whose first file is a FIFO."""
    place = Path(copied("holds")(folder, kept))
    if place.is_dir():
        first = min(path for path in place.rglob("*") if path.is_file())
        first.unlink()
        os.mkfifo(first)
    return str(place)


def link_loop(place: Path) -> None:
    place.symlink_to(place.name)


def garbage(place: Path) -> None:
    place.write_bytes(np.random.default_rng(0).bytes(2000))


ODD_INPUTS: dict[str, Odd] = {
    "missing": made("absent", lambda place: None),
    "empty": made("empty", lambda place: place.write_bytes(b"")),
    "other kind": other_kind,
    "line break": copied("line\nbreak"),
    "missing line break": made("absent\nfile", lambda place: None),
    "unicode": copied("Ünï 日本"),
    "escape": made("absent\x1b[31m", lambda place: None),
    "long": made("x" * 300, lambda place: None),
    "dash": lambda folder, kept: "-",
    "nothing": lambda folder, kept: "",
    "link loop": made("loop", link_loop),
    "dangling": made("dangling", lambda place: place.symlink_to("nowhere")),
    "null": lambda folder, kept: "/dev/null",
    "zero": lambda folder, kept: "/dev/zero",
    "memory": lambda folder, kept: "/proc/self/mem",
    "fifo": made("fifo", os.mkfifo),
    "fifo inside": with_fifo,
    "garbage": made("garbage", garbage),
    "below a file": lambda folder, kept: str(folder / "scan.nii" / "x"),
    "root": lambda folder, kept: "/proc",
}
ODD_OUTPUTS: dict[str, Odd] = {
    "below a file": lambda folder, kept: str(folder / "scan.nii" / f"x{kept.suffix}"),
    "long": made("y" * 300, lambda place: None),
    "proc": lambda folder, kept: f"/proc/x{kept.suffix}",
    "proc below": lambda folder, kept: f"/proc/1/x/y{kept.suffix}",
    "link loop": made("loop", link_loop),
    "below a loop": lambda folder, kept: link_loop(folder / "l") or str(folder / "l" / kept.name),
    # Not /dev/null itself: as root a command that renames over it would replace it for all.
    "below null": lambda folder, kept: f"/dev/null/x{kept.suffix}",
    "fifo": made("fifo", os.mkfifo),
    "other kind": other_kind,
    "a scan": lambda folder, kept: str(folder / "scan.nii"),
    "the data": lambda folder, kept: str(folder / "data"),
    "line break": made("new\nline", lambda place: None),
    "unicode": made("Ünï 日本", lambda place: None),
    "nothing": lambda folder, kept: "",
}
# These are no mistake: a command may do its work.
_MAY_WORK = ("line break", "unicode", "nothing", "dash", "dangling", "other kind", "fifo inside")


class Case(NamedTuple):
    """A command, the place of the odd thing in it, and its kind."""

    command: str
    slot: int
    kind: str

    @property
    def words(self) -> list[str]:
        """What stands between blanks."""
        return [
            w.replace("\0", " ") for w in self.command.replace("new cache", "new\0cache").split()
        ]


def _cases() -> list[Case]:
    found = []
    for command in COMMANDS:
        for slot, word in enumerate(Case(command, 0, "").words):
            odd = {} if word[0] != "{" else ODD_OUTPUTS if word.startswith("{new") else ODD_INPUTS
            found += [Case(command, slot, kind) for kind in odd if word != "{kept.leanseg}"]
    return found


CASES = _cases()


def sandbox(folder: Path) -> None:
    """A sound thing of every kind."""
    sound.model(folder, exported=False)
    sound.scores(folder)
    sound.checkpoint(folder)
    (folder / "run").mkdir()
    # The data come to lie beside the run, in the sandbox.
    sound.run_folder(finished=True)(folder / "run")
    (folder / "recipe.yaml").write_text(sound.RECIPE.replace("folds: all", "folds: [0]"))
    (folder / "scans").mkdir()
    shutil.copy(folder / "scan.nii", folder / "scans" / "b.nii")
    shutil.move(folder / "predictions", folder / "masks")
    known, scans = folder / "known.leanseg", folder / "scans"
    _command(
        "calibrate", folder / "tiny.leanseg", folder / "data", "-o", known, "--labels", "organ=1"
    )
    _command("predict", known, scans, "-o", folder / "results", "--engine", "torch")
    names = [path.name.removesuffix(".nii.gz") for path in (folder / "data/imagesTr").iterdir()]
    layout_samples.write_json(
        folder / "splits.json", [{"train": names[2:], "monitor": names[1:2], "test": names[:1]}]
    )


def _command(*words: object) -> None:
    from leanseg.cli.main import run

    with contextlib.suppress(SystemExit):
        run([str(word) for word in words])
    assert Path(str(words[words.index("-o") + 1])).exists()


def write_command(folder: Path, rng: np.random.Generator) -> None:
    """The words of a case, with the odd thing made."""
    # Each case once: the number of the input, from which the generator was made, is the case's.
    case = CASES[rng.bit_generator.seed_seq.entropy[-1] % len(CASES)]  # type: ignore[attr-defined]
    words = []
    for slot, word in enumerate(case.words):
        if word[0] != "{":
            words.append(word)
            continue
        kept = folder / word[1:-1] if case.words[0] not in _BY_NAME else Path(word[1:-1])
        odd = ODD_OUTPUTS if word.startswith("{new") else ODD_INPUTS
        words.append(odd[case.kind](folder, kept) if slot == case.slot else str(kept))
    (folder / ".words").write_text("\0".join([case.kind, *words]))


_BY_NAME = ("networks", "recipes", "datasets")


def run_command(folder: Path) -> tuple[str, str]:
    """Runs it; what it says when it refuses becomes the error that it stands for.

    Returns:
        Its kind and its status, if it did not refuse.
    """
    from leanseg.cli.main import run

    kind, *words = (folder / ".words").read_text().split("\0")
    os.chdir(folder)
    sys.stdin = io.StringIO()
    before = _listing(folder)
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(words)
        except SystemExit as end:
            status = int(end.code or 0)
    told = err.getvalue()
    assert "Traceback" not in told + out.getvalue(), told[-1500:]
    if status not in (0, 1):
        assert status == 2, f"status {status}: {told}"
        left = sorted(_listing(folder) - before)
        assert not left, f"was refused, and left {left[:5]}"
        lines = [line for line in told.splitlines() if line.startswith("leanseg: ")]
        assert len(lines) == 1 and told.endswith("\n"), f"not one sentence: {told!r}"
        message = lines[0].removeprefix("leanseg: ")
        names = [Path(w).name[:20].split("\n")[0].split("\x1b")[0] for w in words[1:]]
        is_named = any(name in message for name in names if len(name) > 1) or kind in _NAMELESS
        raise LeansegError(f"{folder}: {message}" if is_named else message)
    hidden = [name for name in _listing(folder) - before if ".writing-" in name]
    assert not hidden, f"left {hidden}"
    return kind, f"status {status}: {told[-300:]}"


_NAMELESS = ("nothing", "dash")


def _listing(folder: Path) -> set[str]:
    return {os.path.relpath(Path(top) / name, folder)
            for top, inner, files in os.walk(folder) for name in (*inner, *files)
            if "__pycache__" not in top}  # fmt: skip


def check_status(folder: Path, answer: tuple[str, str]) -> None:
    """Only what is no mistake may be answered with status 0."""
    kind, told = answer
    command = (folder / ".words").read_text().split("\0")[1]
    # Results may be added to a folder; a file is replaced, unless it is one that is read.
    allowed = {"the data": ("predict", "evaluate", "robustness", "activations", "train",
                            "show"),
               "a scan": ("export", "ensemble", "import-weights", "report", "check",
                          "calibrate")}  # fmt: skip
    if (
        kind not in _MAY_WORK
        and command not in allowed.get(kind, ())
        and told.startswith("status 0")
    ):
        raise WrongError(f"{kind}: {told}")


TARGET = Target(
    "commands, odd paths", sandbox, write_command, run_command, check_status, len(CASES), 8,
    limit_s=20, most_bytes=4 << 30,
)  # fmt: skip
