"""How weights are made and updated: schedule, optimizer, imitation, adapters, alarms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.errors import ImpossibleValue
from agentgym.utils.bounds import above, at_least, within

Precision = Literal["auto", "float32", "bfloat16"]

SMALLEST_VOCABULARY = 267
"""256 bytes, 5 special tokens and 6 tags."""


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """The order of sampling and learning; see ``agentgym.training.schedule``."""

    section: ClassVar[str] = "schedule"

    kind: Literal["sync", "one-step-off", "async"] = "sync"
    """Sample then learn; sample the next step's episodes during the update; or sample all the
    time."""
    max_staleness: int = 1
    """async: how many steps old a group may be when it is learned from. Also bounds how many groups
    are started and not yet learned from."""
    group_timeout: float | None = None
    """async: seconds after which a step learns from the groups that are finished, at least one; the
    others carry over. Unset: wait for as many groups as the step has tasks."""
    stale: Literal["drop", "mask"] = "drop"
    """async: what happens to a group that is too old: drop it, or mask its stale turns."""
    importance: Literal["none", "token", "turn", "episode"] | None = None
    """Granularity of the importance ratio that multiplies the advantage; unset: none for sync,
    token for the others."""
    out_of_range: Literal["truncate", "mask"] = "truncate"
    """A ratio above the cap is truncated to it; or ratios outside floor and cap are masked."""
    importance_cap: float = 2.0
    """Largest importance ratio."""
    importance_floor: float = 0.5
    """Smallest importance ratio that ``mask`` keeps."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(0, self, "max_staleness", "importance_floor")
        above(0, self, "group_timeout", "importance_cap")
        if not self.importance_floor <= self.importance_cap:
            raise ImpossibleValue(
                f"schedule.importance_floor is {self.importance_floor}, expected at most "
                f"schedule.importance_cap, which is {self.importance_cap}"
            )


@dataclass(frozen=True, kw_only=True)
class ScratchSettings:
    """Size of a model made from scratch; the default has about a million parameters."""

    section: ClassVar[str] = "scratch"

    hidden_size: int = 192
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    intermediate_size: int = 576
    """Width of the MLP."""
    vocab_size: int = 1024
    """Largest vocabulary; text with little variety may need fewer tokens."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        sizes = "hidden_size", "num_layers", "num_heads", "num_kv_heads", "intermediate_size"
        at_least(1, self, *sizes)
        at_least(SMALLEST_VOCABULARY, self, "vocab_size")
        if self.num_heads % self.num_kv_heads or self.hidden_size % (2 * self.num_heads):
            raise ImpossibleValue(
                f"scratch.hidden_size is {self.hidden_size}, expected a multiple of 2 x "
                f"scratch.num_heads ({self.num_heads}), and that a multiple of "
                f"scratch.num_kv_heads ({self.num_kv_heads})"
            )


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How weights are updated (AdamW)."""

    section: ClassVar[str] = "optimizer"

    learning_rate: float = 4e-4
    """Peak learning rate, reached after the warm-up."""
    warmup_steps: int = 5
    """Optimizer steps of linear learning-rate warm-up."""
    final_lr_ratio: float = 0.1
    """Learning rate of the last training step as a share of the peak; the decay is linear."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    microbatch_tokens: int = 4096
    """Tokens per forward and backward pass; tokens that rows share count once. Gradients accumulate
    over micro-batches. Bounds memory, does not change the gradient."""
    precision: Precision = "auto"
    """Precision of computation; weights under training and optimizer state are always float32.
    auto: bfloat16 for models of 50 million parameters or more where the hardware multiplies in
    bfloat16, else float32. In bfloat16 the local engine is not batch-invariant."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory for about a third more time, the same
    gradient."""
    cpu_offload: bool = False
    """Under torchrun: keep weights, gradients and optimizer state in CPU memory; a layer is on the
    GPU while it computes."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(0, self, "learning_rate", "warmup_steps", "final_lr_ratio", "weight_decay")
        at_least(1, self, "microbatch_tokens")
        above(0, self, "max_grad_norm")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """LoRA adapters: small matrices that are trained instead of the weights."""

    section: ClassVar[str] = "lora"

    rank: int | None = None
    """Rank, such as 16; unset: all weights are trained."""
    alpha: int = 32
    """The adapter's output is scaled by ``alpha / rank``."""
    target_modules: tuple[str, ...] = ()
    """Names of the adapted modules, such as q_proj v_proj; unset: every linear layer of attention
    and MLP."""
    sync: Literal["merged", "adapters"] = "merged"
    """What a vLLM engine gets after each step: all weights, with the adapters merged into them, or
    the adapters alone, which vLLM adds itself: fewer bytes, slower sampling. The local engine
    shares the frozen weights and merges."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(1, self, "rank", "alpha")


@dataclass(frozen=True, kw_only=True)
class ImitationSettings:
    """Warm-up on demonstrations by the environment's oracle, before reinforcement learning."""

    section: ClassVar[str] = "imitation"

    max_steps: int = 600
    """Largest number of optimizer steps; 0 skips imitation."""
    pretrained: bool = False
    """Imitate with the model of `--model`, too; otherwise only with a model made from scratch."""
    until_success: float = 0.4
    """Stop early at this success rate on training tasks; 1 takes every step."""
    batch_size: int = 32
    """Demonstrations per step."""
    demos_per_task: int = 8
    """Demonstrations of each training task."""
    random_action_rate: float = 0.15
    """Share of random actions in demonstrations, which show how to recover."""
    learn_random_actions: bool = False
    """Imitate the random actions, too. The policy keeps exploring, which reinforcement learning
    needs; its episodes are longer."""
    observation_loss_weight: float = 0.0
    """Loss weight of observation tokens, where action tokens have 1. A model made from scratch
    learns from them to copy names."""
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(0, self, "max_steps", "until_success", "observation_loss_weight", "learning_rate")
        at_least(1, self, "batch_size", "demos_per_task")
        within(0, 1, self, "random_action_rate")
        if self.random_action_rate == 1:
            raise ImpossibleValue("imitation.random_action_rate is 1.0, expected less than 1")


@dataclass(frozen=True, kw_only=True)
class AlarmSettings:
    """When training warns, and when it stops."""

    section: ClassVar[str] = "alarms"

    entropy_collapse: float = 0.1
    """Warn when the entropy falls below this fraction of its first value."""
    entropy_explosion: float = 5.0
    """Warn when the entropy rises above this multiple of its first value."""
    identical_groups: float = 0.9
    """Warn when all episodes act the same in this share of the groups."""
    template_collapse: float = 0.05
    """Warn when the information that actions carry about the task falls below this, from 0 (none)
    to 1 (they identify it)."""
    cut_completions: float = 0.5
    """Warn when this share of the turns is cut at the longest completion."""
    inert_term: float = 0.01
    """Warn when a term of the loss has less than this part of the surrogate's gradient norm."""
    patience: int = 3
    """Consecutive steps after which a warning is given, once."""
    max_mismatch: float = 0.1
    """Stop when the log-probabilities of engine and trainer differ by more nats per token. In
    float32 they differ by about 1e-6."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(0, self, "entropy_collapse", "entropy_explosion", "identical_groups")
        at_least(0, self, "template_collapse", "cut_completions", "inert_term")
        at_least(1, self, "patience")
        above(0, self, "max_mismatch")
