"""Attention over a forest of rows: a token sees its own row up to itself, wherever that lies.

On a CPU a loop over blocks of new tokens, each against the keys of its path; on a GPU
FlexAttention, whose mask leaves out the blocks that no row passes through. Neither pads, and
neither makes T x T scores.

Axes: T nodes, G key/value heads, R query heads on each, D head size; of a block, M new tokens and
L tokens of their row up to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from agentgym.prefixes import Forest

BLOCKS = "agentgym_blocks"
"""Name under which the attention of a CPU is known to transformers."""
FLEX = "flex_attention"
"""The name that transformers gives to FlexAttention."""
BLOCK = 128
"""Most new tokens at once: their scores stay in the processor's cache."""


class Block(NamedTuple):
    """Neighbouring new tokens of one row."""

    path: Int[Tensor, " L"]
    """The row up to the last of them."""
    new: slice
    """Themselves."""


def blocks(forest: Forest) -> tuple[Block, ...]:
    """Every node in one block."""
    found = []
    for run in forest.runs:
        path = torch.from_numpy(run.path).to(forest.tokens.device)
        for begin in range(run.shared, len(path), BLOCK):
            end = min(begin + BLOCK, len(path))
            first = int(run.path[begin])
            found.append(Block(path[:end], slice(first, first + end - begin)))
    return tuple(found)


def block_attention(
    module: nn.Module,
    query: Float[Tensor, "1 H T D"],
    key: Float[Tensor, "1 G T D"],
    value: Float[Tensor, "1 G T D"],
    attention_mask: Tensor | None,
    *,
    blocks: Sequence[Block],
    scaling: float,
    **_: Any,
) -> tuple[Float[Tensor, "1 T H D"], None]:
    """What transformers calls; scores and softmax are in float32 or better."""
    exact = torch.promote_types(query.dtype, torch.float32)
    groups, size = key.shape[1], key.shape[3]
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = ((x[0].transpose(0, 1)).to(exact) for x in (query, key, value))
        q = (q * scaling).reshape(len(q), groups, -1, size)
        mixed: Tensor = _BlockAttention.apply(q, k, v, blocks)  # type: ignore[no-untyped-call]
    return mixed.flatten(1, 2)[None].to(query.dtype), None


class _BlockAttention(torch.autograd.Function):
    """Keeps what goes in and what comes out; scores are made again for the gradient.

    By itself autograd would keep a copy of every path, and give each a gradient as long as all.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "T G R D"],
        key: Float[Tensor, "T G D"],
        value: Float[Tensor, "T G D"],
        blocks: Sequence[Block],
    ) -> Float[Tensor, "T G R D"]:
        """``softmax(q k') v``, with q already scaled."""
        out = torch.empty_like(query)
        for block in blocks:
            share = _shares(_fold(query[block.new]), _fold(key[block.path]), query.shape[2])
            _unfold(out[block.new], share @ _fold(value[block.path]))
        ctx.save_for_backward(query, key, value, out)
        ctx.blocks = blocks
        return out

    @staticmethod
    def backward(ctx: Any, grad: Float[Tensor, "T G R D"]) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradient of a softmax ``p`` is ``p (g - p.g)``, and ``p.g`` that of the output."""
        query, key, value, out = ctx.saved_tensors
        for_query = torch.empty_like(query)
        for_key, for_value = torch.zeros_like(key), torch.zeros_like(value)
        inner = (grad * out).sum(-1, keepdim=True)
        for block in ctx.blocks:
            q, k = _fold(query[block.new]), _fold(key[block.path])
            g = _fold(grad[block.new])
            share = _shares(q, k, query.shape[2])
            tilt = g @ _fold(value[block.path]).mT - _fold(inner[block.new])
            tilt *= share
            _unfold(for_query[block.new], tilt @ k)
            for_key[block.path] += (tilt.mT @ q).transpose(0, 1)
            for_value[block.path] += (share.mT @ g).transpose(0, 1)
        return for_query, for_key, for_value, None


def _fold(states: Tensor) -> Tensor:
    """[M, G, ..., D] as [G, M * ..., D]."""
    return states.transpose(0, 1).flatten(1, -2)


def _unfold(into: Tensor, states: Tensor) -> None:
    """Write [G, M * R, D] into [M, G, R, D]."""
    into.copy_(states.view(states.shape[0], len(into), -1, states.shape[2]).transpose(0, 1))


def _shares(query: Tensor, key: Tensor, repeats: int) -> Float[Tensor, "G MR L"]:
    """Softmax of the scores; the last M keys are the queries' own, and none sees a later one."""
    scores = query @ key.mT
    count = query.shape[1] // repeats
    later = torch.ones(count, count, dtype=torch.bool, device=query.device).triu(1)
    own = scores.view(len(scores), count, repeats, -1)[..., -count:]
    own.masked_fill_(later[:, None], -torch.inf)
    return scores.softmax(-1)


def flexes(device: torch.device) -> bool:
    """Whether FlexAttention has a kernel there, with a gradient."""
    return device.type == "cuda" and find_spec("triton") is not None


def flex_mask(forest: Forest) -> BlockMask:
    """What FlexAttention may look at, the same for all heads: a node's row, up to itself."""
    size = len(forest.tokens)
    return create_block_mask(
        lambda batch, head, query, key: (key <= query) & (query < forest.end[key]),
        B=None,
        H=None,
        Q_LEN=size,
        KV_LEN=size,
        device=str(forest.tokens.device),
    )


def register() -> None:
    """Tell transformers about the attention of a CPU, which needs no mask."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(BLOCKS, block_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(BLOCKS, lambda *args, **kwargs: None)
