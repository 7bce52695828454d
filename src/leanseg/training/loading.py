"""Slices from the cache into batches, in this process or in workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from leanseg.training.samplers.slices import Sample, TrainingSlices


@dataclass(frozen=True)
class Batch:
    """image (batch, channel, row, column) float32; classes (batch, row, column) int64.

    `annotated` (batch, output channel) is False where a sample's case does not annotate the
    channel's class; None where all is annotated.
    """

    image: torch.Tensor
    classes: torch.Tensor
    augmentation_seeds: tuple[int, ...]
    annotated: torch.Tensor | None = None


class _Batches(Dataset[Batch]):
    def __init__(
        self, cases: Sequence[TrainingSlices], samples: Sequence[Sample], batch_size: int
    ) -> None:
        self._cases = cases
        self._batches = [
            samples[start : start + batch_size] for start in range(0, len(samples), batch_size)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        samples = self._batches[index]
        cases = [self._cases[sample.case] for sample in samples]
        read = [case.read(sample.slice_index) for case, sample in zip(cases, samples, strict=True)]
        images, classes = (torch.from_numpy(np.stack(each)) for each in zip(*read, strict=True))
        seeds = tuple(sample.augmentation_seed for sample in samples)
        return Batch(images, classes, seeds, _annotated([case.case.annotated for case in cases]))


def _annotated(known: Sequence[tuple[bool, ...] | None]) -> torch.Tensor | None:
    """One row a sample; several labels are preceded by the background's channel."""
    n_labels = max((len(flags) for flags in known if flags is not None), default=0)
    if not n_labels:
        return None
    rows = [flags if flags is not None else (True,) * n_labels for flags in known]
    labels = torch.tensor(rows)
    if n_labels == 1:
        return labels
    return torch.cat((torch.ones(len(rows), 1, dtype=torch.bool), labels), dim=1)


def batches(
    cases: Sequence[TrainingSlices],
    samples: Sequence[Sample],
    batch_size: int,
    workers: int,
    first_batch: int = 0,
) -> Iterator[Batch]:
    """The batches of an epoch from `first_batch` on; the same for any number of workers."""
    loader: DataLoader[Any] = DataLoader(
        _Batches(cases, samples[first_batch * batch_size :], batch_size),
        batch_size=None,
        num_workers=workers,
        # The loader draws a base seed for its workers; giving it a generator keeps it away
        # from the global state that dropout uses.
        generator=torch.Generator().manual_seed(0),
    )
    return iter(loader)
