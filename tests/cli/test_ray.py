"""Scans and cells on a Ray cluster: with nodes that die, and where nothing answers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("ray")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_address_where_nothing_answers(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    scan, output = make_scan(tmp_path / "scan.nii"), tmp_path / "out"
    with socket.socket() as silent:
        # Takes connections, and says nothing.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        addresses = ["127.0.0.1:1", "nowhere", f"127.0.0.1:{silent.getsockname()[1]}"]
        for address in addresses:
            began = time.monotonic()
            outcome = leanseg(
                *("predict", model, scan, "--output", output, "--on", "ray", "--address", address)
            )
            outcome.assert_refused(f"--address {address}: no Ray cluster answers there")
            assert time.monotonic() - began < 10
    assert not output.exists()


@pytest.fixture(scope="module")
def cluster():
    """A head that does no work; nodes come with each test. Ray tells nobody of its use."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


def kill_a_node_when(cluster, node, happens) -> threading.Thread:
    """Kill a node as soon as something is there."""

    def watch() -> None:
        while not happens():
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_node_dies_while_scans_are_predicted(
    leanseg, cluster, model: Path, make_scan, tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    for number in range(30):
        make_scan(scans / f"scan_{number:02d}.nii.gz")
    (scans / "bad.nii.gz").write_bytes(b"no scan")
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    output, here = tmp_path / "ray", tmp_path / "here"
    killer = kill_a_node_when(cluster, nodes[0], lambda: len([*output.glob("scan*")]) > 4)
    on = ("--on", "ray", "--address", cluster.address)
    outcome = leanseg("predict", model, scans, "--output", output, *on)
    killer.join()
    assert outcome.status == 1, outcome
    assert "failed: bad: " in outcome.out
    assert f"30 of 31 label maps are in {output}" in outcome.out
    assert leanseg("predict", model, scans, "--output", here).status == 1
    assert sorted(path.name for path in output.iterdir()) == sorted(
        path.name for path in here.iterdir()
    )
    records = json.loads((output / "predictions.json").read_text())["cases"]
    for path in here.glob("*.nii.gz"):
        name = path.name.removesuffix(".nii.gz")
        assert sha256(output / path.name) == sha256(path) == records[name]["output_sha256"]
    assert len(records) == 30
    # What is there is kept, wherever it was made.
    again = leanseg("predict", model, scans, "--output", here, *on)
    assert again.out.count("skipped") == 30
    cluster.remove_node(nodes[1])


@pytest.mark.slow
def test_a_node_dies_in_the_middle_of_a_study(leanseg, cluster, tmp_path: Path) -> None:
    content = {
        "name": "tiny",
        "datasets": {"balls": {"phantom": {"cases": 6, "size": 64, "slices": 20}}},
        "recipes": {"own": "own.json"},
        "seeds": [1, 2, 3],
        "budget": {"steps": 40},
    }
    phase = {"epochs": 20, "steps_per_epoch": 2, "batch_size": 2}
    recipe = {
        "name": "own",
        "data": {"labels": {"liver": [1]}},
        "network": {"name": "combiner", "options": {"base_filters": 4}},
        "plan": {"frame": {"axes": [16, 16, None]}},
        "packaging": {"export": False},
        "phases": [phase],
        "training": {"precision": "32", "checkpoint_interval_s": 0},
    }
    (tmp_path / "own.json").write_text(json.dumps(recipe))
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(content))
    study = ("study", path, "--no-check", "--output")
    assert leanseg(*study, tmp_path / "here").status == 0
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    output = tmp_path / "ray"
    killer = kill_a_node_when(
        cluster, nodes[0], lambda: any(output.glob("cells/*/fold_0/state.pt"))
    )
    on = ("--on", "ray", "--address", cluster.address)
    outcome = leanseg(*study, output, *on)
    killer.join()
    assert outcome.status == 0, outcome
    assert outcome.out.count(": done") == 3
    assert sha256(output / "results.csv") == sha256(tmp_path / "here/results.csv")
    cluster.remove_node(nodes[1])
