"""The code, commands, messages and numbers in README and docs.

A block of code or commands runs, in a folder with a small dataset (`phantoms`, the same as
`mydata` and `Task07_Pancreas`), a scan and a model, unless a comment before it says otherwise:

    <!-- skip: REASON -->            its commands are parsed, its code is compiled
    <!-- slow: REASON -->            the same, but in the slow test it runs
    <!-- faster: "A" -> "B"; ... --> A is replaced by B, but in the slow test
    <!-- before: CODE -->            code that readers need not see
    <!-- file: NAME -->              it is a file of that name
    <!-- recipe -->                  a recipe with these keys trains for two steps

`<!-- skip commands of this page: REASON -->` holds for all blocks of commands of a page.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer.main
import yaml

import leanseg
from leanseg.cli.main import COMMANDS, build_app, run

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCK = re.compile(
    r"^(?P<said>(?:<!--(?:(?!-->)[\s\S])*-->\n)*) *```(?P<kind>\w+)\n(?P<text>[\s\S]*?)^ *```",
    re.MULTILINE,
)
SAID = re.compile(r"<!--\s*(skip|slow|faster|before|file|recipe):?\s*((?:(?!-->)[\s\S])*?)\s*-->")
PAGE_SKIP = re.compile(r"<!-- skip commands of this page: (.+?) -->")
RECIPE = """
name: tiny
data: {labels: {liver: [1]}}
network: {name: combiner, options: {base_filters: 4}}
plan: {frame: {axes: [32, 32, null]}}
phases: [{epochs: 1, steps_per_epoch: 2, batch_size: 2}]
training: {precision: "32"}
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and what the comments before it say."""

    kind: str
    text: str
    said: dict[str, str]
    line: int

    def shortened(self) -> str:
        """With what `faster` replaces."""
        text = self.text
        for old, new in re.findall(r'"([^"]*)" -> "([^"]*)"', self.said.get("faster", "")):
            assert old in text, f"line {self.line}: {old!r} is not there"
            text = text.replace(old, new)
        return text


def blocks(page: str, *kinds: str) -> list[Block]:
    text = PAGES[page].read_text(encoding="utf-8")
    every = PAGE_SKIP.search(text)
    found = []
    for match in BLOCK.finditer(text):
        said = dict(SAID.findall(match["said"]))
        if every and match["kind"] == "console":
            said.setdefault("skip", every[1])
        line = text.count("\n", 0, match.start("text"))
        # A block within a list is indented.
        body = "\n".join(each[len(match["text"]) - len(match["text"].lstrip(" ")) :]
                         for each in match["text"].split("\n"))  # fmt: skip
        found.append(Block(match["kind"], body, said, line))
    return [block for block in found if block.kind in kinds]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a console block, as words; what they print is left out."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        prompt = re.match(r"(?:machine\d)?\$ ([^>]*)", line)
        if prompt:
            words = shlex.split(prompt[1], comments=True)
            yield [word for each in words for word in _braces(each) if word != "..."]


def _braces(word: str) -> list[str]:
    """As a shell expands a{1,2}.pth."""
    found = re.fullmatch(r"(\w+)\{([\d,]+)\}(\.\w+)", word)
    return [f"{found[1]}{n}{found[3]}" for n in found[2].split(",")] if found else [word]


def of_leanseg(words: list[str]) -> list[str] | None:
    """The arguments of a leanseg command; None for another program's."""
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if words[:1] == ["leanseg"]:
        return words[1:]
    for launcher in (["python", "-m", "leanseg"], ["torchrun"], ["/usr/bin/time"]):
        if words[: len(launcher)] == launcher and "leanseg" in words:
            return words[words.index("leanseg") + 1 :]
    return None


def parse(arguments: list[str]) -> None:
    """Parse a command as the command line does, without running it."""
    name, *rest = arguments
    assert name in COMMANDS, f"there is no command {name}"
    typer.main.get_command(build_app(name)).commands[name].make_context(name, rest)


