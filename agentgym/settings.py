"""Every setting of a run: one tree of frozen dataclasses. The defaults are tested together.

Each class refuses values that no run can use when it is built, so a mistake is found before any
work starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from agentgym.errors import ConfigError, ImpossibleValue
from agentgym.utils.bounds import above, at_least, within

# Parsed in this order: everything is a valid string.
Value = int | float | bool | str

Precision = Literal["auto", "float32", "bfloat16"]

EngineKind = Literal["local", "vllm", "vllm-server", "openai"]

WORLD = "agentgym/TextWorld-v0"
"""The environment of a run that names none."""

SMALLEST_VOCABULARY = 267
"""256 bytes, 5 special tokens and 6 tags."""


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """How the agent reads observations and writes actions."""

    section: ClassVar[str] = "agent"

    action_format: Literal["tags", "think", "json", "native", "react", "plain"] = "tags"
    """How a completion states its action: in tags, in tags after a required thought, as a JSON
    call, as a tool call in the model's own notation, in ReAct lines, or as plain text."""
    tool_notation: str | None = None
    """Notation of native tool calls, such as hermes or qwen-xml; unset: that of the chat
    template."""
    prompt: Literal["default", "react", "verl-agent", "agentgym"] = "default"
    """Layout of the prompts: our own, or that of a published baseline."""
    examples: int = 0
    """Training tasks that the oracle solves in the prompt."""
    window: int | None = None
    """Past exchanges in the prompt of each turn, which is then built anew; unset: the conversation
    keeps growing, or what the layout of the prompts takes."""
    history: Literal["append", "rerender"] = "append"
    """How a conversation grows: append to what was sampled, or render all messages again, as the
    chat template wants; rows that the template rewrites start anew."""
    chat_template: str | None = None
    """Jinja file of the chat template, or `plain` for a base model, which has none; unset: that of
    the tokenizer."""
    template_args: dict[str, Value] = field(default_factory=dict)
    """Variables of the chat template, such as `enable_thinking false`."""
    system_prompt: str | None = None
    """System prompt; unset: the manual of the environment and the instructions of the action
    format. The chat template of a model made from nothing leaves it out."""
    show_admissible: bool = False
    """Show the admissible actions in every turn."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(0, self, "window", "examples")


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How episodes are played."""

    section: ClassVar[str] = "rollout"

    max_turns: int | None = None
    """Turns after which an episode is truncated; unset: the limit that the environment registers,
    or 50 where it registers none."""
    max_context_tokens: int = 4096
    """Longest context of an episode, prompts and completions together, in tokens."""
    max_completion_tokens: int = 32
    """Longest completion of one turn, in tokens."""
    max_thought_tokens: int | None = None
    """Longest thought of a completion, in tokens; a longer one is closed for the model, and the
    completion goes on. Unset: no limit of its own."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy, for evaluation only."""
    max_seconds: float | None = None
    """Wall-clock seconds after which an episode is truncated, waiting included; unset: no limit."""
    concurrency: int = 64
    """Episodes in flight."""
    workers: int = 0
    """Processes that run environments, each many of them; 0 runs them in this process."""
    env_timeout: float = 60.0
    """Seconds an environment has to answer. In a worker process a late one ends its episode as
    ``tool_timeout``, and the episode is played again. In this process it cannot be stopped, and a
    warning names it."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(1, self, "max_turns", "max_completion_tokens", "concurrency")
        at_least(1, self, "max_thought_tokens")
        at_least(0, self, "workers", "temperature")
        above(0, self, "max_seconds", "env_timeout")
        if self.max_context_tokens <= self.max_completion_tokens:
            raise ImpossibleValue(
                f"rollout.max_context_tokens is {self.max_context_tokens}, expected more than "
                f"rollout.max_completion_tokens, which is {self.max_completion_tokens}"
            )


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
    """Size of a model made from nothing; the default has about a million parameters."""

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
    bfloat16, else float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory for about a third more time, the same
    gradient."""

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
    """Imitate with the model of `--model`, too; otherwise only with a model made from nothing."""
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
    """Loss weight of observation tokens, where action tokens have 1. A model made from nothing
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


@dataclass(frozen=True, kw_only=True)
class PanelSettings:
    """The frozen panel of tasks that an evaluation plays."""

    section: ClassVar[str] = "panel"

    split: str = "test"
    """Split that the tasks come from."""
    tasks: int = 64
    """Number of tasks: the first ones of the split."""
    episodes: int = 8
    """Episodes per task; the largest k of pass@k."""
    temperature: float | None = None
    """Sampling temperature of evaluation; 0 is greedy; unset: rollout.temperature."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(1, self, "tasks", "episodes")
        at_least(0, self, "temperature")


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How a chat endpoint (`--engine openai`) is used."""

    section: ClassVar[str] = "endpoint"

    fields: dict[str, Value] = field(default_factory=dict)
    """Further fields of every request, such as `reasoning_effort low`."""
    deadline: float = 600.0
    """Seconds until a request must be answered, retries included."""
    prompt_price: float = 0.0
    """Dollars per million prompt tokens, for the reported cost."""
    completion_price: float = 0.0
    """Dollars per million completion tokens, for the reported cost."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(0, self, "prompt_price", "completion_price")
        above(0, self, "deadline")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a training run depends on, besides the algorithm."""

    section: ClassVar[str] = ""

    env: str = WORLD
    """Environment id, short name, or `file.py:ClassName`; see `agentgym envs`."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the environment, such as `family cooking difficulty easy`."""
    tools: tuple[str, ...] = ()
    """Functions that the agent can call in addition to its actions, as `file.py:function` or
    `module:function`."""
    model: str | None = None
    """Hugging Face folder, hub id or GGUF file; unset: a small model is made from nothing."""
    engine: EngineKind = "local"
    """What samples: our own engine, vLLM in this process, a vLLM server, or a chat endpoint
    (evaluation only)."""
    server: str | None = None
    """URL of a running server, without /v1; unset: vllm-server starts one."""
    engine_device: str | None = None
    """Device of the local engine, such as cuda:1; unset: the trainer's device."""
    batch_invariant: bool = True
    """In float32 on a CPU, the local engine is batch-invariant: no bit of a completion depends on
    what else is in flight. Costs a tenth of its speed. Without it, and in bfloat16, runs may differ
    by rounding, and now and then in a token."""
    seed: int = 0
    """Root of every random choice."""
    steps: int = 40
    """Training steps; each plays a group of episodes per task and updates the policy."""
    max_env_steps: int | None = None
    """Environment steps after which no further training step starts; unset: no limit."""
    tasks_per_step: int = 16
    """Tasks per training step."""
    save_every: int = 10
    """Training steps between checkpoints."""
    agent: AgentSettings = field(default_factory=AgentSettings)
    """How the agent reads and writes."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """How episodes are played."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """The order of sampling and learning."""
    scratch: ScratchSettings = field(default_factory=ScratchSettings)
    """Size of a model made from nothing."""
    imitation: ImitationSettings = field(default_factory=ImitationSettings)
    """Warm-up before reinforcement learning."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """How weights are updated."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Train adapters instead of weights. A model made from nothing gets them after its warm-up."""
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    """When training warns, and when it stops."""
    panel: PanelSettings = field(default_factory=PanelSettings)
    """The panel that is played before and after training."""
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    """How a chat endpoint is used in an evaluation."""

    def __post_init__(self) -> None:
        """Refuse impossible values, and objects where a name is expected."""
        for name, given in (("env", self.env), ("model", self.model)):
            if not isinstance(given, str | Path | None):
                raise ConfigError(
                    f"{name} is a {type(given).__name__}, expected a name: give objects to "
                    f"`agentgym.train({name}=...)` or `agentgym.evaluate`"
                )
        at_least(0, self, "steps")
        at_least(1, self, "max_env_steps", "tasks_per_step", "save_every")


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """How much work the environment checker does; slow environments get less."""

    section: ClassVar[str] = "effort"

    steps: int = 200
    """Random steps that are repeated in this environment, in another one, in threads and in a
    second process."""
    resets: int = 1000
    """Resets of one environment over which memory must stay level."""
    seconds: float = 10.0
    """Time after which a repeating check stops with what it has seen."""
    call_timeout: float = 60.0
    """Seconds after which a call into the environment that has not returned counts as hanging."""
    episodes: int = 4
    """Smallest number of episodes or tasks of such a check, however long they take."""
