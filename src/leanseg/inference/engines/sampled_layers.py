"""Sparse deformable layers of an exported network, computed between its two graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import ModelFileError
from leanseg.files import shortened
from leanseg.kernels.sparse_convolution import sample_and_convolve, spanning_grid
from leanseg.modelfile import Member, SamplingLayer

Floats = NDArray[np.float32]


def sampling_layers(member: Member) -> tuple[SamplingLayer, ...]:
    """The layers that lie between the two graphs of a network; none for most."""
    return () if member.exported is None else member.exported.record.sampling


def results_name(number: int) -> str:
    """Input of the second graph that takes a layer's results."""
    return f"samples.{number}"


class SampledLayers:
    """The sparse deformable layers of one network.

    Args:
        member: The network.
        threads: How many threads a layer is computed in.

    Raises:
        ModelFileError: If the weights that the file names are missing or do not fit.
    """

    def __init__(self, member: Member, threads: int) -> None:
        self._member, self._threads = member, threads
        self._layers = []
        for layer in sampling_layers(member):
            offsets, weight = (
                np.array(member.weights.get(name, 0), dtype=np.float32)
                for name in (layer.offsets, layer.weight)
            )
            # The compiled loops do not look where an array ends.
            fit = offsets.ndim == 3 and offsets.shape[1:] in ((1, 3), (2, 3)) and weight.ndim == 2
            self._require(fit and len(weight) % layer.groups == 0, layer.weight)
            self._layers.append((offsets, weight, layer.groups, spanning_grid(layer.grid)))

    def _require(self, fit: bool, name: str) -> None:
        if not fit:
            raise ModelFileError(
                f"{self._member.path}: lacks the weights {shortened(name)} of a sampling layer, or "
                "they do not fit it; export the model again with 'leanseg export'"
            )

    def __len__(self) -> int:
        return len(self._layers)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the second graph's further inputs, for one image."""
        return {
            results_name(number): (1, len(weight), *(len(axis) for axis in grid))
            for number, (_, weight, _, grid) in enumerate(self._layers)
        }

    def results(self, sampled: Sequence[Floats]) -> dict[str, Floats]:
        """Further inputs of the second graph.

        Args:
            sampled: What each layer reads, (1, C, D, H, W).
        """
        for images, (offsets, weight, groups, _) in zip(sampled, self._layers, strict=True):
            maps = images.shape[1] * len(offsets) if images.ndim == 5 else -1
            self._require(maps == weight.shape[1] * groups, "of the first graph")
        return {
            results_name(number): sample_and_convolve(
                images, offsets[None], weight, grid, groups=groups, threads=self._threads
            )
            for number, (images, (offsets, weight, groups, grid)) in enumerate(
                zip(sampled, self._layers, strict=True)
            )
        }
