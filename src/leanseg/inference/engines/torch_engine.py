"""The PyTorch engine: the one part of the prediction path that needs torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from threading import Barrier, Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import MissingDependencyError, ModelFileError, RecipeError
from leanseg.modelfile import ModelFile
from leanseg.runtime import keep_large_blocks

if TYPE_CHECKING:
    from torch import nn

_PRECISIONS = ("f32", "bf16")
# More shares than a batch has slices would idle.
_MOST_SHARES = 4


class TorchEngine:
    """Runs a model file's network with PyTorch.

    The network is made ready once: normalisation folded into the convolutions before it, weights
    in channels-last order and, for bf16, in that type.

    Args:
        model: The model file in memory.
        precision: "f32" or "bf16" (autocast).
        threads: Number of PyTorch's threads in this process; None leaves its own choice.
        lanes: Slices that the engine itself works on side by side; None for as many as threads.
        allow_imports: Whether the model file may name a network by an import path, which runs
            that code.

    Raises:
        MissingDependencyError: If PyTorch is not installed.
        RecipeError: If it does not compute in the precision.
        ModelFileError: If the network is not known, or the weights do not fit it.
    """

    name = "torch"
    passes = 1
    note = ""
    # It shares a batch out by itself.
    lanes = 1
    slices_per_call = _MOST_SHARES

    def __init__(
        self,
        model: ModelFile,
        precision: str = "f32",
        threads: int | None = None,
        *,
        lanes: int | None = None,
        allow_imports: bool = False,
    ) -> None:
        _require_torch()
        import torch

        keep_large_blocks()
        if threads is not None:
            torch.set_num_threads(threads)
        if precision not in _PRECISIONS:
            msg = f"the torch engine does not compute in {precision}; choose f32 or bf16"
            raise RecipeError(msg)
        if lanes is not None:
            self.slices_per_call = min(lanes, _MOST_SHARES)
        self._setup(built(model, allow_imports), precision)

    @classmethod
    def from_module(cls, network: nn.Module, precision: str) -> TorchEngine:
        """An engine around a network as it is now, as training's validation needs.

        The network itself is left alone; later changes to it do not reach the engine.
        """
        engine = cls.__new__(cls)
        engine._setup(copy.deepcopy(network), precision)
        return engine

    def _setup(self, network: nn.Module, precision: str) -> None:
        from leanseg.inference.engines.folding import fold_normalisation

        self.precision = precision
        self._device = next(network.parameters()).device
        self._workers: _Workers | None = None
        self._starting = Lock()
        fold_normalisation(network.eval().requires_grad_(False))
        self._network = _in_precision(network, precision)

    @classmethod
    def precisions(cls, model: ModelFile) -> tuple[str, ...]:
        """The precisions in which it can run the model: a trial of both tells the faster."""
        # A trial run of a whole volume costs as much as the prediction.
        return ("f32", "bf16") if not model.manifest.plan.is_3d else ("f32",)

    @classmethod
    def version(cls) -> str:
        """PyTorch's version; not imported for that."""
        return version("torch")

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (batch, output, *spatial) of a batch (batch, channel, *spatial)."""
        import torch

        threads = torch.get_num_threads()
        if threads == 1 or len(batch) == 1 or self._device.type != "cpu":
            return self._run(batch)
        with self._starting:
            if self._workers is None:
                self._workers = _Workers(threads)
        return self._workers.run(self._run, batch)

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with (
            torch.inference_mode(),
            torch.autocast(
                self._device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
            ),
        ):
            tensor = torch.from_numpy(batch).to(self._device)
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            logits = self._network(tensor).float()
            probabilities = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
        result: NDArray[np.float32] = probabilities.contiguous().cpu().numpy()
        return result


class _Workers:
    """Threads that take a share of the batch each.

    PyTorch's own threads divide every layer and wait for one another after each, spinning: where
    other programs want the processor too, the network then takes three times as long. Shares of
    a batch do not wait for one another before its end.

    Args:
        threads: How many threads there are to use; past `_MOST_SHARES` each share gets several.
    """

    def __init__(self, threads: int) -> None:
        import torch

        self._n_shares = min(threads, _MOST_SHARES)
        ready = Barrier(self._n_shares + 1)

        def begin() -> None:
            torch.set_num_threads(threads // self._n_shares)
            ready.wait()

        self._pool = ThreadPoolExecutor(self._n_shares, "leanseg-torch")
        begun = [self._pool.submit(begin) for _ in range(self._n_shares)]
        ready.wait()
        for each in begun:
            each.result()
        # What a thread sets holds for itself and for threads that are yet to come; it was meant
        # for these alone.
        torch.set_num_threads(threads)

    def run(
        self, function: Callable[[NDArray[np.float32]], NDArray[np.float32]], batch: NDArray[Any]
    ) -> NDArray[np.float32]:
        """The function of every share, joined."""
        shares = np.array_split(batch, min(self._n_shares, len(batch)))
        return np.concatenate(list(self._pool.map(function, shares)))


def built(model: ModelFile, allow_imports: bool) -> nn.Module:
    """The network that the manifest names, with the file's weights."""
    import torch

    from leanseg.networks import build, build_trusted

    spec = model.manifest.network
    try:
        # Without memory or starting weights: these would cost time, and draw from torch's
        # global generator, only to be replaced.
        with torch.device("meta"):
            network = (build_trusted if allow_imports else build)(
                spec.name,
                in_channels=spec.in_channels,
                out_channels=spec.out_channels,
                **spec.options,
            )
    # Sizes past every memory overflow inside PyTorch.
    except (RecipeError, RuntimeError) as error:
        msg = f"{model.path}: its network cannot be built by this version of leanseg ({error})"
        raise ModelFileError(msg) from error
    # A copy: the arrays of a model file are read-only views of its bytes.
    state = {name: torch.from_numpy(np.array(array)) for name, array in model.weights.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        msg = f"{model.path}: its weights do not fit network {spec.name!r} ({first})"
        raise ModelFileError(msg) from error
    return network


def _in_precision(network: nn.Module, precision: str) -> nn.Module:
    """A copy with its convolutions' weights in channels-last order and the wanted type.

    Converting them once saves autocast from doing it for every batch; what autocast keeps in
    float32 stays so.
    """
    import torch
    from torch import nn

    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            if precision == "bf16":
                module.to(torch.bfloat16)
            if module.weight.ndim == 4:
                weight = module.weight.contiguous(memory_format=torch.channels_last)
                module.weight = nn.Parameter(weight, requires_grad=False)
    return network


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        msg = "the torch engine needs PyTorch; install it with: pip install 'leanseg[train]'"
        raise MissingDependencyError(msg) from error
