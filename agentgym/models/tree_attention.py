"""Attention over a prefix tree of rows: each token attends to its own row up to itself.

On a CPU a loop over blocks of new tokens, each against the keys of its path; on a GPU
FlexAttention, with a mask of the tiles of the T x T scores that some row needs. Neither pads, and
neither computes T x T scores.

Axes: T nodes, G key/value heads, R query heads on each, D head size; of a block, M new tokens and
L tokens of their row up to them; Y tiles along T.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from agentgym.batch.prefix_tree import Forest

BLOCKS = "agentgym_blocks"
"""Name of the CPU's attention, as registered with transformers."""
FLEX = "agentgym_flex"
"""Name of the GPU's attention."""
BLOCK = 128
"""New tokens per block: their scores fit into the processor's cache."""
TILE = 128
"""Edge of a FlexAttention tile, in nodes."""
MIN_HEAD_SIZE = 16
"""Smallest head size for which FlexAttention has a kernel."""


class Block(NamedTuple):
    """Adjacent new tokens of one row."""

    path: Int[Tensor, " L"]
    """Nodes of the row up to the last new token."""
    new: slice
    """Nodes of the new tokens."""


def blocks(forest: Forest) -> tuple[Block, ...]:
    """Blocks that cover every node once."""
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
    """Attention function for transformers; scores and softmax are in float32 or better.

    The other products are in the kind of number of the values: bfloat16 under autocast.
    """
    exact = torch.promote_types(query.dtype, torch.float32)
    groups, size = key.shape[1], key.shape[3]
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        q, k = q.to(exact), k.to(exact)
        q = (q * scaling).reshape(len(q), groups, -1, size)
        mixed: Tensor = _BlockAttention.apply(q, k, v, blocks)  # type: ignore[no-untyped-call]
    return mixed.flatten(1, 2)[None].to(query.dtype), None


class _BlockAttention(torch.autograd.Function):
    """Saves inputs and outputs only; scores are recomputed for the gradient.

    Plain autograd would keep a copy of every path, each with a gradient of full length.
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
            probs = _probabilities(_fold(query[block.new]), _fold(key[block.path]), query.shape[2])
            _unfold(out[block.new], probs.to(value.dtype) @ _fold(value[block.path]))
        ctx.save_for_backward(query, key, value, out)
        ctx.blocks = blocks
        return out

    @staticmethod
    def backward(ctx: Any, grad: Float[Tensor, "T G R D"]) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradient of a softmax ``p`` is ``p (g - p.g)``, and ``p.g`` that of the output."""
        query, key, value, out = ctx.saved_tensors
        low = value.dtype
        for_query = torch.empty_like(query)
        for_key = torch.zeros_like(key)
        for_value = torch.zeros_like(value, dtype=key.dtype)
        inner = (grad * out).sum(-1, keepdim=True)
        low_query, low_key, low_grad = query.to(low), key.to(low), grad.to(low)
        for block in ctx.blocks:
            probs = _probabilities(_fold(query[block.new]), _fold(key[block.path]), query.shape[2])
            g = _fold(low_grad[block.new])
            grad_scores = g @ _fold(value[block.path]).mT - _fold(inner[block.new])
            slopes = (grad_scores * probs).to(low)
            _unfold(for_query[block.new], slopes @ _fold(low_key[block.path]))
            for_key[block.path] += (slopes.mT @ _fold(low_query[block.new])).transpose(0, 1)
            for_value[block.path] += (probs.to(low).mT @ g).transpose(0, 1)
        return for_query, for_key, for_value.to(low), None


def _fold(states: Tensor) -> Tensor:
    """[M, G, ..., D] as [G, M * ..., D]."""
    return states.transpose(0, 1).flatten(1, -2)


def _unfold(into: Tensor, states: Tensor) -> None:
    """Write [G, M * R, D] into [M, G, R, D]."""
    into.copy_(states.view(states.shape[0], len(into), -1, states.shape[2]).transpose(0, 1))


