"""KiTS19: slices first, and what the affine makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import layout_samples as samples
from leanseg.datasets import load_case, open_dataset, read_source
from leanseg.errors import FileFormatError


def test_cases_without_scan_or_segmentation(tmp_path: Path) -> None:
    samples.kits19(tmp_path / "data")
    (tmp_path / "data/case_00000/segmentation.nii.gz").unlink()
    (tmp_path / "data/case_00001/imaging.nii.gz").unlink()
    (tmp_path / "data/case_00002").mkdir()
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "kits19"
    unlabelled, unscanned = dataset.cases
    assert unlabelled.label_parts == ()
    assert load_case(unlabelled, dataset)[1] is None
    # What is there can be read, what is not is named.
    _, label = list(samples.CASES.values())[1]
    found = read_source(unscanned.label_parts[0].source)
    np.testing.assert_array_equal(found.array, label.transpose(2, 1, 0)[::-1])
    with pytest.raises(FileFormatError, match=r"case_00001/imaging\.nii\.gz: there is no such"):
        load_case(unscanned, dataset)


def test_kits23_has_cysts(tmp_path: Path) -> None:
    samples.kits19(tmp_path)
    (tmp_path / "case_00000/instances").mkdir()
    assert open_dataset(tmp_path).labels == {"kidney": 1, "tumour": 2, "cyst": 3}


@pytest.mark.shared_data
@pytest.mark.slow
def test_real_masks_lie_as_kidneys_do(shared_data: Path) -> None:
    """Kidneys lean: their upper poles are nearer to each other, and further back, than the lower
    ones; and the left one usually lies higher. All three axes are told apart by that."""
    dataset = open_dataset(shared_data / "kits19_masks")
    assert dataset.layout == "kits19"
    assert len(dataset.cases) == 8
    assert dataset.labels == {"kidney": 1, "tumour": 2}
    left_higher_mm = []
    for name in ("case_00061", "case_00137", "case_00206"):
        volume = read_source(dataset.case(name).label_parts[0].source)
        assert volume.shape[1:] == (512, 512)
        assert volume.orientation == "IPL"
        left, right = sorted(kidneys(volume), key=lambda points: points[:, 0].mean())
        for points, towards_middle in ((left, 1), (right, -1)):
            low, high = np.percentile(points[:, 2], [20, 80])
            lean = points[points[:, 2] > high].mean(0) - points[points[:, 2] < low].mean(0)
            assert lean[0] * towards_middle > 0
            assert lean[1] < 0
        left_higher_mm.append(left[:, 2].mean() - right[:, 2].mean())
    assert min(left_higher_mm) > 0


def kidneys(volume) -> list[np.ndarray]:
    """World points, RAS+ mm, of the two largest components."""
    components, count = ndimage.label(volume.array > 0)
    sizes = ndimage.sum_labels(volume.array > 0, components, range(1, count + 1))
    largest = np.argsort(sizes)[-2:] + 1
    affine = volume.affine
    return [np.argwhere(components == n) @ affine[:3, :3].T + affine[:3, 3] for n in largest]
