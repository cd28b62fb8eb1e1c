"""The network: log-probabilities and entropies of the tokens of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agentgym.batch.batch import Batch
from agentgym.batch.prefix_tree import Forest, build_forest
from agentgym.errors import ConfigError
from agentgym.losses.compose import Outputs
from agentgym.losses.reductions import Reduction
from agentgym.models import tree_attention
from agentgym.models.lm_head import Halves
from agentgym.models.lora import merged, twin

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose tokens meet in attention alone, and see all that is before them."""
ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings that depend on the position alone, not on the longest row beside it."""
AT_ONCE = 2**24
"""Logits in memory at once, 64 MiB in float32; further ones are computed again for the gradient."""


def can_share(model: Any) -> bool:
    """Whether a model can read a forest: its attention is ours to replace, and nothing else is.

    A family that is not known, a window that slides, a rotary embedding that depends on the length
    of the row, or dropout between tokens says no.
    """
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        config.model_type in FAMILIES
        and rope.get("rope_type") in ROTARY
        and layers == {"full_attention"}
        and getattr(config, "sliding_window", None) is None
        and not config.attention_dropout
    )


class Policy:
    """A causal language model seen as a distribution over the tokens of a batch.

    Where the model is of a known shape (``can_share``), a token that rows share is computed once,
    and nothing is padded. Other models read rows padded to the longest. Both give the same numbers
    and gradients.
    """

    def __init__(self, model: Any, *, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise ConfigError(f"training needs a temperature above 0, got {temperature}")
        self.model = model
        self.halves = Halves(model)
        self.temperature = temperature
        self.shares = can_share(model)
        if self.shares:
            tree_attention.register()

    def weights(self) -> dict[str, Tensor]:
        """What an engine is given: a state dict to which adapters have been added."""
        weights: dict[str, Tensor] = merged(self.model).state_dict()
        return weights

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = next(iter(self.model.parameters())).device
        return device

    def recompute(self) -> None:
        """From now on, keep no activations within layers; the gradient computes them again.

        Raises:
            ConfigError: The architecture has no layers that know how to.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        model, config = self.model, self.model.config
        if not model.supports_gradient_checkpointing:
            raise ConfigError(
                f"{type(model).__name__} knows no gradient checkpointing: leave "
                f"`optimisation.gradient_checkpointing` out"
            )
        model.gradient_checkpointing_enable(
            {
                "use_reentrant": False,
                # As it is when a layer is asked first.
                "context_fn": lambda: (
                    nullcontext(),
                    _attending(config, config._attn_implementation),
                ),
            }
        )
        model.disable_input_require_grads()
        # Layers do so in training mode only. What is within them stays as it is: with dropout, the
        # log-probabilities of a policy would not be its own.
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = True

    def __call__(self, batch: Batch, reductions: Sequence[Reduction] = ()) -> Outputs:
        """Log-probability and entropy of every token on the mask, both (P,), 0 elsewhere.

        And whatever else is asked of the distribution, in the same way.

        Logits are divided by the sampling temperature, so that both describe the distribution that
        was sampled from when neither top-p nor top-k is in force.
        """
        at = batch.mask.nonzero().squeeze(-1)
        zeros = torch.zeros(len(batch.tokens), device=batch.tokens.device)
        if not len(at):
            return Outputs(zeros, zeros, extra={r.name: zeros for r in reductions})
        forest = build_forest(batch.tokens, batch.lengths)
        once, back = forest.distinct(at)
        hidden, tokens = self._hidden(batch, forest, once - 1), batch.tokens[once]
        size = max(1, AT_ONCE // self.model.config.get_text_config().vocab_size)
        if len(once) <= size:
            said = self._read(hidden, tokens, reductions)
        else:
            pieces = zip(torch.split(hidden, size), torch.split(tokens, size), strict=True)
            said = torch.cat([self._read_again(*piece, reductions) for piece in pieces])
        spread = (zeros.index_put((at,), column[back]) for column in said.unbind(-1))
        logprob, entropy, *others = spread
        names = (reduction.name for reduction in reductions)
        return Outputs(logprob, entropy, extra=dict(zip(names, others, strict=True)))

    def _read(
        self,
        hidden: Float[Tensor, "A H"],
        tokens: Int[Tensor, " A"],
        reductions: Sequence[Reduction],
    ) -> Float[Tensor, "A C"]:
        """Log-probability, entropy and every reduction after some hidden states."""
        logits = self.halves.logits(hidden).float()
        logp = (logits / self.temperature).log_softmax(-1)
        chosen = logp.gather(-1, tokens[:, None]).squeeze(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        return torch.stack([chosen, entropy, *(r.apply(logp, tokens) for r in reductions)], -1)

    def _read_again(self, *arguments: Any) -> Float[Tensor, "A C"]:
        """The same; the gradient reads anew, instead of keeping what it needs."""
        said: Tensor = checkpoint(
            self._read, *arguments, use_reentrant=False, preserve_rng_state=False
        )
        return said

    def logits(self, batch: Batch, forest: Forest, at: Int[Tensor, " A"]) -> Float[Tensor, "A V"]:
        """The network's raw answer after each of the given positions, in float32.

        Args:
            batch: What is read.
            forest: Its rows.
            at: Positions of the batch.
        """
        return self.halves.logits(self._hidden(batch, forest, at)).float()

    def _hidden(self, batch: Batch, forest: Forest, at: Int[Tensor, " A"]) -> Float[Tensor, "A H"]:
        """What the network's trunk says at each of the given positions."""
        if not self.shares:
            return self._padded(batch, at)
        return self.read(forest, flex=tree_attention.flexes(forest))[forest.node[at]]

    def read(self, forest: Forest, *, flex: bool) -> Float[Tensor, "T H"]:
        """What the network's trunk says at each node.

        Args:
            forest: What is read.
            flex: With FlexAttention, which is for GPUs, instead of blocks.
        """
        told: dict[str, Any] = (
            {"mask": tree_attention.flex_mask(forest)}
            if flex
            else {"blocks": tree_attention.blocks(forest)}
        )
        with _attending(self.model.config, tree_attention.FLEX if flex else tree_attention.BLOCKS):
            hidden = self.halves.hidden(
                input_ids=forest.tokens[None],
                position_ids=forest.depth[None],
                use_cache=False,
                **told,
            )
        return hidden[0]

    def _padded(self, batch: Batch, at: Int[Tensor, " A"]) -> Float[Tensor, "A H"]:
        lengths = batch.lengths.tolist()
        split = list(torch.split(batch.tokens, lengths))
        rows = torch.nn.utils.rnn.pad_sequence(split, batch_first=True)
        keep = torch.arange(rows.shape[1], device=rows.device) < batch.lengths[:, None]
        hidden = self.halves.hidden(input_ids=rows, attention_mask=keep.long(), use_cache=False)
        return hidden[batch.row[at], positions(batch)[at]]


class Critic:
    """The policy's network with one number per position in place of the vocabulary.

    It starts as a copy of the policy that says 0 everywhere.
    """

    def __init__(self, policy: Policy) -> None:
        model = twin(policy.model)
        head = nn.Linear(model.get_output_embeddings().in_features, 1, bias=False)
        nn.init.zeros_(head.weight)
        model.set_output_embeddings(head.to(policy.device, next(model.parameters()).dtype))
        self.network = Policy(model)
        if model.is_gradient_checkpointing:
            self.network.recompute()

    @property
    def model(self) -> nn.Module:
        """The network."""
        model: nn.Module = self.network.model
        return model

    def __call__(self, batch: Batch) -> Float[Tensor, " P"]:
        """The return expected before each token on the mask, in units of reward, 0 elsewhere."""
        at = batch.mask.nonzero().squeeze(-1)
        zeros = torch.zeros(len(batch.tokens), device=batch.tokens.device)
        if not len(at):
            return zeros
        forest = build_forest(batch.tokens, batch.lengths)
        once, back = forest.distinct(at)
        value = self.network.logits(batch, forest, once - 1).squeeze(-1)
        return zeros.index_put((at,), value[back])


def positions(batch: Batch) -> Int[Tensor, " P"]:
    """Index of each token within its row."""
    lengths = batch.lengths
    starts = lengths.cumsum(0) - lengths
    return torch.arange(len(batch.row), device=batch.row.device) - starts[batch.row]


@contextmanager
def _attending(config: Any, name: str) -> Iterator[None]:
    """A network attends our way; before and after, it is as everybody knows it."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
