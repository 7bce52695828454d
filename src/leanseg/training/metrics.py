"""What training writes down: `metrics.jsonl` and TensorBoard scalars."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from leanseg.errors import FileFormatError, LeansegError
from leanseg.files import read_parsed, write_text

_Number = Annotated[float, Field(ge=-1e12, le=1e12)]


class _Row(BaseModel):
    """What every line of `metrics.jsonl` has, besides more."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    epoch: Annotated[int, Field(ge=1, le=10**9)]
    train_loss: _Number
    monitor_loss: _Number | None = None
    monitor_dice: _Number | None = None
    learning_rate: _Number
    elapsed_s: _Number


class MetricsLog:
    """One line of JSON an epoch, and the same as TensorBoard scalars.

    The file is written anew when training goes on, so that nothing which happened to it, and no
    line of an epoch that is trained again, stays.

    Args:
        folder: The fold's folder.
        rows: Of the epochs that the restored state has behind it.

    Raises:
        LeansegError: If a file cannot be written.
    """

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._path = folder / "metrics.jsonl"
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        try:
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=len(rows) + 1)
        except OSError as error:
            msg = f"{folder / 'tensorboard'}: cannot be written ({error.strerror}); move it away"
            raise LeansegError(msg) from error

    def epoch(self, row: dict[str, Any]) -> None:
        """Append an epoch's row and flush it to disk."""
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        add: Any = self._writer.add_scalar
        keys = ("train_loss", "monitor_loss", "monitor_dice", "learning_rate", "samples_per_s")
        for key in keys:
            if key in row:
                add(key, row[key], row["epoch"])
        for label, value in row.get("monitor_dice_per_label", {}).items():
            if value is not None:
                add(f"monitor_dice/{label}", value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the TensorBoard file."""
        self._writer.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that is being written is left out.

    Raises:
        FileFormatError: If another line is damaged.
    """
    if not path.exists():
        return []
    return read_parsed(
        path,
        lambda text: [
            _Row.model_validate_json(line).model_dump() for line in text.split("\n")[:-1]
        ],
        "continue with `leanseg train --resume`, which writes it again",
        FileFormatError,
    )
