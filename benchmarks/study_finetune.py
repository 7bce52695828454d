"""A published OBELISK fold, fine-tuned on whole scans, leave one out: a table in docs/results.md.

    python benchmarks/study_finetune.py obeliskhybrid_tcia_fold1.pth results \
        --data abdomen_ircad01 abdomen_ircad17_half chaos_ct_set3_dicom_png.zip --cpu-minutes 5

The published network finds the box of the abdominal organs in each scan; scans are cropped to it,
and the network is trained on the crops: from the published weights (`init`), and from nothing.
The head of the published network has other classes, so it starts anew in both.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import leanseg
from leanseg.datasets import merge_datasets
from leanseg.training import load_recipe
from leanseg.volumes import bounding_box, reorient

# Around the organs, as the published boxes have about it.
_MARGIN_MM = 15.0
_LABELS = {
    "liver": ["liver", "liver lesion?"],
    "spleen": ["spleen"],
    "left kidney": ["left kidney"],
}
_PHASE = {
    "sampler": {"name": "volumes"},
    "augmentation": [{"name": "affine-noise", "options": {"sigma": 0.05}}],
    "loss": [{"name": "hard-cross-entropy", "options": {"class_weights": "batch"}}],
    "schedule": {"name": "cosine", "warmup": 0.05},
    "batch_size": 1,
    "epochs": None,
    "steps": 100_000,
    "steps_per_epoch": 20,
    "selection": "last",
}


def cropped(model: leanseg.Model, data: leanseg.Dataset) -> leanseg.Dataset:
    """The dataset's scans and labels within the box of what a model finds."""
    cases = []
    for case in data:
        image, label = case.image, case.label
        assert label is not None
        label = reorient(label, image.orientation)
        found = model.predict(image)
        box = bounding_box(found.array > 0, margin_mm=_MARGIN_MM, spacing_mm=image.spacing_mm)
        assert box is not None, case.name
        pair = leanseg.crop(image, box), leanseg.crop(label, box)
        cases.append(leanseg.Case(*pair, case.name, annotated=case.annotated))
    return leanseg.Dataset(cases, labels=data.labels)


def main() -> None:
    """Train both starts, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--cpu-minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--starts", nargs="+", default=["published", "nothing"])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    published = leanseg.import_weights(given.checkpoint, given.output / "published.leanseg")
    model = leanseg.load_model(published)
    data = cropped(model, merge_datasets([leanseg.open_dataset(path) for path in given.data]))
    lines = []
    for start, rate, init in (
        ("published", 5e-4, json.dumps(str(published.resolve()))),
        ("nothing", 2e-3, "null"),
    ):
        if start not in given.starts:
            continue
        phase = {**_PHASE, "optimiser": {"name": "Adam", "options": {"lr": rate}}}
        recipe = load_recipe(
            "obelisk-hybrid-tcia",
            [
                f"data.labels={json.dumps(_LABELS)}",
                f"phases=[{json.dumps(phase)}]",
                "split={kind: leave-one-out, monitor_fraction: 0}",
                "training.folds=all",
                f"training.threads={given.threads}",
                f"init={init}",
            ],
        ).within(cpu_minutes=given.cpu_minutes)
        folder = given.output / start
        exists = (folder / "recipe.yaml").exists()
        run = (
            leanseg.resume(folder)
            if exists
            else leanseg.train(data, recipe, output=folder, check=False)
        )
        for fold in run.folds:
            summary = json.loads((folder / f"fold_{fold}/summary.json").read_text())
            scores = json.loads((folder / f"fold_{fold}/test/scores.json").read_text())
            dice = {score["label"]: score["metrics"]["dice"] for score in scores["cases"]}
            told = ", ".join(f"{label} {value or 0:.3f}" for label, value in dice.items())
            case = scores["cases"][0]["case"]
            lines.append(f"| {case} | {start} | {summary['steps']} | {told} |")
    for case in data:
        names = [name for name in model.labels if name in data.labels and case.annotates(name)]
        scores = leanseg.evaluate(
            model.predict(case.image),
            case.label,
            {name: data.labels[name] for name in names},
            prediction_labels={name: model.labels[name] for name in names},
        )
        told = ", ".join(f"{each.label} {each.metrics['dice'] or 0:.3f}" for each in scores.cases)
        lines.append(f"| {case.name} | published, as it is | 0 | {told} |")
    print("| scan | start | steps | Dice |\n|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
