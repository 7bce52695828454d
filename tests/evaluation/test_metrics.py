from __future__ import annotations

from leanseg.evaluation import METRICS


def test_names_are_unique_and_definitions_complete():
    assert len({m.name for m in METRICS}) == len(METRICS)
    for m in METRICS:
        assert len(m.definition) > 15
        suffix = m.name.rsplit("_", 1)[-1]
        assert m.unit == {"mm": "mm", "ml": "ml", "percent": "%"}.get(suffix, "")
