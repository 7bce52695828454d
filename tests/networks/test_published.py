from __future__ import annotations

import pytest

from leanseg.errors import RecipeError
from leanseg.networks import NETWORKS, published
from leanseg.networks.measure import network_cost
from leanseg.networks.published import Published

ENTRIES = published.published()


def test_lines_of_one_network_and_of_all():
    assert {entry.network for entry in ENTRIES} == set(NETWORKS)
    assert [entry.title for entry in published.published("monet")] == ["monet"]
    assert len(published.published("global-fc-unet")) == 2
    with pytest.raises(RecipeError, match=r"'mone' is not known.*did you mean 'monet'"):
        published.published("mone")


def test_a_network_without_a_line_is_listed_too(monkeypatch):
    monkeypatch.setitem(NETWORKS, "new", "leanseg.networks.monet:MoNet")
    assert published.published("new") == [Published("new")]


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.parameters], ids=lambda e: e.title)
def test_the_published_number_is_the_networks(entry):
    """Where a paper prints all digits; the others are rounded in words."""
    cost = network_cost(entry.network, out_channels=entry.out_channels, options=entry.options)
    if entry.parameters.replace(",", "").isdigit():
        assert f"{cost.parameters.keras_total:,}" == entry.parameters
