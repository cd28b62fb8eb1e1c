"""A causal language model in two halves, so that its head can be asked a few positions at a time.

The logits of all positions at once are what fills memory: at 8,000 tokens and 32,000 words one
copy of them is a gigabyte, and a softmax and its gradient need several.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor


class Halves:
    """The trunk, which gives hidden states, and what the model makes of them.

    Axes: B rows, T tokens, H hidden, A positions, V vocabulary.

    The head is more than a matrix where a model scales or caps its logits. So the model itself is
    called, with a trunk that repeats what it has said before.

    Args:
        model: A Hugging Face causal language model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._kind: Any = None
        """What the trunk answers with."""

    def hidden(self, **inputs: Any) -> Float[Tensor, "B T H"]:
        """What the trunk says about a text, given as to the model."""
        said = self.model.get_decoder()(**inputs)
        self._kind = type(said)
        states: Tensor = said.last_hidden_state
        return states

    def logits(self, hidden: Float[Tensor, "A H"]) -> Float[Tensor, "A V"]:
        """The model's answer at positions whose hidden states are known, in its own precision."""
        trunk, nothing = self.model.get_decoder(), hidden.new_zeros((1, len(hidden))).long()
        trunk.forward = lambda *_, **__: self._kind(last_hidden_state=hidden[None])
        try:
            logits: Tensor = self.model(input_ids=nothing).logits[0]
        finally:
            del trunk.forward
        return logits
