"""Training state on disk: written in one rename, read without running anything from the file."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from leanseg.errors import LeansegError
from leanseg.files import require_file, written_whole

_DIGEST_BYTES = 32


@dataclass
class TrainingState:
    """Everything that a killed training needs to go on to the very same weights.

    There is no generator state: every draw derives from (seed, epoch, sample).

    Attributes:
        precision: Of the network's layers.
        fold_id: Which run and fold it is of.
        processes: That train together.
        started_from: What it has of another model's weights, said; "" without one.
        phase: Number of the phase.
        epoch: Complete epochs, of all phases.
        step_in_epoch: Steps taken in the next one.
        step: Steps, of all phases.
        began: Epochs, steps, seconds and processor seconds at which the phase began.
        elapsed_s: Seconds.
        cpu_s: Processor seconds.
        epoch_seconds: Of the steps of the epoch so far.
        monitor_seconds: Of the last look at the monitor cases.
        monitor_cpu_s: In processor seconds.
        loss_sum: Of the steps of the epoch so far.
        best_dice: Of the monitor cases in the best epoch of this phase; -1 before the first look.
        best_loss: Likewise; infinite before.
        best_epoch: When that was.
        looks_since_best: Looks at the monitor cases since.
        stopped_because: Why training ended; "" before.
        pace: For each phase, what the clock decided (see `leanseg.training.pace`).
        rows: What `metrics.jsonl` says of the complete epochs.
        network: Weights.
        average: Their running average; empty without one.
        optimisers: Their states.
        schedule: Its state.
        best_network: The weights that the phase selects, by now.
    """

    precision: str
    fold_id: str = ""
    processes: int = 1
    started_from: str = ""
    phase: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    began: list[float] = field(default_factory=lambda: [0, 0, 0.0, 0.0])
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    epoch_seconds: float = 0.0
    monitor_seconds: float = 0.0
    monitor_cpu_s: float = 0.0
    loss_sum: float = 0.0
    best_dice: float = -1.0
    best_loss: float = math.inf
    best_epoch: int = 0
    looks_since_best: int = 0
    stopped_because: str = ""
    pace: list[list[list[int]]] = field(default_factory=lambda: [[]])
    rows: list[dict[str, Any]] = field(default_factory=list)
    network: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    optimisers: list[dict[str, Any]] = field(default_factory=list)
    schedule: dict[str, Any] = field(default_factory=dict)
    best_network: dict[str, Any] = field(default_factory=dict)

    @property
    def phase_epoch(self) -> int:
        """Complete epochs of the phase."""
        return self.epoch - int(self.began[0])

    @property
    def phase_step(self) -> int:
        """Steps of the phase."""
        return self.step - int(self.began[1])

    @property
    def engine_precision(self) -> str:
        """The precision as engines call it."""
        return "bf16" if self.precision == "bf16-mixed" else "f32"

    @property
    def outcome(self) -> dict[str, Any]:
        """How training went, for summaries."""
        return {
            "precision": self.precision,
            "processes": self.processes,
            "started_from": self.started_from,
            "epochs": self.epoch,
            "steps": self.step,
            "best_epoch": self.best_epoch,
            "stopped_because": self.stopped_because,
        }

    @property
    def is_finite(self) -> bool:
        """Whether every number of the network and of its optimiser is one."""
        kept = [each for state in self.optimisers for each in state["state"].values()]
        moments = [value for each in kept for value in each.values()]
        tensors = [*self.network.values(), *self.average.values(), *moments]
        return all(bool(t.isfinite().all()) for t in tensors if isinstance(t, torch.Tensor))


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state; a reader sees the old one or the new one, never a part.

    Its last 32 bytes are the SHA-256 of the others.

    Raises:
        LeansegError: If the folder cannot be written to or the disk is full.
    """
    with written_whole(path) as scratch, scratch.open("w+b") as stream:
        try:
            torch.save(vars(state), stream)
        except RuntimeError as error:
            # torch hides a full disk, or an interrupt, behind an error of its own.
            if isinstance(error.__context__, OSError | KeyboardInterrupt):
                raise error.__context__ from error
            raise
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").digest()
        stream.write(digest)


def load_state(path: Path, fold_id: str = "") -> TrainingState:
    """Read a state that `save_state` wrote.

    Raises:
        LeansegError: If the file is damaged, or the state of another run or fold.
    """
    try:
        content = require_file(path).read_bytes()
        saved, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
        if hashlib.sha256(saved).digest() != digest:
            raise ValueError("its SHA-256 is another")
        state = TrainingState(
            **torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)
        )
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise LeansegError(
            f"{path}: is not a readable training state ({reason}); "
            "restore it, or delete it to train this fold from the start"
        ) from error
    if state.fold_id != fold_id:
        raise LeansegError(
            f"{path}: is of another run or fold, or the run's sha256sums.txt was changed; restore "
            "them, or delete the state to train this fold from the start"
        )
    return state


def clone_tensors(state: dict[str, Any]) -> dict[str, Any]:
    """A copy of a state dictionary whose tensors share no memory with the original."""
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
