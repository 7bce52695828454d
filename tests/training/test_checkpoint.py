"""The state on disk: whole or not at all, and nothing in it can run."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest
import torch

from leanseg.errors import LeansegError
from leanseg.training.checkpoint import TrainingState, clone_tensors, load_state, save_state


def state() -> TrainingState:
    return TrainingState(
        precision="32",
        epoch=3,
        step=120,
        best_dice=0.5,
        network={"w": torch.arange(6.0).reshape(2, 3)},
        optimisers=[{"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 1e-3}]}],
    )


def test_round_trip(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", state())
    read = load_state(tmp_path / "state.pt")
    assert (read.epoch, read.step, read.best_dice) == (3, 120, 0.5)
    assert torch.equal(read.network["w"], state().network["w"])
    assert read.optimisers[0]["param_groups"] == [{"lr": 1e-3}]
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_full_disk_keeps_the_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    save_state(path, state())
    before = path.read_bytes()

    def full(content: object, stream: object) -> None:
        # As torch raises it: the system's error hidden behind a RuntimeError.
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(LeansegError, match=r"state\.pt: the disk is full"):
        save_state(path, state())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_torch_reports_a_full_device_as_we_expect() -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as stream,
        pytest.raises((OSError, RuntimeError)) as caught,
    ):
        torch.save({"w": torch.zeros(10_000_000)}, stream)
    error = caught.value
    assert isinstance(error, OSError) or isinstance(error.__context__, OSError)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    path = tmp_path / "state.pt"
    torch.save({"precision": Evil()}, path)
    with pytest.raises(LeansegError, match="not a readable training state"):
        load_state(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(LeansegError, match="not a readable training state"):
        load_state(path)
    assert not (tmp_path / "touched").exists()


def test_clones_share_no_memory() -> None:
    original = {"w": torch.zeros(3)}
    clone = clone_tensors(original)
    original["w"] += 1
    assert clone["w"].tolist() == [0, 0, 0]


def test_an_interrupt_while_writing_stays_an_interrupt(tmp_path, monkeypatch):
    def interrupted(content, stream):
        try:
            raise KeyboardInterrupt
        finally:
            # As torch does when its archive cannot be closed.
            raise RuntimeError("unexpected pos")

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path / "state.pt", TrainingState(precision="32"))
    assert not list(tmp_path.iterdir())
