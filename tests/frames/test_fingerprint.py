"""The fingerprint of a dataset: against hand-computed cases, numpy, and every orientation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leanseg
from leanseg.errors import DatasetError
from leanseg.frames import ArrayCache, fingerprint
from leanseg.frames.fingerprint import Fingerprint, along, take_fingerprint

LABELS = {"plate": [1], "ball": [2], "never": [7]}
SPACING = (0.8, 1.0, 2.5)
ORIENTATIONS = [
    "".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)
]


def case(
    label: np.ndarray, image: np.ndarray | None = None, spacing: Sequence[float] = SPACING
) -> leanseg.Case:
    """A case in RAS order; its image is 100 within the labels if not given."""
    if image is None:
        image = np.where(label > 0, 100, -1000).astype(np.int16)
    affine = np.diag([*spacing, 1.0])
    return leanseg.Case((image, affine), (label, affine), "a case")


def taken(
    folder: Path, *cases: leanseg.Case, channels: Sequence[str] = ("CT",), labels=LABELS, **more
) -> Fingerprint:
    cache = ArrayCache(folder)
    return take_fingerprint(cases, labels, channels, cache, n_cases=len(cases), **more)


def in_box(shape: tuple[int, int, int], value: int, *box: slice) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[box] = value
    return label


@pytest.fixture(scope="module")
def noisy() -> leanseg.Case:
    """A plate and a ball in noise, of no symmetry."""
    rng = np.random.default_rng(4)
    label = in_box((18, 22, 14), 1, slice(2, 12), slice(3, 15), slice(1, 4))
    grid = np.stack(np.meshgrid(*map(np.arange, label.shape), indexing="ij"), -1)
    label[np.linalg.norm((grid - (11, 15, 9)) * SPACING, axis=-1) < 5] = 2
    image = np.where(label > 0, 60, -900) + rng.normal(0, 30, label.shape)
    image[:, :2] = -1500
    return case(label, image.astype(np.int16))


def test_boxes_are_measured(tmp_path: Path) -> None:
    """Two boxes, of 4 x 5 x 2 and 2 x 5 x 2 voxels, of 2 mm3 each."""
    label = in_box((20, 20, 10), 1, slice(2, 6), slice(3, 8), slice(4, 6))
    label[8:10, 3:8, 4:6] = 1
    found = taken(tmp_path, case(label))
    plate = found.classes["plate"]
    assert plate.cases == 1
    assert plate.volume_ml == pytest.approx(60 * 2 / 1000)
    assert plate.components == 2
    assert plate.extent_mm == pytest.approx((8 * 0.8, 5 * 1.0, 2 * 2.5))
    assert found.foreground_mm == plate.extent_mm
    assert found.body_mm == plate.extent_mm  # all else is air
    assert (found.shape, found.spacing_mm) == ((20, 20, 10), pytest.approx(SPACING))
    assert found.anisotropy == pytest.approx(2.5 / 0.8)
    assert found.classes["never"].cases == 0
    assert found.words() == [
        "1 labelled case: CT, 20 x 20 x 10 voxels of 0.8 x 1 x 2.5 mm (uneven voxels)",
        f"plate: small, 2 structures a scan, 0.12 ml, {plate.thickness_mm:.3g} mm thick",
        "ball: in no case",
        "never: in no case",
    ]


def test_specks_are_no_structures(tmp_path: Path) -> None:
    label = in_box((30, 30, 30), 1, slice(2, 22), slice(2, 22), slice(2, 22))
    label[25, 25, 25] = 1
    assert taken(tmp_path, case(label)).classes["plate"].components == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [1, 2, 4])
def test_a_plate_is_as_thick_as_it_is(tmp_path: Path, axis: int, voxels: int) -> None:
    """Within a voxel, whichever way it lies; a scan's slices may be five times as thick."""
    spacing = (1.0, 1.0, 5.0)
    extent = [slice(2, 62 if mm < 5 else 14) for mm in spacing]
    extent[axis] = slice(3, 3 + voxels)
    found = taken(tmp_path, case(in_box((64, 64, 16), 1, *extent), spacing=spacing))
    thickness = found.classes["plate"].thickness_mm
    # The plate's rim lowers the mean.
    assert 0.75 * voxels * spacing[axis] <= thickness <= (voxels + 1) * spacing[axis]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0)])
