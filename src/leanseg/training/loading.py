"""Samples from the cache into batches, in this process or in workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from leanseg.training import ranks
from leanseg.training.samplers.base import Sample, Sampler
from leanseg.training.tasks.base import Batch


class _Batches(Dataset[Batch]):
    def __init__(
        self,
        sampler: Sampler,
        samples: Sequence[Sequence[Sample]],
        n_labels: int,
        *,
        tells_all: bool,
    ) -> None:
        self._sampler, self._samples, self._n_labels = sampler, samples, n_labels
        self._tells_all = tells_all

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Batch:
        samples = self._samples[index]
        read = [self._sampler.read(sample) for sample in samples]
        image = torch.from_numpy(np.stack([each for each, _ in read]))
        classes = torch.from_numpy(np.stack([each for _, each in read]))
        known = [self._sampler.annotated(sample) for sample in samples]
        seeds = tuple(sample.seed for sample in samples)
        if not self._tells_all and not any(known):
            return Batch(image, classes, seeds)
        rows = [flags or (True,) * self._n_labels for flags in known]
        return Batch(image, classes, seeds, torch.tensor(rows))


def batches(
    sampler: Sampler, samples: Sequence[Sequence[Sample]], n_labels: int, workers: int
) -> Iterator[Batch]:
    """This process's part of batches, read; the same for any number of workers.

    Args:
        sampler: Reads them.
        samples: Of each batch.
        n_labels: Classes of the stage, without background.
        workers: Processes that read.
    """
    parts = [ranks.share(batch) for batch in samples]
    loader: DataLoader[Any] = DataLoader(
        # Others may have samples whose case leaves a label out.
        _Batches(sampler, parts, n_labels, tells_all=ranks.n_ranks() > 1),
        batch_size=None,
        num_workers=workers,
        # The loader draws a base seed for its workers; giving it a generator keeps it away
        # from the global state that dropout uses.
        generator=torch.Generator().manual_seed(0),
    )
    return iter(loader)
