from __future__ import annotations

from collections import Counter

import pytest

from leanseg.errors import RecipeError
from leanseg.networks import NETWORKS, catalogue
from leanseg.networks.catalogue import CATALOGUE, Entry, entries
from leanseg.networks.measure import network_cost


def test_every_network_has_an_entry():
    assert set(NETWORKS) == {entry.network for entry in CATALOGUE}


def test_no_two_lines_have_one_title():
    assert max(Counter(entry.title for entry in CATALOGUE).values()) == 1


def test_entries_of_one_network_and_of_all():
    assert [entry.title for entry in entries("monet")] == ["monet"]
    assert entries()[: len(CATALOGUE)] == CATALOGUE
    with pytest.raises(RecipeError, match=r"'mone' is not known.*did you mean 'monet'"):
        entries("mone")


def test_a_network_without_an_entry_is_listed_too(monkeypatch):
    without = tuple(entry for entry in CATALOGUE if entry.network != "unet-16")
    monkeypatch.setattr(catalogue, "CATALOGUE", without)
    assert entries("unet-16") == (Entry("unet-16"),)
    assert entries()[-1] == Entry("unet-16")


def test_the_title_tells_the_options():
    assert Entry("unet", options={"base_filters": 8}).title == "unet (base_filters=8)"


@pytest.mark.parametrize("entry", [e for e in CATALOGUE if e.published], ids=lambda e: e.title)
def test_the_published_number_is_the_networks(entry):
    """Where a paper prints all digits; the others are rounded in words."""
    cost = network_cost(
        entry.network,
        in_channels=entry.in_channels,
        out_channels=entry.out_channels,
        options=entry.options,
    )
    if entry.published.replace(",", "").isdigit():
        assert f"{cost.parameters.keras_total:,}" == entry.published
