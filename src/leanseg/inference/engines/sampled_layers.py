"""Sparse deformable layers of an exported network, computed between its two graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import ModelFileError
from leanseg.modelfile import ModelFile, SamplingLayer
from leanseg.sampling import sample_and_convolve, spanning_grid

Floats = NDArray[np.float32]


def sampling_layers(model: ModelFile) -> tuple[SamplingLayer, ...]:
    """The layers that lie between the two graphs of a model; none for most."""
    return () if model.manifest.export is None else model.manifest.export.sampling


def results_name(number: int) -> str:
    """Input of the second graph that takes a layer's results."""
    return f"samples.{number}"


class SampledLayers:
    """The sparse deformable layers of one network.

    Args:
        model: The model file in memory, of a single network.
        threads: How many threads a layer is computed in.

    Raises:
        ModelFileError: If the weights that the file names are missing or do not fit.
    """

    def __init__(self, model: ModelFile, threads: int) -> None:
        self._threads = threads
        self._layers = []
        for layer in sampling_layers(model):
            missing = [name for name in (layer.offsets, layer.weight) if name not in model.weights]
            if missing:
                msg = (
                    f"{model.path}: lacks the weights {missing[0]!r} of a sampling layer; export "
                    "the model again with 'leanseg export'"
                )
                raise ModelFileError(msg)
            offsets, weight = (
                np.array(model.weights[name], dtype=np.float32)
                for name in (layer.offsets, layer.weight)
            )
            self._layers.append((offsets, weight, layer.groups, spanning_grid(layer.grid)))

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
        return {
            results_name(number): sample_and_convolve(
                images, offsets[None], weight, grid, groups=groups, threads=self._threads
            )
            for number, (images, (offsets, weight, groups, grid)) in enumerate(
                zip(sampled, self._layers, strict=True)
            )
        }
