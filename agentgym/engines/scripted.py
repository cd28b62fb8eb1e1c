"""An engine with completions from a function, for tests and demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from agentgym.engines import UNBOUNDED
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch


class ScriptedEngine:
    """Calls ``respond(prompt, sampling)`` for the tokens; needs no model or accelerator."""

    takes_adapters = False

    def __init__(
        self, respond: Callable[[Sequence[int], Sampling], Sequence[int]], *, entropy: float = 0.5
    ) -> None:
        self.respond = respond
        self.entropy = entropy
        self.version = 0
        self.context = UNBOUNDED

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """One scripted answer; every token is given log-probability -1."""
        tokens = tuple(self.respond(prompt, sampling))
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

    def sleep(self) -> None:
        """There is no memory to free."""

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Remember the version; there are no weights."""
        self.version = version
