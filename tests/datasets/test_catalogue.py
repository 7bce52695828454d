"""The catalogue: every entry complete, and its layout one that there is."""

from __future__ import annotations

import pytest

from leanseg.datasets import LAYOUTS
from leanseg.datasets.catalogue import PublicDataset, public_dataset, public_datasets
from leanseg.errors import DatasetError


@pytest.mark.parametrize("dataset", public_datasets(), ids=lambda dataset: dataset.name)
def test_entries_are_complete(dataset: PublicDataset):
    assert dataset.layout in LAYOUTS
    assert dataset.home.startswith(("https://", "http://"))
    assert all((dataset.title, dataset.licence, dataset.cases, dataset.organs, dataset.tree))
    assert set(dataset.modality.split(", ")) <= {"CT", "MR"}


def test_names_are_unique():
    names = [dataset.name for dataset in public_datasets()]
    assert len(set(names)) == len(names)


def test_found_by_name():
    assert public_dataset("CHAOS").licence == "CC BY-SA"
    with pytest.raises(DatasetError, match="no public dataset is called 'chaoss'; choose one of"):
        public_dataset("chaoss")
