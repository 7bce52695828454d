"""Models and a combiner in one file: names, regions, provenance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import plans
from leanseg.modelfile import (
    Member,
    ModelFile,
    NetworkSpec,
    Provenance,
    join_stack,
    read_model,
    stage_names,
    write_model,
)
from leanseg.plan import Around, Plan


def model(plan: Plan, value: float, **provenance) -> ModelFile:
    spec = NetworkSpec(
        name="monet", in_channels=len(plan.channels), out_channels=plan.final.n_outputs
    )
    member = Member(spec, {"w": np.full(2, value, np.float32)})
    return ModelFile.of(plan, member, provenance=Provenance(**provenance))


def test_names_of_stages() -> None:
    assert stage_names(["a", "b", "a", "MoNet, 2-D!", "-"]) == [
        "a-1", "b-1", "a-2", "MoNet-2-D-1", "member-1",
    ]  # fmt: skip


def test_members_and_combiner_in_one_file(tmp_path: Path) -> None:
    flat = model(
        plans.slices(labels=("organ",)), 1, training_cases=("a", "b"), monitor_cases=("c",)
    )
    # A model of two stages: a scout, and the network that looks around what it finds.
    solid = model(
        plans.whole((8, 8, 8), ("organ", "spot"), around="body"),
        2,
        training_cases=("b", "c"),
        monitor_cases=("d",),
        scores={"organ": 0.5},
    )
    combiner = plans.slices((16, 16), ("organ", "spot")).final
    spec = NetworkSpec(name="combiner", in_channels=4, out_channels=3)
    networks = [Member(spec, {"w": np.full(2, n, np.float32)}) for n in (3, 4)]
    path = tmp_path / "stack.leanseg"
    write_model(path, join_stack([flat, solid], ["flat-1", "solid-1"], combiner, networks))
    joined = read_model(path)
    assert [stage.name for stage in joined.plan.stages] == [
        "flat-1", "solid-1-scout", "solid-1", "combiner",
    ]  # fmt: skip
    region = joined.plan.network("solid-1").frame.region
    assert isinstance(region, Around)
    assert region.stage == "solid-1-scout"
    assert joined.plan.final.inputs == ("flat-1", "solid-1")
    weights = {name: [m.weights["w"][0] for m in each] for name, each in joined.stages.items()}
    assert weights == {"flat-1": [1], "solid-1": [2], "combiner": [3, 4]}
    provenance = joined.provenance
    assert provenance.training_cases == ("a", "b", "c")
    assert provenance.monitor_cases == ("d",)
    # No score is the stack's own.
    assert provenance.scores == {}
    kept = provenance.training["members"]["solid-1"]
    assert kept["scores"] == {"organ": 0.5}
    assert kept["training_cases"] == ["b", "c"]


def test_a_stack_of_stacks_keeps_its_inputs() -> None:
    flat = model(plans.slices(labels=("organ",)), 1)
    combiner = plans.slices((16, 16), ("organ",)).final
    spec = NetworkSpec(name="combiner", in_channels=1, out_channels=1)
    inner = join_stack([flat], ["flat-1"], combiner, [Member(spec, {})])
    outer = join_stack([inner, flat], ["stack-1", "flat-1"], combiner, [])
    assert [stage.name for stage in outer.plan.stages] == [
        "stack-1-flat-1", "stack-1", "flat-1", "combiner",
    ]  # fmt: skip
    assert outer.plan.network("stack-1").inputs == ("stack-1-flat-1",)
