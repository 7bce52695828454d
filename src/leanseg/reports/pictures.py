"""The best, the median and the worst case as slices with contours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leanseg.errors import LeansegError
from leanseg.preprocessing.plan import HounsfieldWindow
from leanseg.reports.markup import Markup, embedded_image, join, note, number, section, tag
from leanseg.reports.overlay import (
    LABEL_COLOURS,
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    OverlayInput,
    caption,
    choose_slices,
    slice_figure,
)
from leanseg.reports.references import read_image, read_reference
from leanseg.reports.run import Fold, Run
from leanseg.reports.score_tables import MiddleBaseline
from leanseg.volumes import read_volume


@dataclass(frozen=True)
class ShownCase:
    """A case worth a picture.

    Attributes:
        title: "Best", "Median" or "Worst".
        case: Its name.
        fold: The fold that predicted it.
        dice: Mean over its labels.
    """

    title: str
    case: str
    fold: Fold
    dice: float


def shown_cases(run: Run) -> list[ShownCase]:
    """The best, the median and the worst case by Dice, as far as there are so many.

    With an even number of cases the median is the better of the two in the middle.
    """
    ranked = []
    for fold in run.folds:
        for case in dict.fromkeys(score.case for score in fold.cases):
            values = [s.metrics["dice"] for s in fold.cases if s.case == case]
            defined = [value for value in values if value is not None]
            if defined:
                ranked.append((float(np.mean(defined)), case, fold))
    ranked.sort(key=lambda entry: (-entry[0], entry[1]))
    if len(ranked) == 1:
        chosen = {"The only case": 0}
    elif len(ranked) == 2:
        chosen = {"Best": 0, "Worst": 1}
    elif ranked:
        chosen = {"Best": 0, "Median": (len(ranked) - 1) // 2, "Worst": len(ranked) - 1}
    else:
        chosen = {}
    return [
        ShownCase(title, ranked[index][1], ranked[index][2], ranked[index][0])
        for title, index in chosen.items()
    ]


def pictures_section(run: Run, middle: MiddleBaseline) -> Markup:
    """The shown cases with a legend; a case whose files cannot be read says so."""
    cases = shown_cases(run)
    if not cases:
        missing = note("There are no pictures yet: no validation case has been scored.")
        return section("Best, median and worst case", "pictures", missing)
    orientation = tag(
        "p",
        "The patient’s right is at the left of axial and coronal pictures (R, L: right, left; "
        "A: anterior; S: superior). Positions are world coordinates in mm: x grows to the "
        f"patient’s right, y to the front, z to the head. {_window_text(run)}",
        class_="fine",
    )
    rows = [_case_row(run, shown, middle) for shown in cases]
    return section(
        "Best, median and worst case", "pictures", legend(run.labels), orientation, *rows
    )


def legend(labels: Sequence[str]) -> Markup:
    """What the lines in the pictures mean."""
    if len(labels) <= 1:
        entries = [
            ("reference", REFERENCE_COLOUR, "solid"),
            ("prediction", PREDICTION_COLOUR, "dashed"),
        ]
    else:
        entries = [("reference", "#ffffff", "solid"), ("prediction", "#ffffff", "dashed")]
        entries += [
            (label, LABEL_COLOURS[n % len(LABEL_COLOURS)], "solid")
            for n, label in enumerate(labels)
        ]
    swatches = (
        tag("span", tag("i", style=f"border-top: 3px {line} {colour}"), name, class_="swatch")
        for name, colour, line in entries
    )
    return tag("p", *swatches, class_="legend")


def _window_text(run: Run) -> str:
    if run.plan is not None and isinstance(run.plan.window, HounsfieldWindow):
        low, high = number(run.plan.window.low), number(run.plan.window.high)
        return f"Grey values: {low} HU black, {high} HU white, the window that the network sees."
    channel = run.plan.channels[0] if run.plan is not None else "the first channel"
    return f"Grey values: {channel}, percentiles 1 to 99.5 of the scan."


def _case_row(run: Run, shown: ShownCase, middle: MiddleBaseline) -> Markup:
    scores = [s for s in shown.fold.cases if s.case == shown.case]
    facts = [f"Dice {number(shown.dice, 3)}" + (" (mean of labels)" if len(scores) > 1 else "")]
    if len(scores) == 1:
        distance = scores[0].metrics["hausdorff95_mm"]
        if distance is not None:
            facts.append(f"Hausdorff 95 % {number(distance, 1)} mm")
        base = middle.dice.get((shown.case, scores[0].label))
        if base is not None:
            facts.append(f"the middle would have {number(base, 3)}")
    title = tag("h3", f"{shown.title}: ", shown.case, tag("small", " " + " · ".join(facts)))
    try:
        body = _panels(run, shown)
    except (LeansegError, OSError) as error:
        body = note(f"No picture: {error}.")
    return tag("article", title, body, class_="case")


def _panels(run: Run, shown: ShownCase) -> Markup:
    image = read_image(run, shown.case)
    prediction = read_volume(shown.fold.prediction_path(shown.case))
    scene = OverlayInput.from_volumes(image, read_reference(run, shown.case), prediction)
    window = None
    if run.plan is not None and isinstance(run.plan.window, HounsfieldWindow):
        window = (run.plan.window.low, run.plan.window.high)
    panels = []
    for view in choose_slices(scene.reference, scene.prediction):
        figure = slice_figure(scene, view, labels=run.data.get("labels"), window=window)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        text = caption(scene, view)
        description = f"{shown.case}, {text}; reference solid, prediction dashed"
        picture = embedded_image(buffer.getvalue(), "image/png", description)
        panels.append(tag("figure", tag("div", picture, class_="screen"), tag("figcaption", text)))
    return tag("div", join(panels), class_="panels")
