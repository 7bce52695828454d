"""Some of a model's labels: what becomes of the others, and of what lies inside a region."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.errors import RecipeError
from leanseg.inference.chosen import ChosenLabels

ORGANS = {"spleen": (1,), "left kidney": (2,), "liver": (3,)}
# A core inside a tumour inside a kidney.
REGIONS = {"core": (1,), "kidney": (2, 1, 3), "tumour": (3, 1)}


@pytest.mark.parametrize(
    ("labels", "wanted", "values", "expected"),
    [
        (ORGANS, None, ORGANS, [0, 1, 2, 3]),
        (ORGANS, ["liver", "kidney_left"], {"left kidney": (2,), "liver": (3,)}, [0, 0, 2, 3]),
        (REGIONS, ["kidney"], {"kidney": (2,)}, [0, 2, 2, 2]),
        (REGIONS, ["tumour"], {"tumour": (3,)}, [0, 3, 0, 3]),
        (REGIONS, ["core", "kidney"], {"core": (1,), "kidney": (2, 1)}, [0, 1, 2, 2]),
        (REGIONS, ["tumour", "kidney"], {"kidney": (2, 3), "tumour": (3,)}, [0, 3, 2, 3]),
    ],
)
def test_what_is_left(labels, wanted, values, expected, rng):
    chosen = ChosenLabels.of(labels, wanted)
    assert chosen.values == values
    before = rng.integers(0, 4, (5, 4, 3)).astype(np.uint8)
    array = before.copy(order="F")
    chosen.apply(array)
    np.testing.assert_array_equal(array, np.array(expected)[before])
    assert (chosen.names is None) == (wanted is None)


def test_an_unknown_label_is_told_with_those_there_are():
    with pytest.raises(RecipeError, match="no label 'lever'; choose among spleen, left kidney"):
        ChosenLabels.of(ORGANS, ["liver", "lever"])
    with pytest.raises(RecipeError, match="no label ''"):
        ChosenLabels.of(ORGANS, [""])
