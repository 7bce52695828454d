"""`leanseg benchmark`: what models cost on this machine, and what other tools cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from leanseg.benchmarking.measure import Outcome

_LOG_WIDTH = 500


def command(
    models: Annotated[list[Path], typer.Argument(help="Model files (.leanseg).")],
    scan: Annotated[
        Path | None, typer.Option(help="A scan; a phantom of --shape if not given.")
    ] = None,
    shape: Annotated[str, typer.Option(help="Shape of the phantom.")] = "512,512,150",
    engine: Annotated[
        list[str] | None, typer.Option(help="An engine or auto, may repeat; all if not given.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="f32, bf16 or f16, may repeat; all if not given."),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Runs whose median is given.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads, pinned to as many cores.")] = 2,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Another tool at the same job: nnunet or monai; may repeat."),
    ] = None,
    configurations: Annotated[str, typer.Option(help="Of nnU-Net, with commas.")] = "2d,3d_fullres",
    mirroring: Annotated[
        str, typer.Option(help="nnU-Net's test-time mirroring: on (its default), off or both.")
    ] = "on",
    tiles: Annotated[
        int | None,
        typer.Option(help="Run so many of nnU-Net's tiles and extrapolate; all if not given."),
    ] = None,
    nnunet_plans: Annotated[
        Path | None,
        typer.Option(help="Plans of your own nnU-Net; else as for the Decathlon's pancreas."),
    ] = None,
    against_repeats: Annotated[int, typer.Option(help="Runs of each other tool.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write everything to this file.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Also write the tables to this file.")
    ] = None,
    allow_imports: Annotated[
        bool,
        typer.Option("--allow-imports", help="Run network code that the model file names."),
    ] = False,
) -> None:
    """Measure models: size, multiply-adds, time and peak memory by engine and precision.

    Engines and precisions take turns, each run is a process of its own. Agreement is told against
    PyTorch in float32, or the best float32 that is installed.
    """
    from leanseg.benchmarking.measure import Settings
    from leanseg.benchmarking.rivals import Choice, read_plans
    from leanseg.benchmarking.run import Watcher, run_benchmark
    from leanseg.benchmarking.scans import parse_shape

    choice = None
    if against:
        choice = Choice(
            tools=tuple(dict.fromkeys(against)),
            configurations=tuple(name.strip() for name in configurations.split(",")),
            mirroring=mirroring,
            tiles=tiles,
            plans=None if nnunet_plans is None else read_plans(nnunet_plans),
            repeats=against_repeats,
        )
    settings = Settings(repeats, threads, allow_imports)
    _check_writable(json_file, csv_file)
    with _Display() as display:
        record = run_benchmark(
            models,
            scan=scan,
            shape=parse_shape(shape),
            engines=engine or (),
            precisions=precision or (),
            settings=settings,
            against=choice,
            watcher=Watcher(display.on_notice, display.on_run, display.on_tile),
        )
    _write(record, json_file, csv_file)
    _print(record)


def _check_writable(*paths: Path | None) -> None:
    """Find out now rather than after minutes."""
    from leanseg.volumes.atomic import written_whole

    for path in paths:
        if path is not None:
            with written_whole(path):
                pass


def _write(record: dict[str, Any], json_file: Path | None, csv_file: Path | None) -> None:
    import json

    from leanseg.benchmarking.tables import as_csv
    from leanseg.volumes.atomic import written_whole

    texts = {json_file: json.dumps(record, indent=2) + "\n", csv_file: as_csv(record)}
    for path, text in texts.items():
        if path is not None:
            with written_whole(path) as scratch:
                scratch.write_text(text, encoding="utf-8")


def _print(record: dict[str, Any]) -> None:
    from rich.console import Console

    from leanseg.benchmarking.tables import report

    console = Console(highlight=False)
    if not console.is_terminal:
        # A log has no width: nothing is folded.
        console = Console(highlight=False, width=_LOG_WIDTH)
    for part in report(record):
        console.print(part)


class _Display:
    """What is being measured: a line that changes on a terminal, lines in a log; on stderr."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("reading")

    def __enter__(self) -> _Display:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def on_notice(self, text: str) -> None:
        """Something begins that takes a while."""
        self._say(text)

    def on_run(self, outcome: Outcome, number: int) -> None:
        """A run is over."""
        what = f"{outcome.model.stem}, {outcome.engine} {outcome.precision}"
        if outcome.status == "measured":
            self._say(f"run {number + 1}: {what}: {outcome.runs[-1]['warm']:.2f} s")
        else:
            self._say(f"{what}: {outcome.status}")

    def on_tile(self, setting: str, done: int, total: int) -> None:
        """Another tool has done a tile."""
        if self._console.is_terminal or done in (1, total):
            self._say(f"{setting}: tile {done} of {total}")

    def _say(self, text: str) -> None:
        if self._console.is_terminal:
            self._status.update(text)
        else:
            self._console.print(text, markup=False, soft_wrap=True)
