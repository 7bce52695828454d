"""How much memory a PyTorch network's activations take, told without running it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def live_bytes(network: nn.Module, shape: Sequence[int]) -> int | None:
    """The most that a network's intermediate results take at one time.

    The network runs on tensors that have shapes but no numbers.

    Args:
        network: In evaluation mode; left alone.
        shape: Of its input.

    Returns:
        Bytes; None where a layer cannot do without numbers.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.inference_mode(), fake, _Live() as live:
        try:
            network(torch.zeros(tuple(shape)))
        # Whatever a layer says when it is given no numbers.
        except Exception:
            return None
    return int(live.most)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storage of tensors while they exist.

    Attributes:
        most: The largest sum so far, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most: int = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        # Views share the storage of what they look at.
        key, n_bytes = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._now += n_bytes
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._forget, key, n_bytes)

    def _forget(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self._now -= n_bytes
