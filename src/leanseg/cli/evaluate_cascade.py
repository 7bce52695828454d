"""`leanseg evaluate --cascade`: what each stage of a cascade costs, as small tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from leanseg.cli.output import print_notes, print_table, progress

if TYPE_CHECKING:
    from leanseg.evaluation.budget import ErrorBudget

# Options of `leanseg evaluate` that are of label maps, not of a model.
_TAKEN: Final = {"predictions", "references", "labels", "output", "ignore", "geometry", "cascade"}


def evaluate_cascade(
    context: typer.Context,
    model_file: Path,
    data: Path,
    labels: str | None,
    output: Path | None,
    ignore: int | None,
    geometry: str,
) -> None:
    """Print and write the error budget of a cascade.

    Args:
        context: Tells which options were given.
        model_file: The model.
        data: The dataset.
        labels: As `leanseg evaluate` takes them.
        output: Folder for budget.json and budget.csv.
        ignore: Ignored value.
        geometry: Which of a NIfTI header's forms counts.

    Raises:
        LeansegError: If an option has no meaning here; else as `error_budget`.
    """
    from leanseg.datasets import open_dataset
    from leanseg.errors import LeansegError
    from leanseg.evaluation import parse_labels
    from leanseg.files import require_outputs
    from leanseg.inference import load_model
    from leanseg.inference.error_budget import error_budget, require_cascade

    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name not in _TAKEN and source is not None and source.name == "COMMANDLINE":
            raise LeansegError(
                f"{parameter.opts[0]} is for label maps, not for --cascade; leave one of them out"
            )
    wanted = None if labels is None else parse_labels(labels)
    model = load_model(model_file, in_background=True)
    require_cascade(model)
    dataset = open_dataset(data).read_as(geometry)
    files = [] if output is None else [output / "budget.json", output / "budget.csv"]
    require_outputs(files, [model_file, *dataset.files()], new_folders=True)
    with progress() as display:
        budget = error_budget(
            model,
            dataset,
            wanted,
            ignored_values=[] if ignore is None else [ignore],
            on_case=display.count("predicting", len(dataset.cases)),
        )
    print_notes(budget.notes)
    _print(budget)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        budget.to_json(files[0])
        budget.to_csv(files[1])
        typer.echo(f"wrote {files[0]} and budget.csv")


def _print(budget: ErrorBudget) -> None:
    summary, target = budget.summary, budget.target
    first = summary["stage_1"]
    organ, nothing = first["organ_dice"], first["found_nothing"]
    print_table(
        [
            {
                "labelled slices missed": f"{first['missed_slices']} of {first['labelled_slices']}",
                "cases where nothing is found": f"{len(nothing)} of {first['cases']}",
                "mean Dice": _number(organ["mean"]),
                "worst": _number(organ["worst"]),
                "worst case": organ["worst_case"] or "",
            }
        ],
        left=("worst case",),
        title=f"stage 1, {budget.organ}",
    )
    rows = [
        {
            "margin (pixels)": f"{margin} (the model's)"
            if margin == budget.margin
            else str(margin),
            "mean": _number(kept["mean"]),
            "worst": _number(kept["worst"]),
            "lost entirely": f"{kept['lost']} of {kept['parts']}",
            "of all voxels": _number(kept["of_all_voxels"]),
        }
        for margin, kept in summary["kept"].items()
    ]
    title = f"{target} that the crop keeps"
    print_table(rows, left=("margin (pixels)",), title=title)
    if summary["off_grid"]:
        typer.echo(f"{summary['off_grid']} more have no voxel on the model's grid")
    titles = {"dice_found": "found box", "dice_true": "true box", "gain": "difference"}
    rows = [
        {
            "": title,
            "mean": _number(of_box["mean"]),
            "worst": _number(of_box["worst"]),
            "worst case": of_box["worst_case"] or "",
        }
        for title, of_box in ((titles[name], each) for name, each in summary["dice"].items())
    ]
    n_cases = summary["dice"]["gain"]["n"]
    title = f"Dice of {target}, {n_cases} case(s)"
    print_table(rows, left=("", "worst case"), title=title)
    if budget.has_lesion:
        _print_lesions(target, summary["lesions"])
    typer.echo(budget.verdict)


def _print_lesions(target: str, lesions: dict[str, dict[str, Any]]) -> None:
    found, true = lesions["found"], lesions["true"]
    sizes = {f"{name} mm": name for name in found["by_diameter_mm"]}
    pairs = {
        title: [each["by_diameter_mm"][name] for each in (found, true)]
        for title, name in sizes.items()
    }
    rows = [
        {
            "diameter": title,
            "lesions": str(with_found["n_lesions"]),
            "sensitivity, found box": _number(with_found["sensitivity"]),
            "true box": _number(with_true["sensitivity"]),
        }
        for title, (with_found, with_true) in {**pairs, "all": [found, true]}.items()
    ]
    print_table(rows, left=("diameter",), title=f"{target}, lesions found")
    per_scan = [_number(each["false_positives_per_scan"]) for each in (found, true)]
    typer.echo(
        f"False positives per scan: {per_scan[0]} with the found box, {per_scan[1]} with "
        "the true box"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
