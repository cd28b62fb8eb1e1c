"""Copies of a state in CPU memory, which training does not change any more."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor


def cpu_copy(state: Any, memo: dict[tuple[Any, ...], Tensor] | None = None) -> Any:
    """A copy of nested dicts, lists and tuples, with all tensors in CPU memory.

    Tensors that share their memory share it in the copy.

    Args:
        state: Tensors, plain values and containers of them.
        memo: Copies made so far.
    """
    memo = {} if memo is None else memo
    if isinstance(state, Tensor):
        key = (state.data_ptr(), state.dtype, state.shape, state.stride())
        if not state.numel() or key not in memo:
            memo[key] = state.detach().to("cpu", copy=True)
        return memo[key]
    if isinstance(state, dict):
        return {name: cpu_copy(value, memo) for name, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(cpu_copy(value, memo) for value in state)
    return copy.deepcopy(state)
