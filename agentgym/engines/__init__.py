"""Where completions come from: the seam between rollouts and language models."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from agentgym.types import Completion, Sampling

UNBOUNDED = sys.maxsize
"""A context of which nothing is known."""

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Engine(Protocol):
    """Samples completions; token ids in, token ids out.

    Many ``generate`` calls are in flight at once and the engine batches whatever is waiting.
    It may keep the cache of a context it has seen and go on from there when a longer prompt
    with the same beginning arrives; ``finish`` says that this will not happen.
    """

    context: int
    """Longest prompt plus completion, in tokens."""

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion for one context."""

    def finish(self, context: Sequence[int]) -> None:
        """The episode with this context is over; whatever was kept for it may go."""

    def rest(self) -> None:
        """Nobody will ask before new weights come: memory that can be made again may go.

        A trainer on the same GPU has it meanwhile. Whoever asks all the same is answered.
        """

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Adopt new policy weights; every later completion carries ``version``."""
