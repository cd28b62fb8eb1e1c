"""An engine that says what a test, or a demonstration, tells it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from agentgym.engines import UNBOUNDED
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch


class ScriptedEngine:
    """Calls ``say(prompt, sampling)`` for the tokens; no model, no accelerator."""

    def __init__(
        self, say: Callable[[Sequence[int], Sampling], Sequence[int]], *, entropy: float = 0.5
    ) -> None:
        self.say = say
        self.entropy = entropy
        self.version = 0
        self.context = UNBOUNDED

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """One scripted answer; every token is given log-probability -1."""
        tokens = tuple(self.say(prompt, sampling))
        n = len(tokens)
        return Completion(
            tokens,
            (-1.0,) * n,
            (self.entropy,) * n,
            self.version,
            "length" if n == sampling.max_tokens and tokens[-1] not in sampling.stop else "stop",
        )

    def finish(self, context: Sequence[int]) -> None:
        """Nothing is kept."""

    def rest(self) -> None:
        """There is no memory to give back."""

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Remember the version; there are no weights."""
        self.version = version
