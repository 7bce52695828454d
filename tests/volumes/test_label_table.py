"""Label tables in NIfTI headers."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from leanseg.volumes.label_table import label_table

TABLE = '<X><LabelTable><Label Key="0">???</Label><Label Key="7"> liver </Label></LabelTable></X>'


def write(path, *contents, kind=nibabel.Nifti1Image):
    image = kind(np.zeros((2, 3, 4), dtype=np.uint8), np.eye(4))
    for code, content in contents:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, content))
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_table_among_other_extensions(tmp_path, kind, name):
    path = write(tmp_path / name, (6, b"a comment"), (30, TABLE.encode()), kind=kind)
    assert label_table(path) == {"liver": 7}


def test_none(tmp_path):
    assert label_table(write(tmp_path / "without.nii.gz")) == {}
    assert label_table(write(tmp_path / "cut.nii", (0, TABLE[:-9].encode()))) == {}
    assert label_table(write(tmp_path / "key.nii", (0, TABLE.replace("7", "x").encode()))) == {}
    assert label_table(tmp_path / "absent.nii.gz") == {}
    (tmp_path / "damaged.nii.gz").write_bytes(b"\x1f\x8b\x08 no gzip")
    assert label_table(tmp_path / "damaged.nii.gz") == {}
    (tmp_path / "scan.mha").write_text(TABLE)
    assert label_table(tmp_path / "scan.mha") == {}
