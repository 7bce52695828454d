"""Sheets of samples: what is read, what is said of it, and that it can be seen."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

import leanseg
from leanseg.errors import DatasetError, LeansegError, RecipeError
from leanseg.reports.samples import (
    Panel,
    Sheet,
    _grey_window,
    _most_labelled,
    draw_samples,
    samples_figure,
    write_samples,
)
from leanseg.training.recipe import load_recipe, validate_recipe

SHAPE = (20, 16, 12)
BALL = {"data": {"labels": {"ball": [1]}}}


def dataset(n: int = 3, labelled=lambda number: True, channels: int = 1) -> leanseg.Dataset:
    """Balls whose grey values say of which case they are; off the middle, to the patient's left."""
    cases = []
    for number in range(n):
        grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
        distance = np.linalg.norm((grid - (14, 6, 5)) * (1, 1, 1.5), axis=-1)
        label = ((distance < 4) & labelled(number)).astype(np.uint8)
        noise = np.random.default_rng(number).normal(0, 5, SHAPE)
        image = (noise + 100 * (number + 1) * (distance < 4)).astype(np.int16)
        if channels > 1:
            image = np.stack([image] * channels, axis=-1)
        # LPS: voxels run to the patient's left.
        affine = np.diag([-1.0, -1, 2, 1])
        volumes = leanseg.Volume(image, affine), leanseg.Volume(label, affine)
        cases.append(leanseg.Case(*volumes, name=f"case {number}"))
    return leanseg.Dataset(cases, labels={"ball": 1}, name="balls")


def recipe(sampler, patch, augmentation=(), axes=(20, 16, None), orientation="LPS", **plan):
    content = {
        "name": "mine",
        "plan": {
            "frame": {"axes": list(axes), "orientation": orientation},
            "patch": {"shape": list(patch), **plan},
            "intensity": {"window": {"kind": "none"}, "scaling": {"divide_by": 1, "add": 0}},
        },
        "phases": [{"sampler": sampler, "augmentation": list(augmentation)}],
        **BALL,
    }
    return validate_recipe(content, "mine")


SLICES = ({"name": "slices"}, ("whole", "whole", 1))
SUBSET = ({"name": "slice-subset", "options": {"fraction": 0.0}}, ("whole", "whole", 4))


@pytest.mark.parametrize(("sampler", "patch"), [SLICES, SUBSET, ({"name": "patches"}, (8, 8, 8))])
def test_rows_are_cases_each_as_it_is_and_augmented(sampler, patch) -> None:
    augmentation = [{"name": "ctia", "options": {"fraction": 1.0}}, {"name": "mirror"}]
    sheet = draw_samples(recipe(sampler, patch, augmentation), dataset(), 3, 5)
    assert sheet.title == "mine on balls" and sheet.labels == ("ball",)
    assert sheet.subtitle == f"phase main; sampler: {sampler['name']}; augmentation: ctia, mirror"
    assert [len(row) for row in sheet.rows] == [5, 5, 5]
    seen = set()
    for plain, *augmented in sheet.rows:
        name, _, what = plain.told.partition(": ")
        assert what == "as it is"
        number = int(name.split(",")[0].removeprefix("case "))
        seen.add(number)
        inside = plain.image[plain.classes == 1]
        assert inside.mean() == pytest.approx(100 * (number + 1), abs=5)
        assert len({panel.image.tobytes() for panel in augmented}) == 4
        assert all(panel.told.startswith("turned ") for panel in augmented)
        # Mirroring says its name where it did something: with three axes mostly.
        assert any(panel.told.endswith("; mirror") for panel in augmented)
        for panel in augmented:
            assert panel.image.shape == panel.classes.shape
            assert set(np.unique(panel.classes)) <= {0, 1}
    assert seen == {0, 1, 2}


