"""Slices with and without a body: tables, wrists, small fields of view, real scans."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.frames import ScanView
from leanseg.frames.body import find_body
from leanseg.volumes import Volume, read_volume

SPACING = (0.8, 0.8, 5.0)


def body_slices(array: np.ndarray, spacing=SPACING) -> range:
    """Slices from the first with a body to the last."""
    volume = Volume(array, np.diag([*spacing, 1.0]))
    box = find_body(ScanView(volume, volume.orientation))
    return range(0) if box is None else range(box.start[2], box.stop[2])


def scan(rng, n: int = 30, size: int = 400) -> np.ndarray:
    """Air with a table: two shells of carbon 3 mm thick around foam, and a cable."""
    array = rng.normal(-1000, 15, (size, size, n))
    array[20:380, 300:304] = 150
    array[20:380, 304:340] = -930
    array[20:380, 340:344] = 150
    array[50:55, 280:285] = 1000
    return array.astype(np.int16)


def test_a_table_is_no_body(rng) -> None:
    assert not body_slices(scan(rng))


@pytest.mark.parametrize("radius_mm", [20, 60, 150])
def test_a_body_and_its_neighbours(rng, radius_mm: float) -> None:
    array = scan(rng)
    rows, columns = np.ogrid[:400, :400]
    inside = (rows - 200) ** 2 + (columns - 150) ** 2 < (radius_mm / 0.8) ** 2
    array[inside, 10:20] = -90
    assert body_slices(array) == range(8, 22)
    # What lies between two bodies belongs to the box.
    array[inside, 25] = -90
    assert body_slices(array) == range(8, 28)


def test_lungs_and_their_wall_are_body(rng) -> None:
    array = scan(rng)
    rows, columns = np.ogrid[:400, :400]
    distance = np.hypot(rows - 200, columns - 150)
    array[distance < 150] = -850
    array[(distance >= 125) & (distance < 150)] = 0
    assert body_slices(array) == range(30)


def test_a_small_field_of_view_within_the_body(rng) -> None:
    for shape in ((8, 8, 3), (1, 1, 1), (3, 60, 2)):
        assert body_slices(rng.normal(40, 20, shape)) == range(shape[2])
        assert not body_slices(np.full(shape, -1000))


def test_a_real_scan_is_body_throughout(shared_data) -> None:
    image = read_volume(shared_data / "abdomen_ircad01" / "ct.nii.gz")
    assert body_slices(image.array, image.spacing_mm) == range(image.shape[2])
