"""`leanseg benchmark`: what models cost on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options
from leanseg.cli.benchmark_tables import print_benchmark

if TYPE_CHECKING:
    from leanseg.benchmarking.run import Measurement

_SHAPE = (512, 512, 150)


def command(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Model files (.leanseg), or names of fetched models.",
            parser=options.model_path,
            metavar="MODELS",
        ),
    ],
    scan: Annotated[
        Path | None, typer.Option(help="A scan; a phantom of --shape if not given.")
    ] = None,
    shape: Annotated[tuple[int, int, int], typer.Option(help="Shape of the phantom.")] = _SHAPE,
    engine: Annotated[
        list[str] | None, typer.Option(help="An engine, may repeat; all if not given.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Such as f32 or bf16, may repeat; all if not given.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Number of runs; their median is shown.")] = 5,
    threads: options.Threads = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write everything to this file.")
    ] = None,
    allow_imports: options.AllowImports = False,
) -> None:
    """Measure models: size, multiply-adds, time and peak memory by engine and precision.

    Engines and precisions take turns; each run is a separate process, pinned to as many cores as
    it has threads. Agreement is measured against PyTorch in float32, or else the first engine in
    float32.
    """
    from leanseg.benchmarking.run import benchmark
    from leanseg.files import require_outputs, write_json

    require_outputs([json_file], [*models, *([scan] if scan else [])])
    done = benchmark(
        models,
        scan,
        shape=shape,
        engines=engine or (),
        precisions=precision or (),
        threads=threads,
        repeats=repeats,
        allow_imports=allow_imports,
        on_run=_tell,
    )
    if json_file is not None:
        write_json(json_file, done.as_dict())
    print_benchmark(done)


def _tell(measurement: Measurement) -> None:
    """A line for each run, on stderr."""
    what = f"{Path(measurement.model).stem}, {measurement.engine} {measurement.precision}"
    if measurement.message:
        typer.echo(f"{what}: not measured", err=True)
    else:
        seconds = measurement.runs[-1].latency_s
        typer.echo(f"run {len(measurement.runs)}: {what}: {seconds:.2f} s", err=True)
