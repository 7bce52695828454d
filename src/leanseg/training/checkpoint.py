"""Training state on disk: written in one rename, read without running anything from the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from leanseg.errors import LeansegError
from leanseg.files import written_whole


@dataclass
class TrainingState:
    """Everything that a killed training needs to go on to the very same weights.

    `epoch` counts complete epochs, `step_in_epoch` the steps taken in the next one. There is
    no generator state: every draw derives from (seed, epoch, sample).
    """

    precision: str
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    epoch_seconds: float = 0.0
    validation_seconds: float = 0.0
    validation_cpu_s: float = 0.0
    loss_sum: float = 0.0
    best_dice: float = -1.0
    best_epoch: int = 0
    stopped_because: str = ""
    network: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    best_network: dict[str, Any] = field(default_factory=dict)

    @property
    def engine_precision(self) -> str:
        """The precision as engines call it."""
        return "bf16" if self.precision == "bf16-mixed" else "f32"

    @property
    def outcome(self) -> dict[str, Any]:
        """How training went, for summaries."""
        return {
            "precision": self.precision,
            "epochs": self.epoch,
            "steps": self.step,
            "best_epoch": self.best_epoch,
            "stopped_because": self.stopped_because,
        }


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state; a reader sees the old one or the new one, never a part.

    Raises:
        LeansegError: If the folder cannot be written to or the disk is full.
    """
    with written_whole(path) as scratch, scratch.open("wb") as stream:
        try:
            torch.save(vars(state), stream)
        except RuntimeError as error:
            # torch hides a full disk, or an interrupt, behind an error of its own.
            if isinstance(error.__context__, OSError | KeyboardInterrupt):
                raise error.__context__ from error
            raise


def load_state(path: Path) -> TrainingState:
    """Read a state that `save_state` wrote.

    Raises:
        LeansegError: If the file is damaged or holds anything but tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return TrainingState(**content)
    except Exception as error:
        msg = (
            f"{path}: is not a readable training state ({type(error).__name__}); "
            "delete it to train this fold from the start"
        )
        raise LeansegError(msg) from error


def clone_tensors(state: dict[str, Any]) -> dict[str, Any]:
    """A copy of a state dictionary whose tensors share no memory with the original."""
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
