"""A causal language model split into trunk and head, so that logits are computed in pieces.

The logits of all positions at once are what fills memory: at 8,000 tokens and a vocabulary of
32,000, one copy of them is a gigabyte, and a softmax and its gradient need several.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from agentgym.models.protocols import CausalLM


class SplitModel:
    """The trunk, which computes hidden states, and the head, which computes logits from them.

    Axes: B rows, T tokens, H hidden, A positions, V vocabulary.

    In some families the head is more than a matrix: they scale or cap the logits. So the whole
    model is called for them, with its trunk replaced by one that returns given hidden states.

    Args:
        model: A Hugging Face causal language model.
    """

    def __init__(self, model: CausalLM) -> None:
        self.model = model
        self._output: Any = None
        """Class of the trunk's output."""

    def hidden(self, **inputs: Any) -> Float[Tensor, "B T H"]:
        """The trunk's last hidden states; takes the arguments of the model."""
        output = self.model.get_decoder()(**inputs)
        self._output = type(output)
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, hidden: Float[Tensor, "A H"]) -> Float[Tensor, "A V"]:
        """Logits at positions with known hidden states, in the model's own precision."""
        trunk, unused = self.model.get_decoder(), hidden.new_zeros((1, len(hidden))).long()
        trunk.forward = lambda *_, **__: self._output(last_hidden_state=hidden[None])
        try:
            logits: Tensor = self.model(input_ids=unused).logits[0]
        finally:
            del trunk.forward
        return logits
