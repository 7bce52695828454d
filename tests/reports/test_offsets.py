from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from leanseg.reports.offsets import offsets_figure, write_offsets


def _offsets(n_offsets: int, per_place: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    before = random.normal(0, 0.05, (n_offsets, per_place, 3)).astype(np.float32)
    after = 1.6 * before + random.normal(0, 0.03, before.shape)
    return before, after.astype(np.float32)


@pytest.mark.parametrize(("n_offsets", "per_place"), [(1024, 2), (1, 1)])
def test_picture_has_the_size_that_was_asked_for(tmp_path, n_offsets, per_place):
    path = tmp_path / "offsets.png"
    write_offsets(path, *_offsets(n_offsets, per_place), size_px=(1000, 750))
    picture = imread(path)
    assert picture.shape[:2] == (750, 1000)
    assert (picture[..., :3] < 0.9).any(axis=-1).mean() > 0.01


def test_what_is_drawn():
    """Dots at the offsets in each plane, a line per pair, bars that count every offset."""
    before, after = _offsets(20, 2)
    figure = offsets_figure(before, after)
    panels = np.array(figure.axes).reshape(3, 4)
    for column, view in enumerate(([0, 1], [0, 2], [1, 2])):
        for axes, offsets in zip(panels[:2, column], (before, after), strict=True):
            dots = [
                np.transpose(line.get_data()) for line in axes.lines if line.get_marker() == "o"
            ]
            dots = [each for each in dots if len(each)]
            np.testing.assert_allclose(dots, offsets[:, :, view].transpose(1, 0, 2))
            (lines,) = axes.collections
            np.testing.assert_allclose(lines.get_segments(), offsets[:, :, view])
            assert np.abs(offsets).max() < axes.get_xlim()[1]
        moved = [each.get_segments() for each in panels[2, column].collections]
        expected = np.stack((before, after), axis=2)[..., view].transpose(1, 0, 2, 3)
        np.testing.assert_allclose(moved, expected)
    assert panels[0, 0].yaxis_inverted()
    assert not panels[0, 1].yaxis_inverted()
    within = np.linalg.norm(after[:, 0].astype(float) - after[:, 1], axis=-1)
    counts = [sum(each.get_data().values) for each in panels[1, 3].patches]
    assert counts == [20] * 4
    assert f"trained: median {np.median(within):.3f}" in {
        text.get_text() for text in panels[1, 3].get_legend().get_texts()
    }


def test_frozen_offsets_do_not_move_and_other_offsets_are_refused():
    before, _ = _offsets(4, 2)
    figure = offsets_figure(before, before)
    texts = {text.get_text() for text in figure.axes[-1].get_legend().get_texts()}
    assert texts == {"moved: median 0.000"}
    with pytest.raises(ValueError, match=r"\(4, 2, 3\) at the start, but \(4, 1, 3\)"):
        offsets_figure(before, before[:, :1])
