"""The catalogue: every entry complete, and its layout one that there is."""

from __future__ import annotations

import json

import pytest

from leanseg.datasets import LAYOUTS
from leanseg.datasets.catalogue import CATALOGUE, PublicDataset, public_dataset
from leanseg.errors import DatasetError


@pytest.mark.parametrize("dataset", CATALOGUE, ids=lambda dataset: dataset.name)
def test_entries_are_complete(dataset: PublicDataset):
    assert dataset.layout in LAYOUTS
    assert dataset.home.startswith(("https://", "http://"))
    assert all((dataset.title, dataset.licence, dataset.cases, dataset.organs, dataset.tree))
    assert set(dataset.modality.split(", ")) <= {"CT", "MR"}


def test_names_are_unique():
    names = [dataset.name for dataset in CATALOGUE]
    assert len(set(names)) == len(names)


def test_the_papers_datasets_and_the_layouts_are_there():
    names = {dataset.name for dataset in CATALOGUE}
    assert {"msd", "kits19", "nih-pancreas", "tcia43", "btcv", "visceral", "brats2018"} <= names
    served = {dataset.layout for dataset in CATALOGUE}
    assert {"chaos", "3d-ircadb", "tcia43", "nih-pancreas", "kits19", "visceral"} <= served


def test_found_by_name():
    assert public_dataset("CHAOS").licence == "CC BY-SA"
    with pytest.raises(DatasetError, match="no public dataset is called 'chaoss'; choose one of"):
        public_dataset("chaoss")


def test_json_has_all_of_it():
    content = json.loads(json.dumps([dataset.to_json() for dataset in CATALOGUE]))
    assert content[0]["name"] == CATALOGUE[0].name
    assert content[0]["notes"] == list(CATALOGUE[0].notes)
