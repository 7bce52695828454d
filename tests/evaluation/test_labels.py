from __future__ import annotations

import numpy as np
import pytest

from leanseg.errors import LeansegError
from leanseg.evaluation import parse_labels
from leanseg.evaluation.labels import normalise_labels


def test_parse():
    assert parse_labels("liver=1, kidney tumour = 3+2") == {
        "liver": (1,),
        "kidney tumour": (2, 3),
    }


@pytest.mark.parametrize(
    "text",
    ["", "liver", "liver=", "=1", "liver=one", "liver=1,", "liver=1;2", "liver=-1", "a=1+", "a=²"],
)
def test_parse_refuses_other_forms(text):
    with pytest.raises(LeansegError, match="is not of the form name=1"):
        parse_labels(text)


def test_parse_refuses_a_name_twice_and_background():
    with pytest.raises(LeansegError, match="names 'liver' twice"):
        parse_labels("liver=1,liver=2")
    with pytest.raises(LeansegError, match="0 is background"):
        parse_labels("liver=0")


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, (), [1, 0], None])
def test_normalise_refuses(value):
    with pytest.raises(LeansegError, match="label 'liver'"):
        normalise_labels({"liver": value})


def test_normalise():
    given = {"whole": [3, 1, 2, 2], "core": np.int64(3)}
    assert normalise_labels(given) == {"whole": (1, 2, 3), "core": (3,)}
    with pytest.raises(LeansegError, match="no labels to score"):
        normalise_labels({})
