"""The plan as data: JSON there and back, and nothing accepted that means nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, ornt2axcodes
from pydantic import ValidationError

from leanseg.plan import WINDOWS as NAMED_WINDOWS
from leanseg.plan import (
    Around,
    Axis,
    Frame,
    HounsfieldWindow,
    Intensity,
    LinearScaling,
    NoWindow,
    Patch,
    Plan,
    QuantileWindow,
    Scout,
    Stage,
    StageSettings,
    TrainingScaling,
)
from plans import patches, slices, whole

ORIENTATIONS = sorted(
    {
        "".join(ornt2axcodes([(axes[n], flips[n]) for n in range(3)]))
        for axes in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        for flips in ((a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1))
    }
)
NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5, unique=True).map(tuple)
ORDERED = st.lists(
    st.floats(-2000, 3000, allow_nan=False), min_size=2, max_size=2, unique=True
).map(sorted)
SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(sorted)
WINDOWS = st.one_of(
    ORDERED.map(lambda x: HounsfieldWindow(low=x[0], high=x[1])),
    st.builds(
        lambda x, nonzero: QuantileWindow(low=x[0], high=x[1], nonzero_only=nonzero),
        SHARES,
        st.booleans(),
    ),
    st.just(NoWindow()),
)
SCALINGS = st.one_of(
    st.sampled_from(["minmax", "zscore"]),
    st.builds(LinearScaling, divide_by=st.floats(0.5, 2000), add=st.floats(-2, 2)),
    st.builds(TrainingScaling, training_volumes=st.integers(1, 300)),
)
SIZES = st.integers(1, 1024).map(lambda n: Axis(size=n))
OTHERS = st.floats(0.1, 10).map(lambda mm: Axis(spacing_mm=mm)) | st.just(Axis())


@st.composite
def stages(draw) -> Stage:
    """Axes and patches that go together."""
    axes = draw(st.tuples(*[SIZES | OTHERS] * 3))
    shape = [
        draw(
            st.integers(1, 96)
            if axis.size is None
            else st.just("whole") | st.integers(1, axis.size)
        )
        for axis in axes
    ]
    labels = draw(NAMES)
    # Whatever the numbers, each label lies in one that comes before it, or in none.
    outer = [draw(st.none() | st.sampled_from(labels[:n] or (None,))) for n in range(len(labels))]
    inside = {name: around for name, around in zip(labels, outer, strict=True) if around}
    one_each = bool(inside) or len(labels) == 1
    return Stage(
        labels=labels,
        inside=inside,
        frame=Frame(orientation=draw(st.sampled_from(ORIENTATIONS)), axes=axes),
        patch=Patch(*shape, overlap=draw(st.floats(0, 0.9))),
        intensity=Intensity(window=draw(WINDOWS), scaling=draw(SCALINGS)),
        largest_component=draw(st.booleans() | st.lists(st.sampled_from(labels)).map(tuple)),
        threshold=draw(st.floats(0.01, 0.99)) if one_each else 0.5,
    )


@settings(max_examples=100, deadline=None)
@given(stages(), NAMES)
def test_json_round_trip(stage: Stage, channels: tuple[str, ...]) -> None:
    plan = Plan(channels=channels, stages=(Scout(name="abdomen", finds="abdomen"), stage))
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert Plan.model_validate(json.loads(json.dumps(plan.model_dump(mode="json")))) == plan


def test_the_defaults_are_paper_000() -> None:
    stage = Stage(labels=("pancreas",))
    assert stage.intensity == Intensity(window=HounsfieldWindow(low=-150, high=200))
    assert stage.intensity.scaling == "minmax"
    assert stage.network_shape == (256, 256)
    assert not stage.is_3d


@pytest.mark.parametrize("name", NAMED_WINDOWS)
def test_windows_by_name_are_plain_windows(name: str) -> None:
    intensity = Intensity(window=name)
    assert intensity.window.kind == ("hu" if name.endswith("-hu") else "quantile")
    assert intensity.window.low < intensity.window.high
    assert Intensity.model_validate(intensity.model_dump(mode="json")) == intensity


def test_the_window_of_paper_002() -> None:
    assert Intensity(window="organ").window == QuantileWindow(low=0.60, high=0.99)


def test_scaling_by_channel() -> None:
    pair = [{"divide_by": 2.0, "add": 1.0}, {"divide_by": 3.0, "add": 0.0}]
    intensity = Intensity.model_validate({"scaling": pair})
    assert intensity.of_channel(1).scaling == LinearScaling(divide_by=3, add=0)
    stage = Stage(labels=("a",), intensity=intensity)
    plan = Plan(channels=("T1", "T2"), stages=(stage,))
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    with pytest.raises(ValidationError, match=r"scales 2 channel\(s\), but there are 1 \(CT\)"):
        Plan(stages=(stage,))


def test_all_48_orientations_are_known_and_no_other() -> None:
    assert len(ORIENTATIONS) == 48
    for codes in ORIENTATIONS:
        assert axcodes2ornt(codes).shape == (3, 2)
        assert Frame(orientation=codes).orientation == codes
    for codes in ("LLS", "lps", "LP", "LPSA", "XYZ", ""):
        with pytest.raises(ValidationError, match="orientation"):
            Frame(orientation=codes)


@pytest.mark.parametrize(("n_labels", "outputs"), [(1, 1), (2, 3), (5, 6)])
def test_outputs(n_labels: int, outputs: int) -> None:
    assert slices((8, 8), n_labels).final.n_outputs == outputs


def test_regions_have_an_output_each() -> None:
    labels = ("enhancing", "edema", "whole", "ventricle", "core")
    inside = {"enhancing": "core", "core": "whole", "edema": "whole"}
    stage = Stage(labels=labels, inside=inside)
    assert (stage.n_outputs, stage.activation) == (5, "sigmoid")
    assert stage.label_values == {
        "enhancing": (1,),
        "edema": (2,),
        "whole": (3, 1, 2, 5),
        "ventricle": (4,),
        "core": (5, 1),
    }
    assert stage.outer_first == (3, 4, 2, 5, 1)
    assert [stage.parent(number) for number in range(1, 6)] == [5, 3, 0, 0, 3]
    apart = Stage(labels=labels)
    assert (apart.n_outputs, apart.activation) == (6, "softmax")
    assert apart.outer_first == (1, 2, 3, 4, 5)
    assert apart.label_values == {name: (n,) for n, name in enumerate(labels, start=1)}


def test_a_plan_without_regions_is_written_as_before_there_were_any() -> None:
    plan = slices((8, 8), ("a", "b"))
    (written,) = plan.model_dump(mode="json")["stages"]
    assert sorted(written) == [
        *("frame", "intensity", "kind", "labels"),
        *("largest_component", "name", "patch"),
    ]
    assert Plan.model_validate({"stages": [written]}).final.inside == {}


@pytest.mark.parametrize("labels", [("a",), ("a", "b")])
@pytest.mark.parametrize("cleaned", [False, True])
def test_plans_of_before_are_read_and_written_as_they_were(labels, cleaned) -> None:
    """Bit for bit what was written before labels could be listed, and thresholds chosen."""
    spacing = '{"size":null,"spacing_mm":null}'
    axes = f'[{{"size":8,"spacing_mm":null}},{{"size":8,"spacing_mm":null}},{spacing}]'
    text = (
        '{"version":1,"channels":["CT"],"stages":[{'
        f'"frame":{{"orientation":"LPS","axes":{axes},"antialias":true,"region":"scan"}},'
        '"patch":{"shape":["whole","whole",1],"overlap":0.5,"neighbours":0},'
        '"intensity":{"window":{"kind":"none"},"scaling":"minmax"},'
        f'"largest_component":{json.dumps(cleaned)},"kind":"network","name":"main",'
        f'"labels":{json.dumps(labels, separators=(",", ":"))}}}]}}'
    )
    plan = Plan.model_validate_json(text)
    assert plan.model_dump_json() == text
    assert plan == slices((8, 8), labels, largest_component=cleaned)
    assert (plan.final.threshold, plan.final.cleaned_labels) == (0.5, labels if cleaned else ())
    assert "threshold" not in StageSettings().model_dump()


def test_which_labels_are_cleaned_and_in_which_order() -> None:
    inside = {"core": "whole", "enhancing": "core"}
    labels = ("enhancing", "core", "whole", "other")
    for chosen, expected in (
        (True, ("whole", "other", "core", "enhancing")),
        (["enhancing", "whole"], ("whole", "enhancing")),
        ([], ()),
    ):
        made = Stage(labels=labels, inside=inside, largest_component=chosen, threshold=0.25)
        assert made.cleaned_labels == expected
        written = made.model_dump(mode="json")
        assert (written["largest_component"], written["threshold"]) == (chosen, 0.25)


def test_levels_are_written_only_where_there_are_some() -> None:
    assert "levels" not in Intensity().model_dump()
    made = Intensity(levels=256)
    assert made.model_dump(mode="json")["levels"] == 256
    assert Intensity.model_validate(made.model_dump(mode="json")) == made
    pairs = [{"divide_by": 3, "add": 0}, {}]
    assert Intensity.model_validate({"scaling": pairs, "levels": 256}).of_channel(0).levels == 256


@pytest.mark.parametrize(
    "given_keys",
    [
        {"window": {"kind": "none"}},
        {"window": "organ"},
        {"scaling": "zscore"},
        {"scaling": {"training_volumes": 3}},
    ],
)
def test_levels_need_a_window_with_numbers(given_keys) -> None:
    with pytest.raises(ValidationError, match=r"levels \(256\) are for a window of kind hu"):
        Intensity.model_validate({"levels": 256, **given_keys})


def test_axes_are_written_short() -> None:
    frame = Frame.model_validate({"axes": [256, None, {"spacing_mm": 2.5}]})
    assert frame.axes == (Axis(size=256), Axis(), Axis(spacing_mm=2.5))
    assert frame.shape((100, 90, 30), (0.8, 0.8, 5.0)) == (256, 90, 60)
    assert Axis(spacing_mm=9).length(1, 0.1) == 1


def test_what_a_network_sees() -> None:
    seen = whole((3, 4, 5)).final
    assert (seen.network_shape, seen.is_3d, seen.sees_all) == ((3, 4, 5), True, True)
    tiles = patches((8, 9, 4), spacing_mm=(1, 1, 2.5)).final
    assert (tiles.network_shape, tiles.is_3d, tiles.sees_all) == ((8, 9, 4), True, False)
    assert patches((8, 9, 1)).final.network_shape == (8, 9)
    assert Patch(96, 96, 64) == Patch(shape=(96, 96, 64))
    plan = slices((8, 8), channels=("a", "b"), neighbours=2)
    assert plan.input_shape(plan.final) == (10, 8, 8)


@pytest.mark.parametrize(
    ("given_keys", "where"),
    [
        ({"intensty": {}}, "intensty"),
        ({"intensity": {"window": {"kind": "hu", "lo": -10}}}, "intensity.window.hu.lo"),
        ({"intensity": {"window": {"kind": "fixed"}}}, "intensity.window"),
        ({"intensity": {"window": {"kind": "hu", "low": 5, "high": 5}}}, "intensity.window.hu"),
        (
            {"intensity": {"window": {"kind": "quantile", "high": 99}}},
            "intensity.window.quantile.high",
        ),
        ({"frame": {"axes": [256, 256]}}, "frame.axes.2"),
        ({"frame": {"axes": [0, 256, None]}}, "frame.axes.0.size"),
        ({"frame": {"axes": [{"spacing_mm": 0}, 256, None]}}, "frame.axes.0.spacing_mm"),
        ({"patch": {"overlap": 1.0}}, "patch.overlap"),
        ({"patch": {"neighbours": -1}}, "patch.neighbours"),
        ({"largest_component": "liver"}, "largest_component"),
        ({"largest_component": 1}, "largest_component"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": 1.0}, "threshold"),
        ({"threshold": True}, "threshold"),
    ],
)
def test_a_wrong_key_or_value_is_named(given_keys: dict, where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        StageSettings.model_validate(given_keys)
    assert ".".join(str(part) for part in caught.value.errors()[0]["loc"]) == where


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        slices((8, 8)).final.name = "other"


def stage(name: str = "main", **options) -> dict:
    return {"kind": "network", "name": name, "labels": ["liver", "spleen"], **options}


def around(name: str, **options) -> dict:
    return {"frame": {"region": {"stage": name, **options}}}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([stage(frame={"axes": [{"size": 8, "spacing_mm": 1}, 8, None]})], r"size \(8\) or a sp"),
        (
            [stage(frame={"axes": [64, 64, None]}, patch={"shape": [65, 64, 1]})],
            "patch of 65 voxels is larger than the frame, 64",
        ),
        (
            [stage(frame={"axes": [64, None, None]})],
            "whole along axis 1, whose length the frame leaves to the scan",
        ),
        ([stage(patch={"shape": ["whole", "whole", 0]})], "at least 1 voxel"),
        (
            [stage(patch={"shape": ["whole", "whole", 2], "neighbours": 1})],
            "neighbours are for patches of one slice",
        ),
        ([stage("a", **around("b")), stage("b")], "'a' looks around 'b', which is not an earlier"),
        ([stage("a", **around("a"))], "'a' looks around 'a', which is not an earlier"),
        ([stage("a"), stage("a")], "two stages are called 'a'"),
        ([stage("a"), stage("b", **around("a", labels=["lung"]))], "'lung', which stage 'a' does"),
        (
            [{"kind": "scout", "name": "s", "finds": "body"}, stage(**around("s", labels=["x"]))],
            "it is a scout",
        ),
        ([stage("a"), {"kind": "scout", "name": "s", "finds": "body"}], "a network has to answer"),
        ([], "at least 1 item"),
        ([stage(labels=["a", "b", "a"])], "two labels are called 'a'; give each"),
        (
            [stage(inside={"liver": "lung"})],
            r"'liver' lies inside 'lung', but 'lung' is none of the labels \(liver, spleen\)",
        ),
        ([stage(inside={"lung": "liver"})], "but 'lung' is none of the labels"),
        ([stage(inside={"liver": "liver"})], "label 'liver' lies inside itself; correct 'inside'"),
        ([stage(inside={"liver": "spleen", "spleen": "liver"})], "'liver' lies inside itself"),
        (
            [stage(largest_component=["liver", "lung"])],
            r"largest_component names 'lung', which is none of the labels \(liver, spleen\)",
        ),
        ([stage(threshold=0.4)], r"a threshold \(0.4\) is for one label or for regions"),
    ],
)
def test_plans_that_mean_nothing(stages: list[dict], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Plan.model_validate({"stages": stages})


def test_a_cascade() -> None:
    plan = Plan.model_validate(
        {"stages": [stage("a"), stage("b", **around("a", labels=["liver"], margin_mm=20))]}
    )
    assert [each.name for each in plan.networks] == ["a", "b"]
    assert plan.labels == ("liver", "spleen")
    assert plan.final.frame.region == Around(stage="a", labels=("liver",), margin_mm=20)


def stacked(**update) -> Plan:
    """Two networks and one that combines their maps."""
    members = [
        slices((32, 32), ("a",)).final.model_copy(update={"name": "flat"}),
        whole((8, 8, 8), ("a", "b")).final.model_copy(update={"name": "solid"}),
    ]
    last = Stage(
        **{
            "name": "combiner",
            "labels": ("a", "b"),
            "frame": {"axes": (32, 32, None)},
            "inputs": ("flat", "solid"),
            **update,
        }
    )
    return Plan(channels=("T1", "T2"), stages=(*members, last))


SLICES = {
    "kind": "network",
    "frame": {"axes": [64, 64, None]},
    "patch": {"shape": ["whole", "whole", 1]},
}


def cascade(labels=("organ", "lesion"), inside=None, first=("organ",), fine=None, **crop) -> dict:
    """A plan of two stages, as data."""
    if inside is None:
        inside = {"lesion": "organ"} if "lesion" in labels else {}
    patch = SLICES["patch"] | {"crop": {"stage": "coarse"} | crop}
    stages = [
        SLICES | {"name": "coarse", "labels": list(first)},
        SLICES
        | {"name": "fine", "labels": list(labels), "inside": inside, "patch": patch}
        | (fine or {}),
    ]
    return {"stages": stages}


def test_a_stage_that_crops_around_another_runs_with_it() -> None:
    plan = Plan.model_validate(cascade(margin=5))
    coarse, fine = plan.networks
    assert plan.runs == (fine,)
    assert plan.input_shape(coarse) == (1, 64, 64)
    # The scan and what the first says of it; of its own two labels one is the first's.
    assert plan.input_shape(fine) == (2, 64, 64)
    assert (plan.network_outputs(coarse), plan.network_outputs(fine)) == (1, 1)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    alone = Plan.model_validate(cascade(["organ"], rounds=10))
    assert alone.network_outputs(alone.final) == 1


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (cascade(stage="fine"), "not an earlier stage with a network and one label"),
        (cascade(stage="none"), "not an earlier stage with a network and one label"),
        (cascade(first=["organ", "other"]), "not an earlier stage with a network and one label"),
        (cascade(first=["liver"]), "labels that alone, or that and one label inside it"),
        (cascade(inside={}), "labels that alone, or that and one label inside it"),
        (cascade(["lesion", "organ"]), "labels that alone, or that and one label inside it"),
        (cascade(rounds=2), "make it 1 round"),
        (cascade(["organ"], rounds=11), "rounds"),
        (cascade(margin=-1), "margin"),
        (cascade(fine={"frame": {"axes": [32, 32, None]}}), "give them one frame"),
        (cascade(fine={"intensity": {"scaling": "zscore"}}), "give them one frame"),
        (
            cascade(fine={"patch": {"shape": [8, 8, 1], "crop": {"stage": "coarse"}}}),
            "a crop is cut from whole slices",
        ),
    ],
)
def test_crops_that_mean_nothing(plan: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Plan.model_validate(plan)


def test_channels_of_a_stage_with_inputs() -> None:
    """One sigmoid map and three of a softmax, whatever the scan has."""
    plan = stacked()
    assert [plan.input_shape(stage)[0] for stage in plan.networks] == [2, 2, 4]
    assert [plan.is_labelled(stage) for stage in plan.networks] == [False, False, True]
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert stacked(inputs=("solid",)).input_shape(plan.final)[0] == 4
    assert '"inputs"' not in slices().model_dump_json()


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"inputs": ("flat", "other")}, "'combiner' has input 'other', which is not an earlier"),
        ({"inputs": ("combiner",)}, "'combiner' has input 'combiner', which is not an earlier"),
        ({"inputs": ("flat", "flat")}, "'combiner' has one input twice"),
        (
            {"frame": {"axes": (32, 32, None), "region": {"stage": "flat"}}},
            "has inputs, so it sees the whole scan",
        ),
    ],
)
def test_inputs_that_mean_nothing(update: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        stacked(**update)


def test_scouts_have_no_maps() -> None:
    stage = Stage(labels=("a",), inputs=("scout",))
    with pytest.raises(ValidationError, match=r"has input 'scout'.*\(these: none\)"):
        Plan(stages=(Scout(name="scout", finds="body"), stage))