def _probabilities(query: Tensor, key: Tensor, repeats: int) -> Float[Tensor, "G MR L"]:
    """Softmax of the scores; the last M keys are the queries' own, masked causally."""
    scores = query @ key.mT
    count = query.shape[1] // repeats
    later = torch.ones(count, count, dtype=torch.bool, device=query.device).triu(1)
    own = scores.view(len(scores), count, repeats, -1)[..., -count:]
    own.masked_fill_(later[:, None], -torch.inf)
    return scores.softmax(-1)


def can_use_flex(forest: Forest) -> bool:
    """Whether FlexAttention can compute it with a gradient: on a GPU, from one tile on."""
    where = forest.tokens.device
    return where.type == "cuda" and len(forest.tokens) >= TILE and find_spec("triton") is not None


class Tiles(NamedTuple):
    """Tiles of keys needed by each tile of queries (the first axis)."""

    partial: Bool[Tensor, "Y Y"]
    """Only some of the tile is needed."""
    full: Bool[Tensor, "Y Y"]
    """All of the tile is needed."""


def tiles(end: Int[Tensor, " T"]) -> Tiles:
    """Needed tiles, from the end of each node's subtree, without any T x T tensor."""
    count = -(-len(end) // TILE)
    # Padding nodes after the last one attend to nothing; only its own queries need the last tile.
    many = F.pad(end, (0, count * TILE - len(end))).view(count, TILE)
    first = torch.arange(count, device=end.device)[:, None] * TILE
    before = first > first.mT
    whole = before & (many.amin(-1) >= first + TILE)
    reached = before & (many.amax(-1) > first)
    return Tiles((reached & ~whole) | (first == first.mT), whole)


def flex_mask(forest: Forest) -> BlockMask:
    """Mask for FlexAttention, the same for all heads: a node's row up to itself."""
    end, size = forest.end, len(forest.end)
    partial, full = (_listed(tile) for tile in tiles(end))
    return BlockMask.from_kv_blocks(
        *partial,
        *full,
        BLOCK_SIZE=TILE,
        mask_mod=lambda batch, head, query, key: (key <= query) & (query < end[key]),
        seq_lengths=(size, size),
    )


def _listed(tile: Bool[Tensor, "Y Y"]) -> tuple[Tensor, Tensor]:
    """Number of needed tiles of keys per tile of queries, and their indices, needed ones first."""
    order = tile.int().argsort(dim=-1, descending=True, stable=True)
    return tile.sum(-1, dtype=torch.int32)[None, None], order.int()[None, None]


def flex_attention_forward(
    module: nn.Module,
    query: Float[Tensor, "1 H T D"],
    key: Float[Tensor, "1 G T D"],
    value: Float[Tensor, "1 G T D"],
    attention_mask: Tensor | None,
    *,
    mask: BlockMask,
    scaling: float,
    **_: Any,
) -> tuple[Float[Tensor, "1 T H D"], None]:
    """Attention function for transformers on a GPU."""
    size = value.shape[-1]
    # Under autocast, rotated queries and keys have a higher precision than values.
    states = (
        F.pad(x.to(value.dtype), (0, max(0, MIN_HEAD_SIZE - size))) for x in (query, key, value)
    )
    attend = _compiled() if value.is_cuda else flex_attention
    mixed: Tensor = attend(*states, block_mask=mask, scale=scaling, enable_gqa=True)
    return mixed[..., :size].transpose(1, 2), None


@cache
def _compiled() -> Any:
    # Every batch has another size.
    return torch.compile(flex_attention, dynamic=True)


def register() -> None:
    """Register both attention functions with transformers, which makes no mask for them."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for name, attend in ((BLOCKS, block_attention), (FLEX, flex_attention_forward)):
        ALL_ATTENTION_FUNCTIONS.register(name, attend)
        ALL_MASK_ATTENTION_FUNCTIONS.register(name, lambda *args, **kwargs: None)
