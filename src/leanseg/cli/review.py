"""`leanseg review`: which results to trust, without labels to compare them with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options
from leanseg.cli.output import console, print_table, progress
from leanseg.errors import LeansegError

if TYPE_CHECKING:
    from leanseg.inference.review import Review
    from leanseg.modelfile import ReviewRecord

EXIT_SOME_FAILED = 1
FILES = ("review.json", "review.csv")
_STYLES = {"PASS": "green", "REVIEW": "yellow", "REJECT": "red"}


def command(
    model: options.Model,
    scans: Annotated[
        Path, typer.Argument(help="The predicted scans: a scan, a folder or a dataset.")
    ],
    predictions: Annotated[Path, typer.Argument(help="The output folder of `leanseg predict`.")],
    channel: options.Channels = None,
    geometry: options.Geometry = "auto",
) -> None:
    """Say for every result whether to PASS, REVIEW or REJECT it, and why.

    The model needs the thresholds that `leanseg calibrate` puts into it. Writes review.json and
    review.csv beside the results.
    """
    from leanseg.files import require_outputs
    from leanseg.inference.inputs import collect_tasks
    from leanseg.inference.review import Reviewer
    from leanseg.inference.review_folder import review_folder
    from leanseg.modelfile import read_model

    file = read_model(model)
    reviewer = Reviewer.of(file)
    if not predictions.is_dir():
        raise LeansegError(f"{predictions}: is no folder; give the one with the label maps")
    require_outputs(predictions / name for name in FILES)
    tasks = collect_tasks([scans], file.plan, channel, geometry=geometry)
    with progress() as display:
        on_case = display.count("reviewing", len(tasks))
        reviews, failed = review_folder(reviewer, file, tasks, predictions, on_case)
    if len(tasks) == 1 and failed:
        raise LeansegError(next(iter(failed.values())))
    show_reviews(reviews, failed, reviewer.record, predictions)
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def show_reviews(
    reviews: Mapping[str, Review],
    failed: Mapping[str, str],
    record: ReviewRecord,
    folder: Path,
) -> None:
    """Write reviews into the folder of the results, and print them."""
    from leanseg.inference.review import write_reviews

    if not reviews and not failed:
        return
    write_reviews(reviews, record, *(folder / name for name in FILES))
    rows = [
        {
            "case": name,
            "verdict": review.verdict,
            "expected Dice": ", ".join(
                "-" if each.expected is None else f"{each.expected:.2f}"
                for each in review.labels.values()
            ),
            "reason": review.reason,
        }
        for name, review in reviews.items()
    ]
    print_table(rows, left=("case", "verdict", "reason"))
    out = console()
    verdicts: list[str] = [review.verdict for review in reviews.values()]
    for verdict, style in _STYLES.items():
        if n := verdicts.count(verdict):
            out.print(f"{verdict}: {n} of {len(verdicts)}", style=style)
    for name, message in failed.items():
        out.print(f"not reviewed: {name}: {message}", style="red", soft_wrap=True)
    out.print(f"wrote {folder / FILES[0]} and {FILES[1]}", soft_wrap=True)
