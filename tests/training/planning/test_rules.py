"""The planner's rules: what holds for every dataset and budget."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gmean

from leanseg.datasets import split_cases
from leanseg.datasets.catalogue import public_datasets
from leanseg.frames.fingerprint import ClassFacts, Fingerprint, along
from leanseg.plan import Plan, Stage, StageSettings
from leanseg.training.planning import rules
from leanseg.training.planning.rules import View, views
from leanseg.training.recipe import Recipe, validate_recipe
from leanseg.training.runtime import trial_run

SECONDS = st.none() | st.floats(0.1, 1e6)
RATES = st.floats(1e4, 1e8)


@st.composite
def fingerprints(draw: st.DrawFn) -> Fingerprint:
    """Of scans from a few voxels to whole bodies, with structures from threads to livers."""
    spacing = tuple(draw(st.floats(0.3, 6.0)) for _ in range(3))
    shape = tuple(float(draw(st.integers(5, 700))) for _ in range(3))
    extent = tuple(n * mm for n, mm in zip(shape, spacing, strict=True))
    body = tuple(draw(st.floats(0.05, 1.0)) * length for length in extent)
    thick = draw(st.lists(st.floats(0.1, 120.0), min_size=1, max_size=4))
    modality = draw(st.sampled_from(("CT", "MR or other")))
    n_channels = 1 if modality == "CT" else draw(st.integers(1, 4))
    median = draw(st.floats(-900, 900))
    return Fingerprint(
        n_cases=draw(st.integers(1, 300)),
        n_looked_at=1,
        modality=modality,
        channels=tuple(f"channel {number}" for number in range(n_channels)),
        shape=shape,
        largest_shape=shape,
        spacing_mm=spacing,
        body_mm=body,
        largest_body_mm=body,
        foreground_mm=body,
        grey=((median - 100, median, median + 100, median, draw(st.floats(0, 300))),) * n_channels,
        zeros=draw(st.floats(0, 1)),
        classes={
            f"class {number}": ClassFacts(1, 1.0, 1.0, mm, (mm, mm, mm))
            for number, mm in enumerate(thick)
        },
    )


def made(**changed: object) -> Fingerprint:
    """Of a CT of 200 voxels of 1 mm along each axis with a structure that is 20 mm thick."""
    found = Fingerprint(
        n_cases=10,
        n_looked_at=10,
        modality="CT",
        channels=("CT",),
        shape=(200, 200, 200),
        largest_shape=(200, 200, 200),
        spacing_mm=(1.0, 1.0, 1.0),
        body_mm=(180, 150, 200),
        largest_body_mm=(180, 150, 200),
        foreground_mm=(60, 60, 60),
        grey=((-50.0, 40.0, 150.0, 42.0, 30.0),),
        zeros=0.0,
        classes={"it": ClassFacts(10, 20.0, 1.0, 20.0, (40, 40, 40))},
    )
    return replace(found, **changed)


def recipe_of(found: Fingerprint, view: View) -> tuple[Recipe, Plan]:
    """The parts of a recipe that rules make, and its plan."""
    content = {
        "name": "made",
        "network": rules.network(view),
        "plan": {
            "frame": {
                "orientation": view.orientation,
                "axes": [None if mm is None else {"spacing_mm": mm} for mm in view.spacing_mm],
            },
            "patch": {"shape": list(view.patch)},
            "intensity": rules.intensity(found),
        },
        "phases": [
            {
                "sampler": {"name": "patches"},
                "augmentation": rules.AUGMENTATION,
                "loss": rules.LOSS,
                "optimiser": rules.OPTIMISER,
                "schedule": rules.SCHEDULE,
                "batch_size": rules.BATCH_SIZE[view.dimensions],
                "selection": "last",
            }
        ],
    }
    recipe = validate_recipe(content, "made")
    chosen = {name: getattr(recipe.plan, name) for name in StageSettings.model_fields}
    stage = Stage(labels=tuple(found.classes), **chosen)
    return recipe, Plan(channels=found.channels, stages=(stage,))


@given(fingerprints(), SECONDS, RATES, st.none() | st.integers(1, 10**7))
def test_patches_fit_network_and_budget(
    found: Fingerprint, seconds: float | None, rate: float, most: int | None
) -> None:
    for view in views(found, seconds, rate, most):
        divisor = 2 ** rules.HALVINGS[view.dimensions]
        network = view.patch[: view.dimensions]
        assert all(n % divisor == 0 for n in network)
        assert min(network) >= (divisor if view.dimensions == 3 else 2 * divisor)
        assert math.prod(view.patch[view.dimensions :]) == 1
        low, high = rules.PATCH_VOXELS[view.dimensions]
        room = high if most is None else min(max(most, low), high)
        if view.dimensions == 2:
            # One axis may be longer than the other; both are rounded.
            assert max(view.patch) <= 1.5 * math.sqrt(room) + divisor / 2
        else:
            # Each axis is rounded up to a multiple: at the worst from 10 voxels to 16.
            assert view.n_voxels <= 1.6**3 * room


@given(fingerprints(), SECONDS, RATES)
def test_voxels_are_no_finer_than_the_scan_and_no_coarser_than_structures(
    found: Fingerprint, seconds: float | None, rate: float
) -> None:
    thickness = gmean([facts.thickness_mm for facts in found.classes.values()])
    for view in views(found, seconds, rate):
        own = along(view.orientation, found.spacing_mm)
        assert sorted(view.orientation) == sorted("RAS")
        for mm, chosen, there in zip(view.voxels_mm, view.spacing_mm, own, strict=True):
            assert mm >= there
            # At the classes' bound, or the scan's own, or the scan's finest axis.
            bound = max(thickness / rules.VOXELS_ACROSS, min(found.spacing_mm))
            assert mm == there or mm <= bound + 1e-9
            assert (chosen is None) == (mm == pytest.approx(there))
            assert chosen is None or chosen == pytest.approx(mm, abs=0.005)


@given(fingerprints(), st.floats(0.1, 1e5), st.floats(1.0, 100.0), RATES)
def test_more_seconds_never_give_coarser_voxels(
    found: Fingerprint, seconds: float, times: float, rate: float
) -> None:
    short, long = (
        {view.dimensions: view for view in views(found, given_s, rate)}
        for given_s in (seconds, times * seconds)
    )
    for dimensions, view in long.items():
        pairs = zip(view.voxels_mm, short[dimensions].voxels_mm, strict=True)
        assert all(fine <= coarse for fine, coarse in pairs)


@settings(max_examples=8, deadline=None)
@given(fingerprints(), SECONDS, RATES)
def test_a_recipe_comes_of_every_view(
    found: Fingerprint, seconds: float | None, rate: float
) -> None:
    for view in views(found, seconds, rate):
        recipe, plan = recipe_of(found, view)
        trial = trial_run(recipe, plan)
        assert trial.shape == (1, plan.final.n_outputs, *view.patch[: view.dimensions])
        assert trial.needed_bytes > 0
        assert str(view).startswith(f"{view.dimensions}-D patches of {view.patch[0]} x ")


def test_patches_of_a_part_are_nearest_to_what_there_is_time_for() -> None:
    """A cube of 32 voxels has 2.4 times those of 24; in between the nearer side decides."""
    found = made(body_mm=(900, 900, 900), largest_body_mm=(900, 900, 900))
    for room in range(24**3, 64**3, 1000):
        steps = rules.LEAST_STEPS * rules.BATCH_SIZE[3]
        view = views(found, float(steps), float(room))[0]
        assert len(set(view.patch)) == 1
        side = room ** (1 / 3)
        # The search takes steps of 2 %.
        assert abs(view.patch[0] - side) < 4 + 0.02 * side


def test_flat_bodies_leave_no_larger_patch() -> None:
    """The network sees eight voxels where the body has three: they count, too."""
    found = made(
        body_mm=(200, 200, 3),
        largest_body_mm=(200, 200, 3),
        classes={"it": ClassFacts(1, 1.0, 1.0, 2.0, (9, 9, 2))},
    )
    view = views(found, 1.0, 1.0)[0]
    assert view.patch[2] == 8
    assert view.n_voxels <= 1.5 * rules.PATCH_VOXELS[3][0]


def test_a_budget_buys_voxels() -> None:
    """Worked by hand: a structure of 20 mm may have voxels up to 6.67 mm, the scan has 1 mm."""
    least = views(made(), 1.0, rules.VOXELS_PER_SECOND)[0]
    # 180 x 150 x 200 mm fit into 24 cubed voxels at 7.33 mm, which is too coarse; a part of 15
    # times 20 mm would be, too.
    assert least.voxels_mm == pytest.approx([20 / 3] * 3)
    most = views(made(), 1e6, rules.VOXELS_PER_SECOND)[0]
    # and into 64 cubed at 2.75 mm.
    assert most.voxels_mm == pytest.approx([2.75] * 3, rel=0.02)
    # Steps have half of the largest patch.
    assert 64**3 / 4 < views(made(), None, 1.0)[0].n_voxels <= 1.5 * 64**3 / 2
    # A vessel of 3 mm is not to vanish: then a part is seen at a time.
    thin = made(classes={"it": ClassFacts(1, 1.0, 1.0, 3.0, (40, 40, 40))})
    assert views(thin, 1.0, 1.0)[0].voxels_mm == pytest.approx([1.0] * 3)
    assert views(thin, 1.0, 1.0)[0].why == "sees a part at a time"
    assert most.why == "sees the structure and what is around it at once"


def test_thin_structures_come_before_the_largest_scans() -> None:
    """Worked by hand: there is room for a median scan of 36 x 52 x 36 voxels of 1 mm."""
    varying = made(
        body_mm=(36, 52, 36), largest_body_mm=(48, 64, 48), shape=(36, 52, 36),
        classes={"it": ClassFacts(1, 1.0, 1.0, 4.2, (30, 40, 30))},
    )  # fmt: skip
    seconds = 36 * 52 * 36 * 2 * rules.LEAST_STEPS + 1
    chosen = views(varying, seconds, 1.0)[0]
    assert (chosen.voxels_mm, chosen.patch) == ((1.0, 1.0, 1.0), (40, 56, 40))
    # The largest scan fits at 1.3 mm: enough of what is 20 mm thick, not of 4.2.
    thick = replace(varying, classes={"it": ClassFacts(1, 1.0, 1.0, 20.0, (30, 40, 30))})
    chosen = views(thick, seconds, 1.0)[0]
    assert chosen.voxels_mm == pytest.approx([1.3] * 3, rel=0.02)
    held = [n * mm for n, mm in zip(chosen.patch, chosen.voxels_mm, strict=True)]
    assert all(n >= 0.95 * mm for n, mm in zip(held, (48, 64, 48), strict=True))
    # With a little more time the scan's own voxels are kept, and more of them are seen.
    chosen = views(thick, 1.3 * seconds, 1.0)[0]
    assert (chosen.voxels_mm, chosen.patch) == ((1.0, 1.0, 1.0), (48, 64, 48))


@pytest.mark.parametrize(
    ("shape", "spacing", "dimensions", "orientation"),
    [
        ((200, 200, 200), (1.0, 1.0, 1.0), 3, "RAS"),
        ((200, 200, 60), (0.8, 0.8, 3.0), 3, "RAS"),
        ((400, 400, 20), (0.4, 0.4, 8.0), 2, "RAS"),
        ((20, 400, 400), (8.0, 0.4, 0.4), 2, "ASR"),
        ((400, 400, 7), (1.0, 1.0, 1.2), 2, "RAS"),
    ],
)
def test_thick_slices_are_seen_alone(
    shape: tuple[int, ...], spacing: tuple[float, ...], dimensions: int, orientation: str
) -> None:
    body = tuple(0.9 * n * mm for n, mm in zip(shape, spacing, strict=True))
    found = made(
        shape=shape,
        spacing_mm=spacing,
        body_mm=body,
        classes={"it": ClassFacts(1, 1.0, 1.0, 4.0, (9, 9, 9))},
    )
    chosen, other = views(found, 600, rules.VOXELS_PER_SECOND)
    assert (chosen.dimensions, chosen.orientation) == (dimensions, orientation)
    assert other.dimensions == 5 - dimensions
    flat = chosen if dimensions == 2 else other
    assert flat.spacing_mm[2] is None


def test_grey_values_of_ct_mean_the_same_everywhere() -> None:
    found = rules.intensity(made())
    assert found["window"] == {"kind": "hu", "low": -80.0, "high": 180.0}
    assert found["scaling"] == {"divide_by": 30.0, "add": -1.4}
    # Where all that is labelled has one value, nothing is divided by nothing.
    flat = rules.intensity(made(grey=((40.0, 40.0, 40.0, 40.0, 0.0),)))
    assert flat["scaling"] == {"divide_by": 1.0, "add": -40.0}
    for zeros in (0.2, 0.6):
        found = rules.intensity(made(modality="MR or other", zeros=zeros))
        assert found["scaling"] == "zscore"
        assert found["window"]["nonzero_only"] is (zeros > 0.3)


@pytest.mark.parametrize("cross_validate", [False, True])
@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (2, 0, 1)),
        (5, (4, 0, 1)),
        (12, (9, 0, 3)),
        (200, (152, 8, 40)),
    ],
)
def test_splits(n: int, sizes: tuple[int, int, int], cross_validate: bool) -> None:
    names = [f"{number:03d}" for number in range(n)]
    section = rules.split(n, 100, cross_validate=cross_validate)
    folds = split_cases(names, seed=3, **section)
    assert len(folds) == (min(n, 5) if cross_validate and n > 1 else 1)
    found = [(len(fold.train), len(fold.monitor), len(fold.test)) for fold in folds]
    if not cross_validate or n == 1:
        assert found == [sizes]
    else:
        assert sorted(name for fold in folds for name in fold.test) == names
        assert {monitored for _, monitored, _ in found} == {sizes[1]}
    # Where there is no time to look, nothing is held back for it.
    hurried = rules.split(n, 0, cross_validate=cross_validate)
    assert hurried["monitor_fraction"] == 0


def test_rules_name_no_organ_and_no_dataset() -> None:
    """They speak of sizes, spacings, grey values and time."""
    public = public_datasets()
    names = {name.lower() for each in public for name in (each.name, *each.organs)}
    names |= {"kidney", "heart", "brain", "prostate", "tumour", "tumor", "lesion", "decathlon"}

    def named(text: str) -> list[str]:
        return [name for name in names if name in text.lower()]

    assert named(inspect.getsource(rules)) == []
    assert named("# As coarse as the liver allows.") == ["liver"]
