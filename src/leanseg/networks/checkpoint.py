"""PyTorch checkpoints from elsewhere: read, and nothing in them run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from leanseg.errors import FileFormatError


def read_checkpoint(path: Path, wanted: str, allowed: Sequence[Callable[..., Any]] = ()) -> Any:
    """What a checkpoint holds, if that is tensors, numbers, texts and containers of these.

    Args:
        path: The `.pth` file.
        wanted: What it should be, for the message: "a .pth checkpoint of ...".
        allowed: Functions and types that its pickle may name besides.

    Raises:
        FileFormatError: There is no such file, it is damaged, or it holds anything else.
    """
    if not path.is_file():
        raise FileFormatError(f"{path} is not a file; give {wanted}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                swollen = sum(entry.file_size for entry in archive.infolist())
            if swollen > 2 * path.stat().st_size:
                # PyTorch packs nothing; memory would fill while it unpacks.
                raise ValueError("its entries swell")
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FileFormatError(
            f"{path} is refused: it is damaged or holds more than tensors, which could run code; "
            "save its state_dict alone"
        ) from error
    except Exception as error:  # what damaged bytes raise is not documented
        msg = f"{path} cannot be read as a PyTorch checkpoint: it is damaged or something else"
        raise FileFormatError(msg) from error


def are_named_tensors(state: Any) -> bool:
    """Whether this is the state of a network: names and plain tensors in memory."""
    # Sparse and quantised ones are other things.
    return isinstance(state, dict) and all(
        isinstance(key, str)
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
        for key, value in state.items()
    )
