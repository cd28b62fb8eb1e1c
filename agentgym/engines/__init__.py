"""Inference engines: token ids in, sampled token ids and log-probabilities out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from agentgym.types import Completion, Sampling

UNBOUNDED = sys.maxsize
"""The context limit of an engine that does not know its limit."""

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Engine(Protocol):
    """Samples completions; token ids in, token ids out.

    Many ``generate`` calls are in flight at once and the engine batches them. It may keep the
    KV cache of a context and continue from it when a longer prompt with the same prefix arrives;
    ``finish`` announces that no such prompt will come.
    """

    context: int
    """Longest prompt plus completion, in tokens."""
    takes_adapters: bool
    """``load`` takes the adapters of a policy alone, named as in PEFT's files."""

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion for one context."""

    def finish(self, context: Sequence[int]) -> None:
        """The episode with this context has ended; its cache may be freed."""

    def sleep(self) -> None:
        """No requests are expected until the next weight update: free the caches.

        A trainer on the same GPU uses the memory in the meantime. A request that arrives anyway
        is still served.
        """

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Load new policy weights; every later completion carries ``version``."""