def test_the_same_seed_gives_the_same_sheet() -> None:
    mine = recipe(*SUBSET, [{"name": "mia"}])
    one, other, third = (draw_samples(mine, dataset(), 2, seed) for seed in (4, 4, 5))
    told = [[panel.told for row in each.rows for panel in row] for each in (one, other, third)]
    assert told[0] == told[1] != told[2]
    for rows in zip(one.rows, other.rows, strict=True):
        for a, b in zip(*rows, strict=True):
            np.testing.assert_array_equal(a.image, b.image)


def test_cases_without_a_voxel_of_a_label_are_passed_over() -> None:
    mine = recipe(*SLICES)
    sheet = draw_samples(mine, dataset(4, lambda number: number == 2), 1, 0)
    assert sheet.rows[0][0].told == "case 2: as it is"
    with pytest.raises(DatasetError, match="no case has a voxel of ball"):
        draw_samples(mine, dataset(2, lambda number: False), 2, 0)


def test_few_cases_are_shown_in_several_places() -> None:
    sheet = draw_samples(recipe(*SLICES), dataset(1), 3, 0)
    assert [row[0].told for row in sheet.rows] == ["case 0: as it is"] * 3
    assert len({row[0].image.tobytes() for row in sheet.rows}) == 3
    areas = [(row[0].classes > 0).sum() for row in sheet.rows]
    assert areas == sorted(areas, reverse=True) and areas[0] > 0
    volumes = recipe({"name": "volumes"}, ("whole", "whole", "whole"), axes=SHAPE)
    assert len(draw_samples(volumes, dataset(1), 3, 0).rows) == 1


def test_volumes_are_shown_by_the_slice_with_most_of_a_label() -> None:
    classes = np.zeros((4, 4, 7), int)
    classes[0, 0, 1] = classes[:2, 0, 3] = classes[:2, 1, 4] = classes[:2, 1, 5] = 1
    assert _most_labelled(classes) == 4
    classes[:3, 0, 6] = -1  # ignored
    assert _most_labelled(classes) == 4
    assert _most_labelled(np.zeros((4, 4, 7), int)) == 3
    sheet = draw_samples(recipe(*SUBSET), dataset(1), 1, 0)
    assert "slice " in sheet.rows[0][0].told and " of 4: as it is" in sheet.rows[0][0].told


def test_what_the_sampler_varies_is_shown_and_told() -> None:
    options = {"skip": [2], "fraction": 1.0, "labelled_only": False}
    mine = recipe({"name": "slice-subset", "options": options}, ("whole", "whole", 4))
    (row,) = draw_samples(mine, dataset(1), 1, 0).rows
    assert len(row) == 5 and all("1 in 2 slices" in panel.told for panel in row)
    # With a fraction below 1 the first column is as it is.
    mine = mine.with_overrides(["phases.0.sampler.options.fraction=0.9"])
    assert draw_samples(mine, dataset(1), 1, 0).rows[0][0].told.endswith("as it is")


def test_neighbours_and_channels_show_the_slice_itself() -> None:
    mine = recipe(*SLICES, neighbours=2)
    mine = mine.with_overrides(["data.channels=null"])
    data = leanseg.Dataset(dataset(2, channels=2).cases, labels={"ball": 1}, channels=["T1", "T2"])
    sheet = draw_samples(mine, data, 1, 0)
    assert sheet.title.endswith("channel T1")
    image, classes = sheet.rows[0][0].image, sheet.rows[0][0].classes
    # Grey values are those of the label's own slice.
    assert image[classes == 1].min() > 5 * abs(image[classes == 0]).mean()


@pytest.mark.parametrize("orientation", ["LPS", "RPS", "PLI"])
def test_the_patients_left_is_at_the_right(orientation) -> None:
    """Whatever the frame's orientation; the ball is at the patient's left, anterior."""
    axes = (16, 20, None) if orientation == "PLI" else (20, 16, None)
    sheet = draw_samples(recipe(*SLICES, axes=axes, orientation=orientation), dataset(1), 1, 0)
    figure = samples_figure(sheet)
    canvas = _drawn(figure)
    (axes_of_panel,) = figure.axes
    box = axes_of_panel.get_window_extent()
    height = canvas.shape[0]
    panel = canvas[int(height - box.y1) : int(height - box.y0), int(box.x0) : int(box.x1), :3]
    cyan = (abs(panel - np.array([0, 0xD5, 0xFF]) / 255) < 0.12).all(axis=-1)
    y, x = (each.mean() / size for each, size in zip(cyan.nonzero(), cyan.shape, strict=True))
    assert x == pytest.approx(14.5 / 20, abs=0.04) and y == pytest.approx(6.5 / 16, abs=0.04)


