"""`leanseg networks`: the table, one network, its latency."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from leanseg.networks import NETWORKS, build, count_parameters, published
from leanseg.networks.published import Published

DOCS = Path(__file__).resolve().parents[2] / "docs" / "networks.md"


@pytest.fixture
def few(monkeypatch):
    """A registry that is quick to measure."""
    for name in set(NETWORKS) - {"monet", "unet-16", "residual-unet"}:
        monkeypatch.delitem(NETWORKS, name)
    chosen = [
        Published("monet", "000", (32, 32), options={"base_filters": 4}, note="narrow"),
        Published("unet-16", "000", (32, 16), out_channels=3),
        Published("residual-unet", "003", (32, 32), options={"base_filters": 4}),
    ]
    monkeypatch.setattr(
        published, "published", lambda name: [e for e in chosen if name in (None, e.network)]
    )
    return chosen


def test_table_has_every_network_on_one_line(leanseg, few):
    lines = leanseg("networks").out.strip().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    for line, entry in zip(lines[2:], few, strict=True):
        counts = count_parameters(
            build(entry.network, out_channels=entry.out_channels, **entry.options)
        )
        assert line.startswith(f"| {entry.title} ")
        assert f" {counts.trainable:,} " in line and f" {counts.keras_total:,} " in line
        assert " x ".join(map(str, entry.input_shape)) in line
        assert not line.endswith("...")


def test_the_papers_own_network(leanseg):
    """401,666 trainable parameters, 403,556 as Keras counts (paper 000)."""
    out = leanseg("networks", "monet").out
    assert " 401,666 " in out and " 403,556 " in out and " 4.76 G " in out
    assert " 256 x 256 " in out and "s per image" not in out


def test_one_network_with_its_note_and_time(leanseg, few):
    out = leanseg("networks", "monet", "--latency").out
    assert "monet (base_filters=4): narrow" in out and "unet" not in out
    assert "s per image" in out


def test_unknown_name(leanseg):
    outcome = leanseg("networks", "mone")
    assert outcome.status == 2
    assert "did you mean 'monet'" in outcome.err and "Traceback" not in outcome.err


def test_a_network_whose_package_is_missing_is_left_out(leanseg, few, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    outcome = leanseg("networks")
    assert outcome.status == 0
    assert "needs MONAI" in outcome.err
    assert "| monet" in outcome.out and "residual-unet" not in outcome.out
    assert leanseg("networks", "residual-unet").status == 2


def test_without_torch_it_says_what_to_install(leanseg_process):
    hide = (
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)"
    )
    outcome = leanseg_process("networks", before=hide)
    assert outcome.status == 2
    assert "leanseg[train]" in outcome.err


def test_the_documentation_lists_every_network():
    """Run `leanseg networks --latency` again where this fails."""
    text = DOCS.read_text(encoding="utf-8")
    assert [
        e.title for e in published.published() if f"| {e.title} | {e.paper or '-'} |" not in text
    ] == []
