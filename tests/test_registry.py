"""Names to factories, and the one check of their options."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from leanseg.errors import GeometryError, RecipeError
from leanseg.registry import Count, Counts, Odd, Rate, check_value, did_you_mean, make


class Thing:
    def __init__(self, width: int, *, depth: Count = 3, rate: Rate = 0.5, free=None) -> None:
        if free == "geometry":
            raise GeometryError("geometry")
        if free == "torch":
            raise ValueError("groups must divide")
        self.made = (width, depth, rate, free)


deep_thing = partial(Thing, depth=9)
TABLE = {"thing": f"{__name__}:Thing", "deep-thing": f"{__name__}:deep_thing"}


def thing(name="thing", **options):
    return make("thing", TABLE, name, {"width": "any", **options}, ("width",))


def test_builds_with_the_options():
    assert thing(depth=4, free=...).made == ("any", 4, 0.5, ...)
    assert thing("deep-thing", rate=0).made == ("any", 9, 0, None)


@pytest.mark.parametrize(
    ("asked", "near"), [("thinq", "'thing'"), ("Thing", "'thing'"), ("deep_thing", "'deep-thing'")]
)
def test_unknown_names_suggest_the_nearest(asked, near):
    with pytest.raises(RecipeError, match=rf"thing '{asked}' is not known \(did you mean {near}"):
        thing(asked)


def test_names_far_from_all_get_no_suggestion():
    assert did_you_mean(["xyzzy"], TABLE) == ""
    with pytest.raises(RecipeError, match="is not known; choose one of deep-thing, thing"):
        thing("xyzzy")


def test_unknown_options_list_and_suggest_the_known():
    told = r"no option 'dept', 'zzz'; its options are depth, free, rate \(did you mean 'depth'\?\)"
    with pytest.raises(RecipeError, match=told):
        thing(dept=1, zzz=1)


def test_what_the_name_settles_is_no_option():
    with pytest.raises(RecipeError, match="no option 'depth'; its options are free, rate"):
        thing("deep-thing", depth=1)


def test_errors_of_the_factory():
    with pytest.raises(GeometryError):
        thing(free="geometry")
    with pytest.raises(RecipeError, match=r"cannot be built with these options \(groups must"):
        thing(free="torch")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Count, (1, 7), (0, -1, 1.0, True, "1", None)),
        (Rate, (0, 0.0, 0.99), (-0.1, 1, float("nan"), False, "0")),
        (Odd, (1, 31), (0, 2, -1, 3.0)),
        (Counts, ((1, 2), [3]), ((), [0], "12", 3, [1.5])),
        (Literal["mirror", "zero"] | None, ("mirror", None), ("wrap", 0)),
        (Annotated[float, Field(gt=0, le=1)], (1, 0.5), (0, 1.5)),
    ],
)
def test_values(kind, good, bad):
    for value in good:
        check_value("thing", "it", "size", kind, value)
    for value in bad:
        with pytest.raises(RecipeError, match="thing 'it': option 'size' is ") as caught:
            check_value("thing", "it", "size", kind, value)
        assert "\n" not in str(caught.value) and repr(value) in str(caught.value)


@given(st.integers() | st.integers(65530, 65540), st.sampled_from([Count, Odd]))
def test_whole_numbers(number, kind):
    if not 1 <= number <= 65536 or (kind is Odd and number % 2 == 0):
        with pytest.raises(RecipeError):
            check_value("thing", "it", "size", kind, number)
    else:
        check_value("thing", "it", "size", kind, number)
