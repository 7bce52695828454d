"""Several models as one: members in order, and what keeps models apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import plans
from leanseg.errors import ModelFileError
from leanseg.modelfile import (
    Member,
    ModelFile,
    NetworkSpec,
    Provenance,
    join_members,
    read_model,
    write_model,
)
from leanseg.plan import Plan

PLAN = plans.slices(labels=("liver", "spleen"))


def written(path: Path, value: float, plan: Plan = PLAN, **provenance) -> ModelFile:
    spec = NetworkSpec(
        name="monet", in_channels=len(plan.channels), out_channels=plan.final.n_outputs
    )
    member = Member(spec, {"w": np.full(2, value, np.float32)})
    write_model(path, ModelFile.of(plan, member, provenance=Provenance(**provenance)))
    return read_model(path)


def test_members_come_in_order_and_each_keeps_its_record(tmp_path: Path) -> None:
    folds = [
        written(
            tmp_path / f"{n}.leanseg",
            n,
            data_name="Task07",
            training_cases=(f"case {n}", "common"),
            monitor_cases=("other",),
            test_cases=("tested",),
            scores={"liver": n / 10},
            training={"fold": n},
        )
        for n in range(3)
    ]
    path = tmp_path / "all.leanseg"
    write_model(path, join_members(folds))
    joined = read_model(path)
    assert [member.weights["w"][0] for member in joined.members] == [0, 1, 2]
    assert joined.plan == PLAN
    assert joined.provenance.data_name == "Task07"
    assert joined.provenance.training_cases == ("case 0", "common", "case 1", "case 2")
    # No score is the ensemble's own.
    assert joined.provenance.scores == {}
    records = joined.provenance.training["members"]
    assert [(each["fold"], each["scores"]["liver"]) for each in records] == [
        (0, 0.0),
        (1, 0.1),
        (2, 0.2),
    ]
    more = join_members([joined, written(tmp_path / "3.leanseg", 3)])
    assert [member.weights["w"][0] for member in more.members] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ("liver", "kidney")}, r"labels \(liver, kidney; liver, spleen\)"),
        ({"shape": (64, 64)}, r"plan \(stages\.0\.frame\.axes\.0\.size\)"),
        ({"channels": ("T1",)}, r"plan \(channels\.0\)"),
    ],
)
def test_other_plans_are_refused(tmp_path: Path, changes: dict, said: str) -> None:
    first = written(tmp_path / "first.leanseg", 0)
    other = written(
        tmp_path / "other.leanseg", 1, plans.slices(**{"labels": PLAN.labels, **changes})
    )
    with pytest.raises(ModelFileError, match=rf"other\.leanseg: differs .*first.* in its {said}"):
        join_members([first, other])


def test_another_threshold_is_named_though_the_usual_one_is_not_written(tmp_path: Path) -> None:
    first = written(tmp_path / "first.leanseg", 0, plans.slices())
    other = written(tmp_path / "other.leanseg", 1, plans.slices(threshold=0.4))
    with pytest.raises(ModelFileError, match=r"in its plan \(stages\.0\.threshold\)"):
        join_members([first, other])


def test_one_model_or_one_twice_makes_no_ensemble(tmp_path: Path) -> None:
    first = written(tmp_path / "first.leanseg", 0)
    with pytest.raises(ModelFileError, match="give at least two"):
        join_members([first])
    copy = written(tmp_path / "copy.leanseg", 0)
    with pytest.raises(ModelFileError, match=r"copy\.leanseg: holds the same weights as"):
        join_members([first, written(tmp_path / "b.leanseg", 1), copy])


def test_an_ensemble_is_not_calibrated_as_its_members_are(tmp_path: Path) -> None:
    """The temperature of a mean is none of those of its members, which may differ."""
    models = [
        written(tmp_path / f"{n}.leanseg", n, PLAN.with_temperature(0.5 + n)) for n in range(2)
    ]
    assert [model.plan.final.temperature for model in models] == [0.5, 1.5]
    assert join_members(models).plan == PLAN
    # It is said only where there is one.
    assert '"temperature"' in models[0].plan.model_dump_json()
    assert '"temperature"' not in PLAN.model_dump_json()
