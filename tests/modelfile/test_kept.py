"""A model file that an earlier version wrote is read, and predicts what it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanseg.inference import load_model
from leanseg.volumes import Volume

KEPT = Path(__file__).parent / "tiny.leanseg"


def test_the_kept_file_predicts_in_both_engines() -> None:
    """Its graph was exported when it was written; its weights go through today's network."""
    array = np.random.default_rng(0).normal(50, 200, (36, 30, 8)).astype(np.int16)
    scan = Volume(array, np.diag([-0.8, -0.8, 2.5, 1.0]))
    masks = [
        load_model(KEPT, engine=engine, precision="f32", threads=1).predict(scan).array
        for engine in ("openvino", "torch")
    ]
    assert (masks[0] == masks[1]).mean() > 0.999
    # 8.814 ml when it was written.
    assert masks[0].sum() * 0.8 * 0.8 * 2.5e-3 == pytest.approx(8.814, abs=0.02)
