"""Slices from the cache into batches, in this process or in workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from leanseg.preprocessing import TrainingCase
from leanseg.training.sampling import Sample


@dataclass(frozen=True)
class Batch:
    """image (batch, channel, row, column) float32; classes (batch, row, column) int64."""

    image: torch.Tensor
    classes: torch.Tensor
    augmentation_seeds: tuple[int, ...]


class _Slices(Dataset[tuple[Any, Any, int]]):
    def __init__(self, cases: Sequence[TrainingCase], samples: Sequence[Sample]) -> None:
        self._cases = cases
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Any, Any, int]:
        sample = self._samples[index]
        case = self._cases[sample.case]
        # Copies: the cache's arrays are read-only memory maps.
        image = np.array(case.image[sample.slice_index])
        classes = case.classes[sample.slice_index].astype(np.int64)
        return image, classes, sample.augmentation_seed


def _collate(items: list[tuple[Any, Any, int]]) -> Batch:
    images, classes, seeds = zip(*items, strict=True)
    return Batch(
        torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(classes)), tuple(seeds)
    )


def batches(
    cases: Sequence[TrainingCase],
    samples: Sequence[Sample],
    batch_size: int,
    workers: int,
    first_batch: int = 0,
) -> Iterator[Batch]:
    """The batches of an epoch from `first_batch` on; the same for any number of workers."""
    remaining = samples[first_batch * batch_size :]
    loader: DataLoader[Any] = DataLoader(
        _Slices(cases, remaining),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        prefetch_factor=2 if workers else None,
        # The loader draws a base seed for its workers; giving it a generator keeps it away
        # from the global state that dropout uses.
        generator=torch.Generator().manual_seed(0),
    )
    return iter(loader)