@pytest.mark.parametrize("radius", [8.0, 50.0])
def test_a_ball_has_the_thickness_of_its_radius(
    tmp_path: Path, radius: float, spacing: tuple[float, ...]
) -> None:
    """The mean distance to a ball's surface is a quarter of its radius; large ones are thinned."""
    axes = [np.arange(-int(radius / mm) - 2, int(radius / mm) + 3) * mm for mm in spacing]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    label = np.where((grid**2).sum(-1) <= radius**2, 2, 0).astype(np.uint8)
    ball = taken(tmp_path, case(label, spacing=spacing)).classes["ball"]
    assert ball.volume_ml == pytest.approx(4 / 3 * math.pi * radius**3 / 1000, rel=0.05)
    assert ball.extent_mm == pytest.approx([2 * radius] * 3, abs=max(spacing))
    assert ball.components == 1
    assert ball.thickness_mm == pytest.approx(radius, rel=0.15)


def test_a_thread_that_thinning_would_miss_is_seen(tmp_path: Path) -> None:
    """A diagonal of single voxels, of which every third lies on the grid that is looked at."""
    label = np.zeros((150, 150, 4), np.uint8)
    label[np.arange(1, 150, 3), np.arange(1, 150, 3), 1] = 1
    plate = taken(tmp_path, case(label)).classes["plate"]
    assert plate.volume_ml == pytest.approx(50 * 2 / 1000)
    assert plate.components >= 1
    assert 0 < plate.thickness_mm <= 2 * 2.5


def test_medians_are_over_the_cases_that_have_a_class(tmp_path: Path) -> None:
    cases = [
        case(in_box((n, 10, 8), 1, slice(1, 1 + size), slice(2, 4), slice(2, 4)), spacing=spacing)
        for n, size, spacing in ((9, 1, (1, 1, 2)), (20, 3, (1, 1, 4)), (12, 0, (1, 1, 7)))
    ]
    found = taken(tmp_path, *cases)
    assert found.shape == (12, 10, 8)
    assert found.largest_shape == (20, 10, 8)
    assert found.spacing_mm == (1, 1, 4)
    plate = found.classes["plate"]
    assert plate.cases == 2
    assert plate.volume_ml == pytest.approx((4 * 2 + 12 * 4) / 2 / 1000)
    assert f"{plate.thickness_mm:.3g} mm thick, in 2 of 3 cases" in found.words()[1]


