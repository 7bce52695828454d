"""`leanseg networks`: the table, one network, JSON, Markdown, latency."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leanseg.errors import MissingDependencyError
from leanseg.networks import NETWORKS, build, catalogue, count_parameters
from leanseg.networks.catalogue import CATALOGUE, Entry

DOCS = Path(__file__).resolve().parents[2] / "docs" / "networks.md"


@pytest.fixture
def few(monkeypatch):
    """A catalogue that is quick to measure."""
    chosen = (
        Entry("monet", "000", (32, 32), options={"base_filters": 4}, note="narrow"),
        Entry("unet", "000", (32, 16), out_channels=3, options={"base_filters": 2}),
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", chosen)
    monkeypatch.setattr(catalogue, "NETWORKS", {name: NETWORKS[name] for name in ("monet", "unet")})
    return chosen


def test_table_has_every_entry_on_one_line(leanseg, few):
    lines = leanseg("networks").out.splitlines()
    assert len(lines) == 1 + len(few)
    for line, entry in zip(lines[1:], few, strict=True):
        counts = count_parameters(
            build(entry.network, out_channels=entry.out_channels, **entry.options)
        )
        assert line.startswith(entry.title)
        assert f"{counts.trainable:,}" in line and f"{counts.keras_total:,}" in line
        assert " x ".join(map(str, entry.input_shape)) in line


def test_json(leanseg):
    (facts,) = json.loads(leanseg("networks", "monet", "--json").out)
    assert facts["trainable"] == 401_666 and facts["keras_total"] == 403_556
    assert facts["multiply_adds"] == 4_758_437_888
    assert facts["input_shape"] == [256, 256]
    assert facts["uncounted_operators"] == []
    assert "latency_s" not in facts
    # Weights and statistics in float32, 27 counters of batches, and less than 32 kB around them.
    around = facts["model_bytes"] - 4 * facts["keras_total"]
    assert 0 < around < 32_000


def test_size_is_that_of_a_written_model(leanseg, few, make_model, tmp_path):
    """The manifest of the test's model has a record of a training besides."""
    (facts,) = json.loads(leanseg("networks", "monet", "--json").out)
    written = make_model(tmp_path / "m.leanseg").stat().st_size
    assert 0 < written - facts["model_bytes"] < 1000


def test_one_network(leanseg, few):
    out = leanseg("networks", "monet").out
    assert "narrow" in out and "bytes" in out and "unet" not in out


def test_markdown(leanseg, few):
    lines = leanseg("networks", "--markdown").out.splitlines()
    assert len(lines) == 2 + len(few)
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| monet (base_filters=4) | 000 | 32 x 32 |")


def test_latency_names_the_threads(leanseg, few):
    (facts,) = json.loads(
        leanseg("networks", "unet", "--latency", "--runs", 1, "--threads", 1, "--json").out
    )
    assert 0 < facts["latency_s"] < 10
    assert facts["threads"] == 1
    assert (
        "s per image (1 thread)"
        in leanseg("networks", "monet", "--latency", "--runs", 1, "--threads", 1).out
    )


def test_unknown_name(leanseg):
    outcome = leanseg("networks", "mone")
    assert outcome.status == 2
    assert "did you mean 'monet'" in outcome.err and "Traceback" not in outcome.err


def test_a_network_whose_package_is_missing_is_left_out(leanseg, few, monkeypatch):
    from leanseg.networks import measure

    cost = measure.network_cost

    def without_the_package(name, *rest, **options):
        if name == "unet":
            msg = "network 'unet' needs MONAI; install it"
            raise MissingDependencyError(msg)
        return cost(name, *rest, **options)

    monkeypatch.setattr(measure, "network_cost", without_the_package)
    outcome = leanseg("networks")
    assert outcome.status == 0
    assert "needs MONAI" in outcome.err and len(outcome.out.splitlines()) == 2
    assert leanseg("networks", "unet").status == 2


def test_without_torch_it_says_what_to_install(leanseg_process):
    hide = (
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)"
    )
    outcome = leanseg_process("networks", before=hide)
    assert outcome.status == 2
    assert "leanseg[train]" in outcome.err


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_documentation_shows_what_the_command_prints():
    """Run `leanseg networks --markdown --latency` again where this fails."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| network |"))
    header = cells(lines[start])
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        row = dict(zip(header, cells(line), strict=True))
        rows[row["network"]] = row
    from leanseg.networks.measure import network_cost

    assert list(rows) == [entry.title for entry in CATALOGUE]
    for entry in CATALOGUE:
        parameters = network_cost(
            entry.network,
            in_channels=entry.in_channels,
            out_channels=entry.out_channels,
            options=entry.options,
        ).parameters
        row = rows[entry.title]
        assert row["trainable"] == f"{parameters.trainable:,}"
        assert row["as Keras counts"] == f"{parameters.keras_total:,}"
        assert row["input"] == " x ".join(map(str, entry.input_shape))