def check_script(words: list[str]) -> None:
    """That a script of the repository is there and knows the options that it is given."""
    source = (ROOT / words[1]).read_text(encoding="utf-8")
    for word in words[2:]:
        if word.startswith("--"):
            assert f'"{word.partition("=")[0]}"' in source, f"{words[1]} has no option {word}"


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages find in their working folder."""
    place = tmp_path_factory.mktemp("stock")
    data = leanseg.phantom(place / "phantoms", 4, size=64, slices=20)
    shutil.copy(place / "phantoms/imagesTr/phantom_0000.nii.gz", place / "scan.nii.gz")
    # The pages' own trainings are not exported, which takes longest.
    (place / "tiny.yaml").write_text(f"{RECIPE}packaging: {{export: false}}\n")
    recipe = leanseg.Recipe.model_validate(yaml.safe_load(RECIPE))
    run = leanseg.train(data, recipe, output=place / "runs/monet")
    shutil.copy(run.model_files[0], place / "model.leanseg")
    for number in (1, 2):
        patient = place / f"SegTHOR/Patient_0{number}"
        patient.mkdir(parents=True)
        image = np.zeros((4, 4, 3), np.uint8)
        for name in (f"Patient_0{number}", "GT"):
            nib.save(nib.Nifti1Image(image, np.eye(4)), patient / f"{name}.nii.gz")
    return place


@pytest.fixture
def folder(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """A copy of it, where Python looks for modules too."""
    if request.node.callspec.params["page"] != "get-started":  # that begins with nothing
        shutil.copytree(stock, tmp_path, dirs_exist_ok=True)
        for name in ("mydata", "Task07_Pancreas"):
            shutil.copytree(stock / "phantoms", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from leanseg.datasets.layouts import LAYOUTS
    from leanseg.inference.engines.base import ENGINES

    kept = {id(table): dict(table) for table in (LAYOUTS, ENGINES)}
    yield tmp_path
    for table in (LAYOUTS, ENGINES):
        table.clear()
        table.update(kept[id(table)])


def run_page(page: str, folder: Path, quick: bool) -> int:
    """Run the blocks of a page in turn; how many there were."""
    given: dict[str, object] = {"leanseg": leanseg, "np": np, "__name__": page}
    n_run = 0
    for block in blocks(page, "python", "console", "yaml"):
        text = block.shortened() if quick else block.text
        where = f"{PAGES[page].name}, line {block.line}"
        skip = "skip" in block.said or (quick and "slow" in block.said)
        if "file" in block.said:
            (folder / block.said["file"]).write_text(text, encoding="utf-8")
        elif "recipe" in block.said:
            train_two_steps(yaml.safe_load(text), folder, output=f"runs/line-{block.line}")
        elif block.kind == "yaml":
            check_recipe(text)
        elif block.kind == "console":
            run_commands(text, where, skip=skip)
        elif skip:
            compile(text, where, "exec")
            check_names(text, where)
        else:
            exec(compile(block.said.get("before", ""), where, "exec"), given)
            exec(compile("\n" * block.line + text, str(PAGES[page]), "exec"), given)
        n_run += not skip
    return n_run


def run_commands(text: str, where: str, *, skip: bool) -> None:
    for words in commands(text):
        arguments = of_leanseg(words)
        if arguments is None:
            if words[0] == "python" and words[1].endswith(".py"):
                check_script(words)
            elif words[0] == "make":
                targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
                assert set(words[1:]) <= set(targets), where
            continue
        if arguments in (["--help-json"], ["--version"]):
            continue
        if skip:
            try:
                parse(arguments)
            except Exception as error:
                raise AssertionError(f"{where}: {shlex.join(words)}: {error}") from error
            continue
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        assert ended.value.code in (0, None), f"{where}: {shlex.join(words)}"


def train_two_steps(keys: dict[str, object], folder: Path, output: str) -> None:
    """Keys of a recipe beside those of the tiny one, phases merged with its only one."""
    whole = yaml.safe_load(RECIPE)
    phases = keys.pop("phases", [{}])
    whole |= {**keys, "packaging": {"export": False}}
    whole["phases"] = [{**whole["phases"][0], **phases[0]}]
    recipe = leanseg.Recipe.model_validate(whole)
    leanseg.train(folder / "phantoms", recipe, output=folder / output, check=False)


def check_recipe(text: str) -> None:
    """A YAML block that is a whole recipe is a valid one."""
    if re.search("^name: ", text, re.MULTILINE) and "extends:" not in text:
        leanseg.Recipe.model_validate(yaml.safe_load(text))


def check_names(text: str, where: str) -> None:
    """That leanseg has the names that code which does not run takes from it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("leanseg"):
            home = import_module(str(node.module))
            for alias in node.names:
                assert hasattr(home, alias.name), f"{where}: {node.module}.{alias.name}"
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("leanseg."):
            there: object = leanseg
            for name in ast.unparse(node).split(".")[1:]:
                assert hasattr(there, name), f"{where}: {ast.unparse(node)}"
                there = getattr(there, name)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, folder: Path) -> None:
    run_page(page, folder, quick=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", ["get-started", "train"])
def test_the_first_pages_run_word_by_word(page: str, folder: Path) -> None:
    assert run_page(page, folder, quick=False)


def test_blocks_are_found_and_a_wrong_option_fails() -> None:
    assert sum(len(blocks(page, "python", "console")) for page in PAGES) > 100
    with pytest.raises(Exception, match="no-such"):
        parse(["predict", "model", "scan", "--output", "masks", "--no-such", "1"])
    assert list(commands("$ a b \\\n  c  # d\n$ x{1,2}.pth\noutput\n")) == [
        ["a", "b", "c"],
        ["x1.pth", "x2.pth"],
    ]


# --- messages ---------------------------------------------------------------------------------


def messages() -> list[str]:
    """Every text in the source, with … for what is put in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (each.value if isinstance(each, ast.Constant) else "…"
                         for each in node.values)  # fmt: skip
                found.append("".join(map(str, parts)))
    return found


def test_the_quoted_messages_are_those_of_the_source() -> None:
    page = PAGES["troubleshooting"].read_text(encoding="utf-8")
    quoted = re.findall(r"^#### `(.+)`$", page, re.MULTILINE)
    assert len(quoted) > 25
    there = messages()
    for message in quoted:
        # A message may go on after "…" at its end.
        assert any(message.rstrip("…") in each for each in there), message


# --- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if page != "troubleshooting"])
def test_tables_of_numbers_come_with_a_command(page: str) -> None:
    """Or with a comment that says why not: <!-- no command: REASON -->."""
    for section in re.split(
        "^(?=## )", PAGES[page].read_text(encoding="utf-8"), flags=re.MULTILINE
    ):
        rows = re.findall(r"^\|.*\d\.\d.*\|$", section, re.MULTILINE)
        named = r"```console|`(python|leanseg|make) [^`]*`|<!-- no command: "
        assert len(rows) < 2 or re.search(named, section), section.partition("\n")[0]


NUMBERS = yaml.safe_load((ROOT / "docs/numbers.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", NUMBERS, ids=lambda each: each["says"])
def test_a_number_stands_where_it_is_said_to(number: dict[str, object]) -> None:
    text = (ROOT / str(number["page"])).read_text(encoding="utf-8")
    assert str(number["says"]) in " ".join(text.split())
    value = number["value"]
    forms = {f"{value:,}", str(value), f"{value:.2f}", f"{value:.3f}", f"{value:.1f}"}
    assert any(form in str(number["says"]) for form in forms)
    assert ("python" in number) != ("command" in number)
