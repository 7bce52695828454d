"""Does `leanseg review` find bad results? On degraded scans, and on scans of another body part.

Half of the labelled cases that did not train a model calibrate it, with those that did to say what
is usual; the other half is predicted as it is and under every change of `leanseg robustness`. A
result is bad if its Dice is below the gate's own limit, 0.8 times the median of the cases that
calibrate, for any label; it is found if the verdict is REVIEW or REJECT. Scans of another body part
have no Dice: they are to be rejected, whole and cut to the size of known scans.

With --anchor, the expected Dice is set beside two that cost more: the agreement with the result of
a mirrored scan, and reverse classification accuracy (Valindria et al. 2017; here by affine
registration with SimpleITK: the prediction is carried to K labelled training scans, and the best
Dice there is the one to expect).

    python benchmarks/study_review.py RUN/fold_0/model.leanseg DATA -o OUT.json
        [--other NAME=FOLDER_OR_SCAN[:CHANNEL] ...] [--cases 12] [--quick] [--cut]
        [--calibrate 16] [--anchor 6] [--references 5]
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr

import leanseg
from leanseg.datasets import Case, Dataset, load_case
from leanseg.evaluation.changes import Labelled, choose_factors
from leanseg.evaluation.conformal import clopper_pearson
from leanseg.inference import load_model
from leanseg.inference.calibrating import calibrate
from leanseg.inference.inputs import collect_tasks, open_scan
from leanseg.inference.review import Reviewer
from leanseg.inference.robustness import choose_labels
from leanseg.modelfile import write_model
from leanseg.volumes import Box, Volume, crop, reorient

UNCHANGED = "unchanged"


def dice_of(a: np.ndarray, b: np.ndarray) -> float:
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def main() -> None:
    """Calibrate, review, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--other", action="append", default=[])
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--calibrate", type=int, default=1000, help="most cases that calibrate")
    parser.add_argument("--cut", action="store_true", help="other scans not whole, only cut")
    parser.add_argument("--quick", action="store_true", help="only the first and last levels")
    parser.add_argument("--anchor", type=int, default=0)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    model = load_model(given.model, threads=given.threads)
    data = leanseg.open_dataset(given.data)
    trained = {*model.file.provenance.training_cases}
    new = [case for case in data.cases if case.name not in trained]
    np.random.default_rng(1).shuffle(new)
    half = min(-(-len(new) // 2), given.calibrate)
    known = [case for case in data.cases if case.name in trained] + new[:half]
    path = given.output.with_suffix(".leanseg")
    if not path.exists():
        began = time.process_time()
        found = calibrate(model, of(data, known))
        print(f"calibrated with {found.n_cases} cases in {time.process_time() - began:.0f} s")
        for name, each in found.labels.items():
            print(name, each.before.error, each.after.error)
        write_model(path, found.model)
    model = load_model(path, threads=given.threads)
    for name, gate in Reviewer.of(model.file).record.labels.items():
        print(name, gate.model_dump(exclude={"usual"}), flush=True)
    study = Study(model, data, quick=given.quick)
    for case in new[half : half + given.cases]:
        study.degraded(case)
        print(case.name, flush=True)
    if given.anchor:
        references = [case for case in known if case.name in trained][: given.references]
        study.anchor(new[half : half + given.anchor], references)
    given.output.write_text(json.dumps(study.rows, indent=1))
    tables(study.rows)
    for other in given.other:
        study.other(*other.split("=", 1), cut=given.cut)
    given.output.write_text(json.dumps(study.rows, indent=1))
    tables(study.rows)


def of(data: Dataset, cases: list[Case]) -> Dataset:
    return Dataset(
        cases, data.labels, data.channels, name=data.name, root=data.root, layout=data.layout
    )


class Study:
    """Results, a row each."""

    def __init__(self, model: Any, data: Dataset, *, quick: bool) -> None:
        self.quick = quick
        self.model, self.reviewer = model, Reviewer.of(model.file)
        self.values, _ = choose_labels(model, data, None, ())
        self.rows: list[dict[str, Any]] = []

    def one(self, scan: Volume, channels: Any = None) -> tuple[Volume, dict[str, Any]]:
        """A result and its review."""
        began = time.process_time()
        found = self.model.predict_timed(scan, channels)
        predicted_s = time.process_time() - began
        began = time.process_time()
        look = self.reviewer.look(scan, channels)
        review = self.reviewer.review(look, found.labels, found.confidence)
        review_s = time.process_time() - began
        return found.labels, {
            "verdict": review.verdict,
            "reason": review.reason,
            "expected": {n: r.expected for n, r in review.labels.items()},
            "interval": {n: (r.low, r.high) for n, r in review.labels.items()},
            "distance": {n: r.distance for n, r in review.labels.items()},
            "confidence": dict(found.confidence),
            "predicted_s": predicted_s,
            "review_s": review_s,
        }

    def scored(self, scan: Labelled) -> tuple[Volume, dict[str, Any]]:
        """The same with its true Dice."""
        labels, row = self.one(scan.image)
        dice = {}
        for name, values in self.values.items():
            mask = np.isin(labels.array, self.model.label_values[name])
            truth = np.isin(scan.label.array, values)
            dice[name] = dice_of(mask, truth) if truth.any() else None
        gates = self.reviewer.record.labels
        bad = any(d is not None and d < gates[n].acceptable for n, d in dice.items())
        return labels, {**row, "dice": dice, "bad": bad}

    def degraded(self, case: Case) -> None:
        """A case, as it is and changed."""
        image, label = load_case(case)
        own = Labelled(image, label)
        _, row = self.scored(own)
        codes = self.model.plan.final.frame.orientation
        turned = own.each(lambda one: reorient(one, codes))
        mm = np.multiply(reorient(image, "LPS").shape, reorient(image, "LPS").spacing_mm).tolist()
        self.rows.append({"kind": UNCHANGED, "case": case.name, "shape_mm": mm, **row})
        for name, factor in choose_factors(None, hounsfield=self.model.plan.is_ct).items():
            for number, (level, amount) in enumerate(factor.levels.items()):
                between = 0 < number < len(factor.levels) - 1
                if name == "orientation" or (self.quick and between):
                    continue
                changed = factor.change(turned, amount, np.random.default_rng([7, number]))
                if changed is None or not changed.label.array.any():
                    continue
                _, row = self.scored(changed)
                self.rows.append({"kind": name, "level": level, "case": case.name, **row})

    def other(self, name: str, place: str, *, cut: bool) -> None:
        """Scans of another body part."""
        folder, _, channel = place.partition(":")
        chosen = [int(channel)] if channel else None
        for task in collect_tasks([Path(folder)], self.model.plan, chosen):
            scan = open_scan(task.case).read()
            size = [row["shape_mm"] for row in self.rows if row["kind"] == UNCHANGED]
            both = (name, scan), (f"{name}, cropped", centre(scan, np.median(size, 0)))
            for kind, one in both[cut:]:
                _, row = self.one(one, task.channel_indices)
                self.rows.append({"kind": f"other: {kind}", "case": task.case.name, **row})
                print(kind, task.case.name, row["verdict"], row["reason"], flush=True)

    def anchor(self, cases: list[Case], references: list[Case]) -> None:
        """What costs more, on scans as they are and noisy, cut or with thick slices."""
        loaded = (load_case(case) for case in references)
        atlas = [(image, reorient(label, "LPS")) for image, label in loaded]
        wanted = {("noise", -1), ("thickness", -1), ("border", -1), ("end", 0)}
        factors = choose_factors(None, hounsfield=self.model.plan.is_ct)
        codes = self.model.plan.final.frame.orientation
        for case in cases:
            image, label = load_case(case)
            turned = Labelled(image, label).each(lambda one: reorient(one, codes))
            scans = [turned]
            for name, index in sorted(wanted):
                amount = [*factors[name].levels.values()][index]
                changed = factors[name].change(turned, amount, np.random.default_rng(7))
                if changed is not None:
                    scans.append(changed)
            for scan in scans:
                labels, row = self.scored(scan)
                began = time.process_time()
                # From left to right, along the first axis of RAS and LPS.
                mirrored = scan.image.with_array(scan.image.array[::-1])
                again = self.model.predict(mirrored).array[::-1]
                flip_s = time.process_time() - began
                began = time.process_time()
                rca = self._rca(scan.image, labels, atlas)
                rca_s = time.process_time() - began
                for name, values in self.model.label_values.items():
                    if row["dice"][name] is None or row["expected"][name] is None:
                        continue
                    agreement = dice_of(np.isin(labels.array, values), np.isin(again, values))
                    self.rows.append(
                        {
                            "kind": "anchor",
                            "case": case.name,
                            "label": name,
                            "true": row["dice"][name],
                            "expected Dice of review": row["expected"][name],
                            "confidence": row["confidence"][name],
                            "agreement with a mirrored pass": agreement,
                            "reverse classification accuracy": rca[name],
                            "seconds": {
                                "prediction": row["predicted_s"],
                                "review": row["review_s"],
                                "mirrored": flip_s,
                                "rca": rca_s,
                            },
                        }
                    )
            print("anchor", case.name, flush=True)

    def _rca(self, image: Volume, labels: Volume, atlas: list[Any]) -> dict[str, float]:
        """Best Dice of the prediction, carried to labelled scans."""
        import SimpleITK as sitk  # noqa: N813

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        best = dict.fromkeys(self.model.label_values, 0.0)
        moving, moving_labels = itk(image, np.float32), itk(labels, np.uint8)
        for reference, truth in atlas:
            fixed = itk(reference, np.float32)
            start = sitk.CenteredTransformInitializer(
                fixed,
                moving,
                sitk.AffineTransform(3),
                sitk.CenteredTransformInitializerFilter.GEOMETRY,
            )
            method = sitk.ImageRegistrationMethod()
            method.SetMetricAsMattesMutualInformation(32)
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(min(1.0, 20_000 / np.prod(reference.shape)), 7)
            method.SetInterpolator(sitk.sitkLinear)
            method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 60)
            method.SetOptimizerScalesFromPhysicalShift()
            method.SetInitialTransform(start)
            try:
                transform = method.Execute(fixed, moving)
            except RuntimeError:
                continue
            carried = sitk.Resample(moving_labels, fixed, transform, sitk.sitkNearestNeighbor, 0)
            array = sitk.GetArrayFromImage(carried).transpose(2, 1, 0)
            for name, own in self.model.label_values.items():
                mask, known = np.isin(array, own), np.isin(truth.array, self.values[name])
                best[name] = max(best[name], dice_of(mask, known))
        return best


def itk(volume: Volume, dtype: Any) -> Any:
    """Of SimpleITK, its directions those of its axes."""
    import SimpleITK as sitk  # noqa: N813

    volume = reorient(volume, "LPS")
    image = sitk.GetImageFromArray(volume.array.astype(dtype).transpose(2, 1, 0))
    image.SetSpacing([float(mm) for mm in volume.spacing_mm])
    return image


def centre(scan: Volume, mm: Any) -> Volume:
    """The middle of a scan, as large as the scans that the model knows."""
    scan = reorient(scan, "LPS")
    wanted = np.rint(np.divide(mm, scan.spacing_mm)).astype(int)
    size = np.clip(wanted, 1, scan.shape)
    first = (np.array(scan.shape) - size) // 2
    return crop(scan, Box(tuple(map(int, first)), tuple(map(int, first + size))))


def share(k: int, n: int) -> str:
    if not n:
        return "-"
    low, high = clopper_pearson(k, n)
    return f"{k} of {n} ({100 * low:.0f} to {100 * high:.0f} %)"


def tables(rows: list[dict[str, Any]]) -> None:
    """Markdown."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["kind"] != "anchor":
            groups[row["kind"]].append(row)
            if "bad" in row and row["kind"] != UNCHANGED:
                groups["all changes"].append(row)
    print("\n| scans | n | bad | bad found | good passed | rejected | interval holds | off by |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for kind, own in groups.items():
        if kind.startswith("other"):
            continue
        bad, good = [r for r in own if r["bad"]], [r for r in own if not r["bad"]]
        found, passed = (
            sum(r["verdict"] != "PASS" for r in bad),
            sum(r["verdict"] == "PASS" for r in good),
        )
        pairs = [
            (r["dice"][n], r["expected"][n], *r["interval"][n])
            for r in own
            for n in r["dice"]
            if r["dice"][n] is not None and r["expected"][n] is not None
        ]
        held = sum(low <= dice <= high for dice, _, low, high in pairs)
        off = np.mean([abs(dice - expected) for dice, expected, *_ in pairs])
        rejected = sum(r["verdict"] == "REJECT" for r in own)
        print(
            f"| {kind} | {len(own)} | {len(bad)} | {share(found, len(bad))} | "
            f"{share(passed, len(good))} | {rejected} | {share(held, len(pairs))} | {off:.3f} |"
        )
    print("\n| another body part | n | rejected | to review | passed |\n|---|--:|--:|--:|--:|")
    for kind, own in groups.items():
        if kind.startswith("other"):
            n = [sum(r["verdict"] == v for r in own) for v in ("REJECT", "REVIEW", "PASS")]
            print(f"| {kind[7:]} | {len(own)} | {n[0]} | {n[1]} | {n[2]} |")
    timed = [r for own in groups.values() for r in own]
    if not timed:
        timed = [{"review_s": 0.0, "predicted_s": 1.0}]
    total = sum(r["review_s"] for r in timed) / sum(r["predicted_s"] for r in timed)
    print(
        f"\nreview takes {100 * total:.1f} % of prediction's processor time "
        f"(median {1000 * np.median([r['review_s'] for r in timed]):.0f} ms of "
        f"{1000 * np.median([r['predicted_s'] for r in timed]):.0f} ms)"
    )
    anchored = [row for row in rows if row["kind"] == "anchor"]
    if anchored:
        print("\n| estimate | Pearson | Spearman | off by |\n|---|--:|--:|--:|")
        true = np.array([row["true"] for row in anchored])
        for name in itertools.islice(anchored[0], 4, 8):
            value = np.array([row[name] or 0.0 for row in anchored])
            print(
                f"| {name} | {pearsonr(value, true)[0]:.2f} | {spearmanr(value, true)[0]:.2f} | "
                f"{np.abs(value - true).mean():.3f} |"
            )
        for name in anchored[0]["seconds"]:
            print(name, f"{np.median([row['seconds'][name] for row in anchored]):.3f} s")


if __name__ == "__main__":
    main()
