"""Samples from the cache into batches, in this process or in workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
        # Tasks that draw points of whole volumes ask for the same ones again and again.
        self._last: tuple[list[Any], torch.Tensor, torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Batch:
        samples = self._samples[index]
        places = [(sample.case, sample.start) for sample in samples]
        if self._last is None or self._last[0] != places:
            image, classes = zip(*(self._sampler.read(sample) for sample in samples), strict=True)
            self._last = places, _stacked(image), _stacked(classes)
        _, images, targets = self._last
        known = [self._sampler.annotated(sample) for sample in samples]
        seeds = tuple(sample.seed for sample in samples)
        if not self._tells_all and not any(known):
            return Batch(images, targets, seeds)
        rows = [flags or (True,) * self._n_labels for flags in known]
        return Batch(images, targets, seeds, torch.tensor(rows))


def _stacked(arrays: Sequence[NDArray[Any]]) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays))


def batches(
    sampler: Sampler, samples: Sequence[Sequence[Sample]], n_labels: int, workers: int
) -> Iterator[Batch]:
    """This process's part of batches, read; the same for any number of workers.

    Args:
        sampler: Reads them.
        samples: Of each batch.
        n_labels: Classes of the stage, without background.
        workers: Processes that read; 0 for a thread of this one.
    """
    parts = [ranks.share(batch) for batch in samples]
    # Others may have samples whose case leaves a label out.
    data = _Batches(sampler, parts, n_labels, tells_all=ranks.n_ranks() > 1)
    if not workers:
        return _read_ahead(data)
    # The loader draws a base seed for its workers; giving it a generator keeps it away from the
    # global state that dropout uses.
    generator = torch.Generator().manual_seed(0)
    loader: DataLoader[Any] = DataLoader(
        data, batch_size=None, num_workers=workers, generator=generator
    )
    return iter(loader)


def _read_ahead(data: _Batches) -> Iterator[Batch]:
    """Batches in their order, the next one read by a thread while the network has this one."""
    with ThreadPoolExecutor(1, "leanseg-reading") as pool:
        coming = deque([pool.submit(data.__getitem__, 0)] if len(data) else ())
        for following in range(1, len(data) + 1):
            batch = coming.popleft().result()
            if following < len(data):
                coming.append(pool.submit(data.__getitem__, following))
            yield batch
