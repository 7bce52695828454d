from __future__ import annotations

import pytest

from leanseg.evaluation import METRICS, metric


def test_names_are_unique_and_definitions_complete():
    assert len({m.name for m in METRICS}) == len(METRICS)
    for m in METRICS:
        assert len(m.definition) > 15
        suffix = m.name.rsplit("_", 1)[-1]
        assert m.unit == {"mm": "mm", "ml": "ml", "percent": "%"}.get(suffix, "")


def test_by_name():
    assert metric("assd_mm").better == "lower"
    with pytest.raises(KeyError):
        metric("asd")
