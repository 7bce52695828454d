"""What augmentations share: a random stream for every sample, and kinds of options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated
from zlib import crc32

import numpy as np
import torch
from pydantic import AfterValidator, Field

from leanseg.errors import GeometryError


def _ascending(bounds: Sequence[float]) -> Sequence[float]:
    if bounds[0] > bounds[1]:
        raise ValueError("should be [lowest, highest]")
    return bounds


_OF_RANKS = crc32(b"fraction")

Probability = Annotated[float, Field(ge=0, le=1)]
# Of factors, powers and widths in voxels: above 100 none leaves anything to see.
Bounds = Annotated[
    Sequence[Annotated[float, Field(gt=0, le=100)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_ascending),
]


class PerSample(ABC):
    """An augmentation that treats a batch sample by sample, each from a random stream of its own.

    A batch's result is that of its samples one by one, to the bit, and what is not chosen costs
    nothing. Classes of different names draw independently of each other from the same seeds;
    the same augmentation twice in a recipe draws the same numbers twice.

    Args:
        probability: Share of the samples that `change` sees.
    """

    def __init__(self, probability: float = 1.0) -> None:
        self.probability = probability

    def draw(self, seeds: Sequence[int]) -> tuple[int | None, ...]:
        """The seed of each sample's random stream, or None for a sample that is left as it is."""
        return tuple(self._stream(seed) for seed in seeds)

    def _stream(self, seed: int) -> int | None:
        own = crc32(type(self).__name__.encode())
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([own, int(seed)])))
        return int(generator.integers(2**63)) if generator.random() < self.probability else None

    def apply(
        self, image: torch.Tensor, label: torch.Tensor, parameters: Sequence[int | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change the samples that were drawn.

        Args:
            image: (B, C, *spatial), floating, on any device.
            label: (B, *spatial), whole numbers.
            parameters: Of B samples, from `draw`.

        Returns:
            Image and label of the same shapes, types and memory layout: new tensors, or the
            given one where no sample of it changes.

        Raises:
            GeometryError: Image, label and parameters do not fit together.
        """
        check_fit(image, label, len(parameters))
        new_image, new_label = image, label
        for index, stream in enumerate(parameters):
            if stream is None:
                continue
            before = image[index], label[index]
            generator = np.random.Generator(np.random.Philox(stream))
            after = self.change(*before, generator)
            if after[0] is not before[0]:
                new_image = image.clone() if new_image is image else new_image
                new_image[index] = after[0]
            if after[1] is not before[1]:
                new_label = label.clone() if new_label is label else new_label
                new_label[index] = after[1]
        return new_image, new_label

    @abstractmethod
    def change(
        self, image: torch.Tensor, label: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One sample's image (C, *spatial) and label (*spatial), changed; never in place.

        What does not change is returned as the very object that was given.
        """


class Joint(PerSample):
    """An augmentation whose samples are those of every other, and of a sampler, with its fraction.

    Args:
        fraction: Share of the samples that are augmented at all.
    """

    def __init__(self, fraction: float) -> None:
        super().__init__(float(fraction > 0))
        self.fraction = fraction

    def draw(self, seeds: Sequence[int]) -> tuple[int | None, ...]:
        """As of `PerSample`."""
        streams = zip(seeds, super().draw(seeds), strict=True)
        return tuple(stream if augments(seed, self.fraction) else None for seed, stream in streams)


def rank(seed: int) -> float:
    """A sample's place among all, in [0, 1): those below a fraction are augmented by it."""
    sequence = np.random.SeedSequence([_OF_RANKS, int(seed)])
    return float(np.random.Generator(np.random.Philox(sequence)).random())


def augments(seed: int, fraction: float) -> bool:
    """Whether a sample is among the fraction of all that is augmented, by its seed alone."""
    return rank(seed) < fraction


class Intensity(PerSample):
    """An augmentation that changes the image's values and leaves the label."""

    def change(
        self, image: torch.Tensor, label: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As of `PerSample`."""
        return self.values(image, generator), label

    @abstractmethod
    def values(self, image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """One sample's image (C, *spatial) with other values; a new tensor, or the given one."""


def check_fit(image: torch.Tensor, label: torch.Tensor, n_drawn: int) -> None:
    """Refuse a batch whose parts do not belong together.

    Raises:
        GeometryError: The image is not 2-D or 3-D, or image, label and number of drawn samples
            differ.
    """
    fits = image.shape[:1] + image.shape[2:] == label.shape and len(image) == n_drawn
    if not fits or image.ndim not in (4, 5):
        msg = (
            f"image {tuple(image.shape)}, label {tuple(label.shape)} and {n_drawn} drawn samples "
            "do not fit; expected (B, C, *spatial), (B, *spatial) and B, in 2-D or 3-D"
        )
        raise GeometryError(msg)


def gaussian_noise(image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Standard normal numbers of an image's shape, type and device."""
    # The same numbers on every device: they come from PyTorch's generator of the processor.
    source = torch.Generator().manual_seed(int(generator.integers(2**63)))
    return torch.randn(image.shape, generator=source).to(image)


def per_channel(values: Sequence[float], image: torch.Tensor) -> torch.Tensor:
    """Numbers of C channels as (C, 1, ...), to combine with an image (C, *spatial)."""
    tensor = torch.tensor(values, dtype=image.dtype, device=image.device)
    return tensor.reshape(-1, *[1] * (image.ndim - 1))


def factor(generator: np.random.Generator, bounds: Sequence[float]) -> float:
    """A factor within bounds: half of the draws below 1 and half above, where both are possible.

    As nnU-Net draws factors of brightness, contrast and gamma (`BGContrast` of
    batchgeneratorsv2), so that an interval that is wider above 1 does not favour it.
    """
    low, high = bounds
    if low < 1 < high:
        low, high = (low, 1.0) if generator.random() < 0.5 else (1.0, high)
    return float(generator.uniform(low, high))