def test_grey_values_are_of_what_is_labelled(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of all classes together, and not of other values, such as those of ignored voxels."""
    label = rng.integers(0, 4, (12, 11, 10)).astype(np.uint8)
    label[label == 3] = 5
    image = rng.normal(0, 100, label.shape).astype(np.float32)
    inside = image[(label == 1) | (label == 2)]
    wanted = [*np.quantile(inside, [0.005, 0.5, 0.995]), inside.mean(), inside.std()]
    found = taken(tmp_path, case(label, image))
    assert found.grey[0] == pytest.approx(wanted, rel=1e-4)
    assert found.classes["plate"].volume_ml == pytest.approx((label == 1).sum() * 2 / 1000)


def test_cases_without_a_label_have_no_say_in_grey_values(tmp_path: Path) -> None:
    empty = np.zeros((8, 8, 8), np.uint8)
    full = in_box((8, 8, 8), 1, slice(2, 5))
    found = taken(tmp_path / "a", case(full), case(empty, np.full((8, 8, 8), 500, np.int16)))
    assert found.grey[0] == pytest.approx((100, 100, 100, 100, 0))
    assert taken(tmp_path / "b", case(empty)).grey == ((0.0,) * 5,)


def test_only_the_channels_that_are_used_count(tmp_path: Path, rng: np.random.Generator) -> None:
    label = in_box((10, 10, 10), 1, slice(2, 8))
    image = rng.normal(0, 1, (10, 10, 10, 3)).astype(np.float32)
    image += np.array([0, 100, 200], np.float32)
    found = taken(tmp_path, case(label, image), channels=("T2", "T1"), channel_indices=(2, 0))
    means = [image[label > 0][:, channel].mean() for channel in (2, 0)]
    assert [row[3] for row in found.grey] == pytest.approx(means, rel=1e-4)
    assert (found.modality, found.channels) == ("MR or other", ("T2", "T1"))
    assert "MR or other, 2 channels" in found.words()[0]


@pytest.mark.parametrize(
    ("channels", "lowest", "modality"),
    [
        (["CT"], 0, "CT"),
        (["ct"], 0, "CT"),
        (["image"], -1000, "CT"),
        (["image"], -100, "MR or other"),
        (["FLAIR"], 0, "MR or other"),
    ],
)
def test_modality_by_name_and_by_values(
    tmp_path: Path, channels: list[str], lowest: int, modality: str
) -> None:
    label = in_box((8, 8, 8), 1, slice(2, 5))
    image = np.where(label > 0, 100, lowest).astype(np.int16)
    assert taken(tmp_path, case(label, image), channels=channels).modality == modality


@pytest.mark.parametrize(("n_zero", "stripped"), [(2, False), (6, True)])
def test_zeros_around_the_organ_are_no_tissue(tmp_path: Path, n_zero: int, stripped: bool) -> None:
    label = in_box((10, 10, 10), 1, slice(7, 9))
    image = np.full(label.shape, 200, np.int16)
    image[:n_zero] = 0
    found = taken(tmp_path, case(label, image), channels=["T1"])
    assert found.zeros == pytest.approx(n_zero / 10)
    assert found.is_stripped is stripped
    assert found.body_mm[0] == pytest.approx((10 - n_zero) * SPACING[0])
    # Zero Hounsfield units are water.
    assert not taken(tmp_path, case(label, image), channels=["CT"]).is_stripped


@settings(max_examples=15)
@given(st.sampled_from(ORIENTATIONS))
def test_the_orientation_of_the_file_plays_no_part(
    tmp_path_factory: pytest.TempPathFactory, noisy: leanseg.Case, orientation: str
) -> None:
    turned = leanseg.Case(
        leanseg.reorient(noisy.image, orientation),
        leanseg.reorient(noisy.label, orientation),
        "turned",
    )
    assert turned.image.orientation == orientation
    here, there = (taken(tmp_path_factory.mktemp("cache"), each) for each in (noisy, turned))
    assert there.shape == here.shape == (18, 22, 14)
    assert there.modality == here.modality == "CT"
    assert np.asarray(there.grey) == pytest.approx(np.asarray(here.grey), rel=1e-4)
    for name in ("spacing_mm", "body_mm", "foreground_mm", "zeros"):
        assert getattr(there, name) == pytest.approx(getattr(here, name)), name
    for name, facts in here.classes.items():
        for what, value in vars(facts).items():
            assert getattr(there.classes[name], what) == pytest.approx(value), (name, what)


def test_values_along_other_axes() -> None:
    assert along("SAR", (1, 2, 3)) == (3, 2, 1)


def test_what_was_found_is_kept(
    tmp_path: Path, noisy: leanseg.Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = taken(tmp_path, noisy)

    def fail(case: leanseg.Case) -> None:
        raise AssertionError(f"{case.name} is read again")

    monkeypatch.setattr(fingerprint, "load_case", fail)
    told: list[str] = []
    assert taken(tmp_path, noisy, on_case=told.append) == first
    assert told == ["a case"]
    # Other classes are another question.
    with pytest.raises(AssertionError, match="is read again"):
        taken(tmp_path, noisy, labels={"both": [1, 2]})


def test_no_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no labelled case"):
        taken(tmp_path)
