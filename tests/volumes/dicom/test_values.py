from __future__ import annotations

from types import SimpleNamespace

import pytest

from leanseg.volumes.dicom.values import items, table

pydicom = pytest.importorskip("pydicom")


@pytest.mark.parametrize("row", table("elements.csv"), ids=lambda row: row["keyword"])
def test_elements_are_named_as_in_the_standard(row: dict[str, str]) -> None:
    for column in ("keyword", "sequence", "inside"):
        assert not row[column] or pydicom.datadict.tag_for_keyword(row[column])
    assert row["use"] in ("", "study", "study always", "frame")


@pytest.mark.parametrize("row", table("kinds.csv"), ids=lambda row: row["kind"])
def test_kinds_are_those_of_storage_classes(row: dict[str, str]) -> None:
    for number in filter(None, row["classes"].split("|")):
        uid = pydicom.uid.UID(f"1.2.840.10008.5.1.4.1.1.{number}")
        # A name is the number again where pydicom's dictionary is too old for a class.
        assert uid.name == uid or uid.name.endswith("Storage")


@pytest.mark.parametrize(
    "kept", [[pydicom.Dataset()], None, 3, b"\xff\xfe"], ids=lambda kept: type(kept).__name__
)
def test_a_sequence_that_cannot_be_read_is_empty(kept: object) -> None:
    """pydicom raises whatever it likes where it converts a value, and keeps what it had."""

    class Broken(pydicom.Dataset):
        def get(self, key, default=None):
            raise NotImplementedError

        def get_item(self, key, *, keep_deferred=False):
            return SimpleNamespace(value=kept)

    assert items(Broken(), "ROIContourSequence") == ()