def _drawn(figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return imread(buffer)


def test_captions_do_not_overlap() -> None:
    augmentation = [{"name": "mia", "options": {"fraction": 1.0}}, {"name": "affine"}]
    figure = samples_figure(draw_samples(recipe(*SUBSET, augmentation), dataset(), 3, 0))
    _drawn(figure)
    texts = [axes.title if axes.get_title() else axes._left_title for axes in figure.axes]
    boxes = [text.get_window_extent() for text in texts]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    boxes += [figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()]
    for number, one in enumerate(boxes):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= figure.bbox.x1 + 1
        assert one.y1 <= figure.bbox.y1 + 1
        for other in boxes[:number]:
            assert not one.padded(-1).overlaps(other.padded(-1))


def test_names_are_no_formulas() -> None:
    image, classes = np.zeros((5, 6), np.float32), np.eye(5, 6, dtype=int)
    panel = Panel(image, classes, "case $x_{1$ as it is" + " and so on" * 9)
    sheet = Sheet("a $\\frac$", "", "LPS", ("left $_$", "right $^{$"), ((panel,),))
    assert _drawn(samples_figure(sheet)).size


def test_grey_values_of_the_label_are_never_cut() -> None:
    image = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    classes = np.zeros((40, 40), int)
    classes[3, 3:9], image[3, 3:9] = 1, 20
    classes[4, 3:9], image[4, 3:9] = 1, -9
    image[10:20, :5] = 100  # bone
    low, high = _grey_window(Panel(image, classes, ""))
    assert low < -9 and 20 < high < 40
    low, high = _grey_window(Panel(np.zeros((4, 4), np.float32), np.zeros((4, 4), int), ""))
    assert low < 0 < high


def test_files_by_their_suffix(tmp_path) -> None:
    sheet = draw_samples(recipe(*SLICES, [{"name": "affine"}]), dataset(2), 2, 0)
    write_samples(tmp_path / "a.PNG", sheet)
    picture = imread(tmp_path / "a.PNG")
    assert picture.shape[1] > 1500 and picture[..., :3].std() > 0.1
    write_samples(tmp_path / "a.html", sheet)
    page = (tmp_path / "a.html").read_text()
    assert "mine on balls" in page and "data:image/png;base64," in page
    with pytest.raises(LeansegError, match=r"ends in \.png or \.html"):
        write_samples(tmp_path / "a.jpg", sheet)


@pytest.mark.parametrize(
    "name", ["monet-ct", "monet-brain", "nnunet-2d-patches", "nnunet-3d-patches", "obelisk-tcia"]
)
def test_built_in_recipes(name) -> None:
    """One of each sampler and kind of patch; the others differ in augmentation or network."""
    mine = load_recipe(name, ["data.labels={ball: [1]}", "data.channels=null"])
    if mine.plan.patch_shape == (144, 144, 144):
        mine = mine.with_overrides(["plan.frame.axes=[24, 24, 24]"])
    sheet = draw_samples(mine, dataset(2), 2, 0)
    assert len(sheet.rows) == 2
    assert len(sheet.rows[0]) == (5 if mine.phases[0].augmentation else 1)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(RecipeError, match=r"'slices' takes whole slices"):
        draw_samples(recipe({"name": "slices"}, (8, 8, 1)), dataset(), 1, 0)
    large = recipe({"name": "volumes"}, (8, 8, 8), axes=(None, None, None))
    with pytest.raises(RecipeError, match=r"case \d: its frame .* is larger than .*patch"):
        draw_samples(large, dataset(), 1, 0)
