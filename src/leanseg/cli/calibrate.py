"""`leanseg calibrate`: a model whose probabilities are true and whose results can be reviewed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options
from leanseg.cli.output import print_notes, print_table, progress

if TYPE_CHECKING:
    from leanseg.evaluation.calibration import Reliability
    from leanseg.inference.calibrating import Calibration


def command(
    model_file: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file (.leanseg).")],
    data: options.Data,
    output: options.ModelOutput,
    figure: Annotated[
        Path | None,
        typer.Option(help="Also draw the reliability of the probabilities: a .png or .svg file."),
    ] = None,
    acceptable: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Dice below which a result is bad; 0.8 x median if not given."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Values of the model's labels, where names differ: liver=1,tumour=2+3."),
    ] = None,
    ignore: Annotated[
        int | None, typer.Option(help="Value of voxels in the label maps that do not count.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the changes of scans.")] = 0,
    threads: options.Threads = None,
    geometry: options.Geometry = "auto",
) -> None:
    """Calibrate a model with labelled scans that did not train it; no label changes.

    Fits the temperature of saved probabilities, and the thresholds of `leanseg review`: what is
    usual for scans and results, and which Dice to expect. Scans that trained the model are used
    only for what is usual.
    """
    from leanseg.datasets import open_dataset
    from leanseg.errors import LeansegError
    from leanseg.evaluation import parse_labels
    from leanseg.files import require_outputs
    from leanseg.inference import load_model
    from leanseg.inference.calibrating import calibrate
    from leanseg.modelfile import write_model

    wanted = None if labels is None else parse_labels(labels)
    if figure is not None and figure.suffix.lower() not in (".png", ".svg"):
        raise LeansegError(f"{figure}: is no picture's name; end it in .png or .svg")
    model = load_model(model_file, threads=threads, in_background=True)
    dataset = open_dataset(data).read_as(geometry)
    require_outputs([output, *([figure] if figure else [])], dataset.files(), new_folders=True)
    with progress() as display:
        found = calibrate(
            model,
            dataset,
            wanted,
            acceptable=acceptable,
            ignored_values=[] if ignore is None else [ignore],
            seed=seed,
            on_begin=lambda total: display.count("predicting", total),
        )
    print_notes(found.notes)
    _print(found)
    if figure is not None:
        from leanseg.reports.reliability_figure import write_figure

        assert found.model.provenance.review is not None  # calibrate put it there
        write_figure(figure, found.model.provenance.review.reliability)
        typer.echo(f"wrote {figure}")
    write_model(output, found.model)
    typer.echo(f"wrote {output}; review results with 'leanseg predict {output} ... --review'")


def _print(found: Calibration) -> None:
    from leanseg.evaluation.calibration import scaled_threshold
    from leanseg.evaluation.conformal import clopper_pearson

    rows = [
        {
            "label": name,
            "error before": _number(each.before),
            "after": _number(each.after),
        }
        for name, each in found.labels.items()
    ]
    typer.echo(
        f"Calibration error of {found.n_cases} case(s), and under the temperature, "
        f"{found.temperature:.3g}, each half of the cases with that of the other:"
    )
    print_table(rows, left=("label",))
    threshold = found.model.plan.final.threshold
    if threshold != 0.5:
        cut = scaled_threshold(threshold, found.temperature)
        typer.echo(f"The threshold {threshold:g} is {cut:.4g} of probabilities that are saved now.")
    rows = []
    for name, each in found.labels.items():
        gate, (low, high) = each.gate, clopper_pearson(each.covered, each.n)
        rows.append(
            {
                "label": name,
                "cases": str(gate.n_cases),
                "off by": "-" if each.error is None else f"{each.error:.3f}",
                "interval holds for": f"{100 * gate.coverage:.0f} %",
                "seen to hold": f"{each.covered} of {each.n}",
                "95 % interval": f"{100 * low:.0f} to {100 * high:.0f} %" if each.n else "-",
                "bad below": f"{gate.acceptable:.3f}",
                "passes from": f"{gate.pass_at:.3f}",
            }
        )
    typer.echo(
        f"Expected Dice, its line fitted to {found.n_fitted} other case(s) as they are and changed:"
    )
    print_table(rows, left=("label",))


def _number(reliability: Reliability) -> str:
    return "-" if reliability.error is None else f"{reliability.error:.4f}"
