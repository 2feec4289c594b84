"""Bytes of the tensors that live while something is computed, and computing with tensors that have no values.

What is counted are storages, each once, from when an operation makes them until nothing holds them: results, what is
saved for the backward pass, gradients. An operation's own working memory is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of what is made inside the block.

    Attributes:
        n_bytes: that live now.  peak: the most that lived at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_bytes, self.peak, self._counting = 0, 0, True
        self._held: dict[int, int] = {}  # storage → its bytes, 0 for what was there before

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for given in _tensors((args, kwargs)):
            self._see(given.untyped_storage(), False)
        result = function(*args, **(kwargs or {}))
        for made in _tensors(result):
            self._see(made.untyped_storage(), self._counting)
        self.peak = max(self.peak, self.n_bytes)
        return result

    def _see(self, storage: torch.UntypedStorage, counted: bool) -> None:
        if storage._cdata not in self._held:
            self._held[storage._cdata] = storage.nbytes() if counted else 0
            self.n_bytes += self._held[storage._cdata]
            weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, storage: int) -> None:
        self.n_bytes -= self._held.pop(storage)

    @contextmanager
    def offloading(self) -> Iterator[None]:
        """In place of `offload.activations_on_cpu`: what is saved for the backward pass is as elsewhere, and not
        counted, until it is needed; but for what was there before, weights."""

        def pack(tensor: Tensor):
            if not self._held.get(tensor.untyped_storage()._cdata):
                return tensor, False
            self._counting = False
            try:
                return tensor.clone(), True
            finally:
                self._counting = True

        def unpack(packed) -> Tensor:
            tensor, away = packed
            return tensor.clone() if away else tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield


def valueless(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A module from the meta device with tensors that go through all that real ones go through, and hold nothing."""
    with mode:
        return module._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))


def without_values(values, mode: FakeTensorMode):
    """Real tensors in dicts and tuples as ones that hold nothing."""
    return tree_map(lambda value: mode.from_tensor(value) if isinstance(value, Tensor) else value, values)


def _tensors(values) -> Iterator[Tensor]:
    """The tensors in an operation's arguments or results."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
