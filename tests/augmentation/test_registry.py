from __future__ import annotations

import pytest

from leanseg.augmentation import AUGMENTATIONS, build_augmentation
from leanseg.errors import RecipeError


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_name_builds_and_has_the_two_steps(name):
    augmentation = build_augmentation(name)
    assert callable(augmentation.draw) and callable(augmentation.apply)


def test_unknown_name_and_option_list_the_known():
    with pytest.raises(RecipeError, match=r"'afine'.*affine"):
        build_augmentation("afine")
    with pytest.raises(RecipeError, match=r"'angle'; its options are rotation_deg, shift, zoom"):
        build_augmentation("affine", angle=5)
