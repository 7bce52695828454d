"""The names of labels that a NIfTI file brings with it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from leanseg.volumes.io import volume_suffix

_NIFTI = (".nii", ".nii.gz")
# Size and code of an extension, before its content.
_HEAD_BYTES = 8


def label_table(path: Path) -> dict[str, int]:
    """Names and values of the label table in a NIfTI file's header.

    The table is the XML extension of Caret and Connectome Workbench, which TotalSegmentator
    (`--ml`), too, writes into its label maps.

    Returns:
        Name to value without the background, 0; empty where the file has no table, or one that
        cannot be read.
    """
    if volume_suffix(path) not in _NIFTI or not path.is_file():
        return {}
    try:
        return {name: value for name, value in _entries(path) if value > 0 and name}
    except Exception:  # a table is a courtesy; what is damaged is said when voxels are read
        return {}


def _entries(path: Path) -> Iterator[tuple[str, int]]:
    import nibabel

    header: Any = nibabel.load(path).header
    for extension in header.extensions:
        # As it is stored: of some codes nibabel gives something else as the content.
        stored = io.BytesIO()
        extension.write_to(stored)
        content = stored.getvalue()[_HEAD_BYTES:].strip(b"\0 \n")
        if b"<LabelTable" in content:
            for label in ElementTree.fromstring(content).iter("Label"):
                yield (label.text or "").strip(), int(label.get("Key", 0))
