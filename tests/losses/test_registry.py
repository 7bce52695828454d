from __future__ import annotations

import pytest

from leanseg.errors import RecipeError
from leanseg.losses import LOSSES, build_loss


@pytest.mark.parametrize("name", LOSSES)
def test_every_name_builds(name):
    assert callable(build_loss(name))


def test_unknown_name_and_option_list_the_known():
    with pytest.raises(RecipeError, match=r"'dise'.*dice"):
        build_loss("dise")
    with pytest.raises(RecipeError, match=r"'smoth'; its options are include_background, smooth"):
        build_loss("dice", smoth=1.0)
