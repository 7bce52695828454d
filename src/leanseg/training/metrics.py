"""What training writes down: `metrics.jsonl` and TensorBoard scalars."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from leanseg.files import write_text


class MetricsLog:
    """One line of JSON an epoch, and the same as TensorBoard scalars.

    Lines of epochs after `completed_epochs` are dropped: a resumed run trains those again.

    Args:
        folder: The fold's folder.
        completed_epochs: Epochs that the restored state has behind it.
    """

    def __init__(self, folder: Path, completed_epochs: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(self._path) if row["epoch"] <= completed_epochs]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_text(self._path, text)
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=completed_epochs + 1)

    def epoch(self, row: dict[str, Any]) -> None:
        """Append an epoch's row and flush it to disk."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        add: Any = self._writer.add_scalar
        for key in ("train_loss", "val_loss", "val_dice", "learning_rate", "images_per_s"):
            add(key, row[key], row["epoch"])
        for label, value in row["val_dice_per_label"].items():
            if value is not None:
                add(f"val_dice/{label}", value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the TensorBoard file."""
        self._writer.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that was cut by a kill is left out."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
