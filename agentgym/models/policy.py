"""The policy network: log-probabilities and entropies of the tokens of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
from agentgym.models.lm_head import SplitModel
from agentgym.models.lora import adapter_weights, merge_lora, trainable_copy
from agentgym.models.protocols import CausalLM

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types in which tokens interact in causal attention alone."""
ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings that depend on the position alone, not on the longest row of the batch."""
MAX_LOGITS = 2**24
"""Logits in memory at once, 64 MiB in float32; further ones are recomputed for the gradient."""


def supports_prefix_sharing(model: CausalLM) -> bool:
    """Whether a model can read a forest, with our attention in place of its own.

    Not for unknown families, sliding windows, rotary embeddings that depend on the length of the
    row, and dropout in attention.
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

    Where the model allows it (``supports_prefix_sharing``), a token that rows share is computed
    once, and nothing is padded. Other models read rows padded to the longest. Both give the same
    numbers and gradients.

    Args:
        model: A Hugging Face causal language model.
        temperature: Sampling temperature, by which logits are divided.

    Raises:
        ConfigError: The temperature is 0 or less.
    """

    def __init__(self, model: CausalLM, *, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise ConfigError(f"training needs a temperature above 0, got {temperature}")
        self.model: Any = model
        self.split = SplitModel(model)
        self.temperature = temperature
        self.shares_prefixes = supports_prefix_sharing(model)
        if self.shares_prefixes:
            tree_attention.register()

    def weights(self, *, adapters: bool = False) -> dict[str, Tensor]:
        """What an engine loads: the state dict, with adapters merged; or the adapters alone."""
        if adapters:
            return adapter_weights(self.model)
        weights: dict[str, Tensor] = merge_lora(self.model).state_dict()
        return weights

    def megabytes(self, *, adapters: bool = False) -> float:
        """Size of what ``weights`` returns, in megabytes; tied weights count once."""
        named = self.model.named_parameters()
        size: float = sum(p.nbytes for name, p in named if ("lora_" in name) == adapters) / 1e6
        return size

    @staticmethod
    def through(call: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method that computes with the network.

        A network divided among ranks has another one, which gathers its weights around the call.
        """
        return call(*arguments)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        device: torch.device = next(iter(self.model.parameters())).device
        return device

    def enable_gradient_checkpointing(self) -> None:
        """Keep no activations within layers; the backward pass recomputes them.

        Raises:
            ConfigError: The architecture does not support it.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        model, config = self.model, self.model.config
        if not model.supports_gradient_checkpointing:
            raise ConfigError(
                f"{type(model).__name__} does not support gradient checkpointing: leave out "
                f"`optimizer.gradient_checkpointing`"
            )
        model.gradient_checkpointing_enable(
            {
                "use_reentrant": False,
                # The backward pass recomputes with the attention of the forward pass.
                "context_fn": lambda: (
                    nullcontext(),
                    _Attention(config, config._attn_implementation),
                ),
            }
        )
        model.disable_input_require_grads()
        # Layers checkpoint in training mode only. Their submodules keep their mode: with dropout,
        # the log-probabilities would not be those of the policy.
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = True

    def __call__(self, batch: Batch, reductions: Sequence[Reduction] = ()) -> Outputs:
        """Log-probability, entropy and reductions of every token on the mask; 0 elsewhere.

        Each has shape (P,). Logits are divided by the sampling temperature, so that all describe
        the distribution that was sampled from when neither top-p nor top-k is in force.
        """
        outputs: Outputs = self.through(self._outputs, batch, reductions)
        return outputs

    def _outputs(self, batch: Batch, reductions: Sequence[Reduction]) -> Outputs:
        at = batch.mask.nonzero().squeeze(-1)
        zeros = torch.zeros(len(batch.tokens), device=batch.tokens.device)
        if not len(at):
            return Outputs(zeros, zeros, extra={r.name: zeros for r in reductions})
        forest = build_forest(batch.tokens, batch.lengths)
        once, back = forest.distinct(at)
        hidden, tokens = self._hidden(batch, forest, once - 1), batch.tokens[once]
        size = max(1, MAX_LOGITS // self.model.config.get_text_config().vocab_size)
        if len(once) <= size:
            columns = self._columns(hidden, tokens, reductions)
        else:
            pieces = zip(torch.split(hidden, size), torch.split(tokens, size), strict=True)
            columns = torch.cat([self._checkpointed(*piece, reductions) for piece in pieces])
        by_token = (zeros.index_put((at,), column[back]) for column in columns.unbind(-1))
        logprob, entropy, *others = by_token
        names = (reduction.name for reduction in reductions)
        return Outputs(logprob, entropy, extra=dict(zip(names, others, strict=True)))

    def _columns(
        self,
        hidden: Float[Tensor, "A H"],
        tokens: Int[Tensor, " A"],
        reductions: Sequence[Reduction],
    ) -> Float[Tensor, "A C"]:
        """Log-probability, entropy and every reduction, from hidden states."""
        logits = self.split.logits(hidden).float()
        logp = (logits / self.temperature).log_softmax(-1)
        chosen = logp.gather(-1, tokens[:, None]).squeeze(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        return torch.stack([chosen, entropy, *(r.apply(logp, tokens) for r in reductions)], -1)

    def _checkpointed(self, *arguments: Any) -> Float[Tensor, "A C"]:
        """``_columns``, recomputed in the backward pass instead of keeping the logits."""
        columns: Tensor = checkpoint(
            self._columns, *arguments, use_reentrant=False, preserve_rng_state=False
        )
        return columns

    def logits(self, batch: Batch, forest: Forest, at: Int[Tensor, " A"]) -> Float[Tensor, "A V"]:
        """Logits at the given positions, in float32, without the temperature.

        Args:
            batch: The tokens.
            forest: Prefix tree of the batch's rows.
            at: Positions in the batch.
        """
        return self.split.logits(self._hidden(batch, forest, at)).float()

    def _hidden(self, batch: Batch, forest: Forest, at: Int[Tensor, " A"]) -> Float[Tensor, "A H"]:
        """Hidden states at the given positions of the batch."""
        if not self.shares_prefixes:
            return self._padded(batch, at)
        return self.hidden(forest, flex=tree_attention.can_use_flex(forest))[forest.node[at]]

    def hidden(self, forest: Forest, *, flex: bool) -> Float[Tensor, "T H"]:
        """Hidden states of all nodes of a prefix tree.

        Args:
            forest: The tokens.
            flex: Use FlexAttention, which is for GPUs, instead of attention in blocks.
        """
        options: dict[str, Any] = (
            {"mask": tree_attention.flex_mask(forest)}
            if flex
            else {"blocks": tree_attention.blocks(forest)}
        )
        name = tree_attention.FLEX if flex else tree_attention.BLOCKS
        with _Attention(self.model.config, name):
            hidden = self.split.hidden(
                input_ids=forest.tokens[None],
                position_ids=forest.depth[None],
                use_cache=False,
                **options,
            )
        return hidden[0]

    def _padded(self, batch: Batch, at: Int[Tensor, " A"]) -> Float[Tensor, "A H"]:
        lengths = batch.lengths.tolist()
        texts = list(torch.split(batch.tokens, lengths))
        rows = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        keep = torch.arange(rows.shape[1], device=rows.device) < batch.lengths[:, None]
        hidden = self.split.hidden(input_ids=rows, attention_mask=keep.long(), use_cache=False)
        return hidden[batch.row[at], positions(batch)[at]]


class Critic:
    """The policy's network with one output per position, the value, in place of logits.

    It starts as a copy of the policy with a head of zeros, so that every value is 0.
    """

    def __init__(self, policy: Policy) -> None:
        model = trainable_copy(policy.model)
        head = nn.Linear(model.get_output_embeddings().in_features, 1, bias=False)
        nn.init.zeros_(head.weight)
        model.set_output_embeddings(head.to(policy.device))
        self.network = Policy(model)
        if model.is_gradient_checkpointing:
            self.network.enable_gradient_checkpointing()

    @property
    def model(self) -> nn.Module:
        """The network."""
        model: nn.Module = self.network.model
        return model

    def __call__(self, batch: Batch) -> Float[Tensor, " P"]:
        """Expected return before each token on the mask, in units of reward; 0 elsewhere."""
        values: Tensor = self.network.through(self._values, batch)
        return values

    def _values(self, batch: Batch) -> Float[Tensor, " P"]:
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


class _Attention:
    """Context in which a network computes attention by the implementation of a given name.

    It can be entered again: gradients of several parts of a loss recompute a layer once each.
    """

    def __init__(self, config: Any, name: str) -> None:
        self._config = config
        self._name = name
        self._before: list[str] = []

    def __enter__(self) -> None:
        self._before.append(self._config._attn_implementation)
        self._config._attn_implementation = self._name

    def __exit__(self, *raised: object) -> None:
        self._config._attn_implementation = self._before.pop()
