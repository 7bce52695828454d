"""What was trained on what: tiles, data and plan, speed, environment, recipe."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leanseg.preprocessing.plan import HounsfieldWindow, Plan, QuantileWindow
from leanseg.reports.markup import (
    MISSING,
    Markup,
    cell,
    definitions,
    details,
    duration,
    join,
    note,
    number,
    row_head,
    section,
    size,
    table,
    tag,
)
from leanseg.reports.plots import CURVES, as_svg, best_epoch, fold_colour, learning_curve
from leanseg.reports.run import Fold, Run


def tile(what: str, value: object, more: object = "") -> Markup:
    """One fact at a glance."""
    return tag(
        "div",
        tag("span", what, class_="what"),
        tag("strong", value),
        tag("span", more, class_="more"),
        class_="tile",
    )


def fact_tiles(run: Run) -> list[Markup]:
    """Network, size, data: what is known of them."""
    tiles = []
    summary = next((fold.summary for fold in run.folds if fold.summary), {})
    if "network" in summary:
        options = ", ".join(f"{k} {v}" for k, v in summary.get("network_options", {}).items())
        tiles.append(tile("Network", summary["network"], options))
    if "parameters" in summary:
        total = summary.get("keras_total")
        more = "" if total is None else f"{number(total)} with normalisation statistics"
        tiles.append(tile("Trainable parameters", number(summary["parameters"]), more))
    if "model_bytes" in summary:
        tiles.append(tile("Model file", size(summary["model_bytes"]), summary.get("model_file")))
    if run.data:
        scored = len({score.case for score in run.cases})
        more = f"{len(run.data.get('cases', ()))} cases, {scored} scored"
        tiles.append(tile("Data", run.data.get("name", MISSING), more))
    trained = [f.summary["train_seconds"] for f in run.folds if "train_seconds" in f.summary]
    if trained:
        reasons = dict.fromkeys(str(f.summary.get("stopped_because", "")) for f in run.folds)
        more = "ended by " + ", ".join(reason for reason in reasons if reason)
        what = "Training" if len(trained) == 1 else f"Training of {len(trained)} folds"
        tiles.append(tile(what, duration(sum(trained)), more))
    return tiles


def data_section(run: Run) -> Markup:
    """Data set, plan and split."""
    parts = []
    if run.data:
        parts += [tag("h3", "Data"), definitions(_data_facts(run.data))]
    if run.plan is not None:
        parts += [tag("h3", "Plan: from scan to network"), definitions(_plan_facts(run.plan))]
    if run.splits:
        parts.append(tag("h3", "Split"))
        parts += [_split(index, fold) for index, fold in enumerate(run.splits)]
    if not parts:
        parts = [note("data.json, plan.json and splits.json are missing.")]
    return section("Data and plan", "data", *parts)


def _data_facts(data: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield "Name", data.get("name", MISSING)
    yield "Folder", tag("code", data.get("root", MISSING))
    yield "Layout", data.get("layout", MISSING)
    yield "Cases", len(data.get("cases", ()))
    yield "Channels", ", ".join(data.get("channels", ())) or MISSING
    merged = data.get("label_values", {})
    labels = []
    for name, value in data.get("labels", {}).items():
        inside = ", ".join(str(one) for one in merged.get(name, ()))
        labels.append(f"{value} {name}" + (f" (in the files: {inside})" if inside else ""))
    yield "Labels", "; ".join(labels) or MISSING
    yield "Fingerprint (SHA-256)", tag("code", data.get("fingerprint", MISSING))


def _plan_facts(plan: Plan) -> Iterator[tuple[str, object]]:
    window = plan.window
    if isinstance(window, HounsfieldWindow):
        yield "Window", f"{number(window.low)} to {number(window.high)} HU"
    elif isinstance(window, QuantileWindow):
        over = "voxels that are not zero" if window.nonzero_only else "all voxels"
        yield "Window", f"quantiles {window.low} to {window.high} of {over}, per scan"
    else:
        yield "Window", "none"
    if plan.scaling == "linear":
        linear = plan.linear_scaling
        yield "Scaling", f"divided by {linear.divide_by:g}, plus {linear.add:g}"
    else:
        scaling = {"minmax": "to [0, 1]", "zscore": "to mean 0 and standard deviation 1"}
        yield "Scaling", f"{scaling[plan.scaling]}, per scan and channel"
    rows, columns = plan.slice_shape
    yield "Slice shape", f"{rows} × {columns}"
    yield "Orientation", f"{plan.orientation}, slices along the third axis"
    slices = plan.training_slices
    if slices is None:
        yield "Training slices", "all"
    else:
        count = "" if slices.count is None else f", resized to {slices.count}"
        yield "Training slices", f"the labelled ones and {slices.margin} on either side{count}"
    post = "largest component of each label" if plan.postprocessing.largest_component else "none"
    yield "Post-processing", post


def _split(index: int, split: Any) -> Markup:
    names = details(
        f"{len(split.train)} training cases", tag("p", _names(split.train), class_="names")
    )
    heading = f"Fold {index}: validation, {len(split.validation)} cases: "
    return tag("div", tag("p", heading, _names(split.validation), class_="names"), names)


def _names(names: Sequence[str]) -> Markup:
    return join([tag("code", name) for name in names], " ")


def curves_section(run: Run) -> Markup:
    """Learning curves against epochs and against time."""
    folds = [fold for fold in run.folds if fold.epochs]
    if not folds:
        return section("Learning curves", "curves", note("No epoch has ended yet."))
    parts = []
    if len(folds) > 1:
        swatches = (
            tag(
                "span",
                tag("i", style=f"border-top: 3px solid {fold_colour(position)}"),
                f"fold {fold.index}",
                class_="swatch",
            )
            for position, fold in enumerate(folds)
        )
        parts.append(tag("p", *swatches))
    for against in ("epoch", "elapsed_s"):
        pictures = [
            as_svg(learning_curve(folds, curve, against), f"{curve.title} against {against}")
            for curve in CURVES
        ]
        parts.append(tag("div", *pictures, class_="plots three"))
    parts.append(tag("p", " ".join(_best_text(fold) for fold in folds), class_="fine"))
    return section("Learning curves", "curves", *parts)


def _best_text(fold: Fold) -> str:
    best = best_epoch(fold)
    if best is None:
        return f"Fold {fold.index}: {len(fold.epochs)} epochs."
    row = fold.epochs[best]
    return (
        f"Fold {fold.index}: {len(fold.epochs)} epochs; the best, marked by the ring, is epoch "
        f"{row.get('epoch', best + 1)} with validation Dice {number(row.get('val_dice'), 3)} "
        f"after {duration(row.get('elapsed_s'))}."
    )


def speed_section(run: Run) -> Markup:
    """Seconds of prediction."""
    rows, seconds = [], []
    for fold in run.folds:
        for entry in fold.summary.get("prediction", {}).get("cases", ()):
            took, slices = entry.get("seconds"), entry.get("slices")
            per_slice = took / slices * 1000 if took is not None and slices else None
            seconds += [] if took is None else [took]
            rows.append([row_head(entry["case"]), cell(slices), cell(took, 2), cell(per_slice, 1)])
    if not rows:
        return section("Speed", "speed", note("No prediction has been timed yet."))
    summary = next(fold.summary for fold in run.folds if fold.summary)
    facts: list[tuple[str, object]] = []
    if seconds:
        text = f"{number(statistics.median(seconds), 2)} s, longest {number(max(seconds), 2)} s"
        facts.append(("A case, median", text))
    facts += [
        (title, summary[key])
        for title, key in (("Precision", "precision"), ("Threads", "threads"))
        if key in summary
    ]
    head = ("Case", "Slices", "Seconds", "Milliseconds a slice")
    listed = table(head, rows, caption="Prediction of the validation cases", sortable=True)
    return section("Speed", "speed", definitions(facts), details("Every case", listed))


def origin_section(run: Run) -> Markup:
    """Environment and resolved recipe, closed at first."""
    parts = []
    if run.environment:
        parts.append(details("Environment", definitions(_flat(run.environment))))
    if run.recipe_text:
        parts.append(details("Resolved recipe", tag("pre", run.recipe_text)))
    for fold in run.folds:
        facts = {key: value for key, value in fold.summary.items() if key != "prediction"}
        if facts:
            parts.append(details(f"Training summary, fold {fold.index}", definitions(_flat(facts))))
    return section("Environment and recipe", "origin", *parts) if parts else Markup()


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested data as names with dots, one value each."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(str(inner) for inner in value) or MISSING
    else:
        yield name, MISSING if value is None else str(value)
