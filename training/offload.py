"""Saved activations in main memory: what the backward pass needs leaves the device until then."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks


def activations_on_cpu(weights: Iterable[Tensor]) -> saved_tensors_hooks:
    """A context whose forward pass saves in main memory all but the weights, which are on the device in any case.

    Args:
        weights: what the pass computes with and may save, or views of it: stays where it is.
    """
    there = {weight.untyped_storage().data_ptr() for weight in weights}
    copy = save_on_cpu(pin_memory=torch.cuda.is_available())

    def pack(tensor: Tensor):
        return tensor if tensor.untyped_storage().data_ptr() in there else copy.pack_hook(tensor)

    def unpack(packed) -> Tensor:
        return packed if isinstance(packed, Tensor) else copy.unpack_hook(packed)

    return saved_tensors_hooks(pack, unpack)
