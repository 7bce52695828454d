"""The PyTorch engine: for GPUs, and for networks that cannot be exported."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier, Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import MemoryCeilingError, ModelFileError, RecipeError
from leanseg.inference.engines.base import Engine
from leanseg.modelfile import Member
from leanseg.runtime import keep_large_blocks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from leanseg.networks.base import SegmentationNetwork

# More shares than a batch has slices would idle.
_MOST_SHARES = 4
# Batches have about so many voxels at most: 16 slices of 256 x 256, or one 3-D input.
_BATCH_VOXELS = 1 << 20
_MOST_INPUTS_ON_GPU = 16
# What the library keeps beside the results of layers, once, measured.
_OWN_BYTES = 130_000_000
# Copies in the order of channels that its kernels like, and what is kept when freed.
_OVERHEAD = 1.1


class TorchEngine(Engine):
    """Runs a network with PyTorch.

    The network is made ready once: normalisation folded into the convolutions before it, weights
    in channels-last order and, for bf16 and f16, in that type. On the processor a batch is shared
    out among threads; a GPU gets it whole.

    Args:
        network: The network, which is copied: later changes to it do not reach the engine.
        shape: Shape (batch_size, channel, *spatial) of its input.
        precision: "f32", "bf16", or "f16" on a GPU (both by autocast).
        device: Where it runs; None where its parameters are.
        activation: What makes probabilities of several outputs: "softmax" or "sigmoid"; "none"
            leaves logits.

    Raises:
        RecipeError: If it does not compute in the precision on this device.
    """

    name = "torch"
    passes = 1
    # It shares a batch out by itself.
    lanes = 1

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        *,
        precision: str = "f32",
        device: str | None = None,
        activation: str = "softmax",
    ) -> None:
        import torch

        from leanseg.inference.engines.folding import fold_normalisation

        self._device = torch.device(device or next(network.parameters()).device)
        self.device, self.precision = str(self._device), precision
        self._activation = activation
        if precision == "f16" and self._device.type == "cpu":
            msg = "the torch engine does not compute in f16 on the processor; choose f32 or bf16"
            raise RecipeError(msg)
        self._dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(precision)
        self.shape = tuple(shape)
        self.batch_size = self.shape[0]
        self._workers: _Workers | None = None
        self._lock = Lock()
        network = copy.deepcopy(network).eval().requires_grad_(False)
        fold_normalisation(network)
        _in_precision(network, self._dtype)
        self._network = network.to(self._device)

    @classmethod
    def of_member(
        cls,
        member: Member,
        shape: Sequence[int],
        *,
        precision: str = "f32",
        device: str = "cpu",
        threads: int | None = None,
        lanes: int | None = None,
        varies: bool = False,
        allow_imports: bool = False,
    ) -> TorchEngine:
        """An engine that runs a network of a model file.

        Args:
            member: The network.
            shape: Shape (batch, channel, *spatial) of its input; with a batch of 0 the engine
                chooses how many it takes at a time.
            precision: As above.
            device: "cpu", "cuda", "cuda:1" or "mps".
            threads: Number of PyTorch's threads in this process; None leaves its own choice.
            lanes: Inputs that it works on side by side; None for as many as threads.
            varies: Whether inputs may be smaller, which PyTorch need not know.
            allow_imports: Whether the model file may name a network by an import path, which
                runs that code.

        Raises:
            MissingDependencyError: If PyTorch is not installed.
            RecipeError: If there is no such device, or no such precision on it.
            ModelFileError: If the network is not known, or weights or sizes do not fit it.
        """
        import torch

        require_device(device)
        keep_large_blocks()
        if threads is not None:
            torch.set_num_threads(threads)
        batch_size = shape[0] or _best_batch(shape[2:], device, lanes)
        network = built(member, allow_imports)
        divisor = network.size_divisor
        if np.any(np.mod(shape[2:], divisor)):
            raise ModelFileError(
                f"{member.path}: its plan gives its network sizes of {shape[2:]}, which are no "
                f"multiples of {divisor}; train it again"
            )
        return cls(
            network,
            (batch_size, *shape[1:]),
            precision=precision,
            device=device,
            activation=member.network.activation,
        )

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (batch, output, *spatial) of a batch (batch, channel, *spatial)."""
        import torch

        threads = torch.get_num_threads()
        if self._device.type != "cpu":
            # One batch after another, whole.
            with self._lock:
                return self._run(batch)
        if threads == 1 or len(batch) == 1:
            return self._run(batch)
        with self._lock:
            if self._workers is None:
                self._workers = _Workers(threads)
        return self._workers.run(self._run, batch)

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(
                torch.autocast(
                    self._device.type,
                    dtype=self._dtype or torch.bfloat16,
                    enabled=self._dtype is not None,
                )
            )
            if self._device.type == "cuda" and self._dtype is None:
                # Convolutions would round to 10 bits: float32 means float32.
                exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
                stack.enter_context(exact)
            tensor = self._on_device(torch.from_numpy(batch))
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            logits = self._network(tensor).float()
            if self._activation != "none":
                is_sigmoid = logits.shape[1] == 1 or self._activation == "sigmoid"
                logits = logits.sigmoid() if is_sigmoid else logits.softmax(dim=1)
        return logits.contiguous().cpu().numpy()

    def _on_device(self, batch: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cuda":
            # From pinned memory the copy goes on while the processor does something else.
            return batch.pin_memory().to(self._device, non_blocking=True)
        return batch.to(self._device)

    def memory_bytes(self) -> int:
        """The layers' results that exist at the same time; on a GPU the batches alone.

        Raises:
            MemoryCeilingError: If a layer of the network cannot tell.
        """
        from leanseg.inference.engines.torch_memory import live_bytes

        batch = 4 * math.prod(self.shape)
        if self._device.type != "cpu":
            return 2 * batch + _OWN_BYTES
        one = live_bytes(self._network, (1, *self.shape[1:]))
        if one is None:
            raise MemoryCeilingError(
                "the memory that PyTorch takes for this network cannot be known beforehand; "
                "choose --engine openvino, or drop --max-memory"
            )
        return int(_OVERHEAD * self.batch_size * one) + _OWN_BYTES

    def release(self) -> None:
        """Nothing: PyTorch keeps what it once took."""


def _best_batch(spatial: Sequence[int], device: str, lanes: int | None) -> int:
    most = min(lanes or _MOST_SHARES, _MOST_SHARES) if device == "cpu" else _MOST_INPUTS_ON_GPU
    return max(1, min(most, _BATCH_VOXELS // math.prod(spatial)))


def require_device(device: str) -> None:
    """Refuse a device that this machine, or this PyTorch, does not have.

    Raises:
        RecipeError: Naming the devices that there are.
    """
    import torch

    found = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    if device in found or (device == "cuda" and len(found) > 1 and found[1] == "cuda:0"):
        return
    msg = f"device {device!r} is not available to PyTorch; choose one of: {', '.join(found)}"
    raise RecipeError(msg)


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


def built(member: Member, allow_imports: bool) -> SegmentationNetwork:
    """The network that the model file names, with its weights."""
    import torch

    from leanseg.networks import build, build_trusted

    spec = member.network
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
        msg = f"{member.path}: its network cannot be built by this version of leanseg ({error})"
        raise ModelFileError(msg) from error
    # A copy: the arrays of a model file are read-only views of its bytes.
    state = {name: torch.from_numpy(np.array(array)) for name, array in member.weights.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        msg = f"{member.path}: its weights do not fit network {spec.name!r} ({first})"
        raise ModelFileError(msg) from error
    return network


def _in_precision(network: nn.Module, dtype: torch.dtype | None) -> None:
    """Convolutions' weights in channels-last order and the wanted type, in place.

    Converting them once saves autocast from doing it for every batch; what autocast keeps in
    float32 stays so.
    """
    import torch
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            if dtype is not None:
                module.to(dtype)
            if module.weight.ndim == 4:
                weight = module.weight.contiguous(memory_format=torch.channels_last)
                module.weight = nn.Parameter(weight, requires_grad=False)
