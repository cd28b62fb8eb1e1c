"""Weights on their way between processes: arrays that the object store keeps once per machine."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Packed(NamedTuple):
    """One tensor as bytes, which have every type; NumPy has no bfloat16."""

    data: Any
    """[B] array of bytes."""
    dtype: torch.dtype
    shape: tuple[int, ...]


def pack(weights: Mapping[str, Tensor]) -> dict[str, Packed]:
    """Named tensors as arrays; what is shared, such as a tied embedding, is sent once."""
    sent: dict[tuple[int, torch.Size], Packed] = {}
    packed = {}
    for name, weight in weights.items():
        place = weight.data_ptr(), weight.shape
        if place not in sent:
            plain = weight.detach().cpu().contiguous()
            data = plain.reshape(-1).view(torch.uint8).numpy()
            sent[place] = Packed(data, weight.dtype, tuple(weight.shape))
        packed[name] = sent[place]
    return packed


def unpack(packed: Mapping[str, Packed]) -> dict[str, Tensor]:
    """The tensors, which share memory with the object store and must not be changed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return {
            name: torch.from_numpy(each.data).view(each.dtype).reshape(each.shape)
            for name, each in packed.items()
        }
