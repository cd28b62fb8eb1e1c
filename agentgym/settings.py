"""What a run can be told: one tree of frozen dataclasses; the defaults are the vetted setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

from agentgym.errors import ConfigError

# Tried in this order, and everything is a string.
Value = int | float | bool | str

EngineKind = Literal["local", "vllm", "vllm-server", "openai"]

WORLD = "agentgym/TextWorld-v0"
"""The world where none is named."""


@dataclass(frozen=True, kw_only=True)
class Speech:
    """How the agent reads and writes."""

    form: Literal["tags", "think", "json", "plain"] = "tags"
    """Action in tags, the same after a required thought, a JSON call, or all that is said."""
    window: int | None = None
    """Exchanges shown in a fresh prompt each turn; none: the conversation grows."""
    system: str | None = None
    """System prompt; unless given, the format's instructions. A model made from nothing could not
    read it: its chat template leaves it out."""
    list_actions: bool = False
    """Show the admissible actions each turn."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How episodes are played."""

    turns: int = 50
    """Longest episode, in turns."""
    tokens: int = 4096
    """Longest context, in tokens."""
    completion: int = 32
    """Longest completion, in tokens."""
    temperature: float = 1.0
    """Of training and evaluation alike."""
    seconds: float | None = None
    """Longest episode, in seconds of wall-clock time, waiting included; none: any."""
    concurrency: int = 64
    """Episodes in flight."""
    workers: int = 0
    """Processes that worlds live in, each with many; 0: in this process."""
    deadline: float = 60.0
    """Seconds in which a world must answer an action. In a worker the episode then ends as a
    ``tool_timeout`` and is played again; in this process nothing can stop it, and you are warned.
    """


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When episodes are played and when the policy learns; see ``agentgym.training.schedule``."""

    kind: Literal["sync", "one-step-off", "async"] = "sync"
    """In turn; the next step's episodes during this one's update; or all the time."""
    staleness: int = 1
    """async: steps that a group of episodes may be behind when it is learned from; bounds how many
    are begun and not yet learned from, too."""
    deadline: float | None = None
    """async: seconds of waiting after which a step learns from the groups that are finished, at
    least one, and the others carry over; none: waits for as many as it has tasks."""
    old: Literal["drop", "mask"] = "drop"
    """async: a group that is too old is given up, or its turns that are teach nothing."""
    correct: Literal["none", "token", "turn", "episode"] | None = None
    """Whose probability under the policy now, over that at sampling, weighs the advantage; unless
    given, none for sync and that of each token for the others."""
    beyond: Literal["truncate", "mask"] = "truncate"
    """Such a ratio above the cap counts as the cap; or nothing, and so does one below ``low``."""
    cap: float = 2.0
    """Largest ratio."""
    low: float = 0.5
    """Least ratio that is not masked."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size of a model made from nothing; the default has about a million parameters."""

    hidden: int = 192
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 576
    vocabulary: int = 1024
    """Largest number of tokens; world text of little variety may need fewer."""


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How weights change."""

    learning_rate: float = 4e-4
    """Peak, reached after ``warmup`` optimiser steps."""
    warmup: int = 5
    """Optimiser steps of linear warm-up."""
    final: float = 0.1
    """Share of the peak that is left at the last training step; falls linearly."""
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    """Largest gradient norm."""
    tokens_per_pass: int = 4096
    """Tokens per forward and backward pass, those that rows share counted once; gradients
    accumulate until the optimiser steps. Bounds memory, never changes the gradient."""
    autocast: bool = False
    """Compute in bfloat16 where that is safe (automatic mixed precision); weights and what the
    optimiser keeps stay in float32, also on a GPU."""
    gradient_checkpointing: bool = False
    """Keep no activations within layers, and compute them again for the gradient: less memory for
    about a third more time, the same gradient."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Adapters (LoRA): small matrices that are trained in the place of the weights."""

    rank: int | None = None
    """Their rank, such as 16; none: all weights are trained."""
    alpha: int = 32
    """What they add to a layer is multiplied by ``alpha / rank``."""
    targets: tuple[str, ...] = ()
    """Names of the modules that have one, such as q_proj v_proj; unless given, every linear layer
    of attention and MLP."""


@dataclass(frozen=True, kw_only=True)
class Imitation:
    """Warm-up on demonstrations by the world's oracle, before any reinforcement."""

    steps: int = 600
    """Most optimiser steps."""
    any_model: bool = False
    """Warm up the model of `--model`, too; otherwise only one made from nothing."""
    until: float = 0.4
    """Stop early once this share of episodes on training tasks is won; 1 takes every step."""
    batch: int = 32
    """Demonstrations per step."""
    demonstrations: int = 8
    """Per training task."""
    slip: float = 0.15
    """Share of the demonstrator's moves that are random: shows how to recover."""
    learn_slips: bool = False
    """Imitate the random moves, too: a player who knows the game but is careless. Such a policy
    still tries things, which is what reinforcement learns from; its episodes are longer."""
    reading: float = 0.0
    """Weight of foretelling what the world says, against 1 for actions. It is in the same
    demonstrations, and a model made from nothing learns from it to copy names."""
    learning_rate: float = 2e-3


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """When training warns, and when it stops."""

    collapse: float = 0.1
    """Warn when entropy is below this part of what it was at the first step."""
    explosion: float = 5.0
    """Warn when it is above this many times that."""
    alike: float = 0.9
    """Warn when in this share of the groups all episodes act the same."""
    template: float = 0.05
    """Warn when actions tell less of the task than this, from 0 (nothing) to 1 (which it is)."""
    patience: int = 3
    """Steps in a row after which a warning is given, once."""
    drift: float = 0.1
    """Stop when engine and trainer differ by more nats per token; in float32 they do by 1e-6."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The frozen panel that is played before and after."""

    split: str = "test"
    tasks: int = 64
    """First tasks of the split."""
    episodes: int = 8
    """Per task; the largest k of pass@k."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a training run depends on, besides the algorithm."""

    env: str = WORLD
    """Registered environment id; see `agentgym envs`."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the world, such as `family cooking difficulty easy`."""
    model: str | None = None
    """Hugging Face folder or hub id; unless given, a small model is made from nothing."""
    engine: EngineKind = "local"
    """What samples: this process, vLLM in it, a vLLM server, or a chat endpoint (to evaluate)."""
    server: str | None = None
    """Address of a running server, without /v1; unless given, vllm-server starts one."""
    engine_device: str | None = None
    """Where the local engine samples, such as cuda:1; unless given, where the trainer learns."""
    engine_bitwise: bool = True
    """On a CPU, the local engine gives a tenth of its speed so that no bit of a completion depends
    on what else is in flight; without, a run may differ in rounding, and at times in a token."""
    seed: int = 0
    """Root of every random choice."""
    steps: int = 40
    """Training steps: each plays a group of episodes per task and updates the policy."""
    budget: int | None = None
    """Turns in the world after which no further step is begun; none: any number."""
    tasks_per_step: int = 16
    """Tasks per training step."""
    save_every: int = 10
    """Training steps between checkpoints."""
    speech: Speech = field(default_factory=Speech)
    """How the agent reads and writes."""
    rollout: Rollout = field(default_factory=Rollout)
    """How episodes are played."""
    schedule: Schedule = field(default_factory=Schedule)
    """When they are, and when the policy learns."""
    shape: Shape = field(default_factory=Shape)
    """Size of a model made from nothing."""
    imitation: Imitation = field(default_factory=Imitation)
    """Warm-up before reinforcement."""
    optimisation: Optimisation = field(default_factory=Optimisation)
    """How weights change."""
    lora: Lora = field(default_factory=Lora)
    """Train adapters, not the weights. A model made from nothing gets them after its warm-up."""
    alarms: Alarms = field(default_factory=Alarms)
    """When training warns, and when it stops."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """The panel that is played before and after."""


_LEAST = {
    "steps": 0,
    "budget": 1,
    "tasks_per_step": 1,
    "save_every": 1,
    "speech.window": 0,
    "rollout.turns": 1,
    "rollout.completion": 1,
    "rollout.concurrency": 1,
    "rollout.workers": 0,
    "schedule.staleness": 0,
    "schedule.low": 0.0,
    "shape.hidden": 1,
    "shape.layers": 1,
    "shape.heads": 1,
    "shape.kv_heads": 1,
    "shape.ffn": 1,
    "shape.vocabulary": 267,  # 256 bytes, 5 marks, 6 tags
    "imitation.steps": 0,
    "imitation.batch": 1,
    "imitation.demonstrations": 1,
    "imitation.until": 0.0,
    "imitation.slip": 0.0,
    "imitation.reading": 0.0,
    "imitation.learning_rate": 0.0,
    "optimisation.learning_rate": 0.0,
    "optimisation.warmup": 0,
    "optimisation.final": 0.0,
    "optimisation.weight_decay": 0.0,
    "optimisation.tokens_per_pass": 1,
    "lora.rank": 1,
    "lora.alpha": 1,
    "alarms.collapse": 0.0,
    "alarms.explosion": 0.0,
    "alarms.alike": 0.0,
    "alarms.template": 0.0,
    "alarms.patience": 1,
    "evaluation.tasks": 1,
    "evaluation.episodes": 1,
}


def check_ranges(experiment: Experiment) -> None:
    """Refuse numbers that no run can use, before an hour is spent on the way to them.

    Raises:
        ConfigError: Naming the field.
    """
    for name, least in _LEAST.items():
        value = attrgetter(name)(experiment)
        if value is not None and not value >= least:
            raise ConfigError(f"{name} is {value}, expected at least {least}")
    positive = (
        "rollout.temperature",
        "rollout.seconds",
        "rollout.deadline",
        "schedule.deadline",
        "schedule.cap",
        "optimisation.clip_norm",
        "alarms.drift",
    )
    for name in positive:
        value = attrgetter(name)(experiment)
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value}, expected more than 0")
    if not experiment.imitation.slip < 1:
        raise ConfigError(f"imitation.slip is {experiment.imitation.slip}, expected less than 1")
    rollout, shape, schedule = experiment.rollout, experiment.shape, experiment.schedule
    if not schedule.low <= schedule.cap:
        raise ConfigError(
            f"schedule.low is {schedule.low}, expected at most schedule.cap, which is "
            f"{schedule.cap}"
        )
    if rollout.tokens <= rollout.completion:
        raise ConfigError(
            f"rollout.tokens is {rollout.tokens}, expected more than rollout.completion, "
            f"which is {rollout.completion}"
        )
    if shape.heads % shape.kv_heads or shape.hidden % (2 * shape.heads):
        raise ConfigError(
            f"shape.hidden is {shape.hidden}, expected a multiple of 2 x shape.heads "
            f"({shape.heads}), and that a multiple of shape.kv_heads ({shape.kv_heads})"
        )


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to look for violations; a slow world is looked at for less."""

    steps: int = 200
    """Random steps that are repeated here, in another world, in threads and in a second process."""
    resets: int = 1000
    """Resets of one world over which memory must stay level."""
    seconds: float = 10.0
    """After this long, a check that repeats itself makes do with what it has seen."""
    episodes: int = 4
    """Episodes that such a check plays, or tasks it looks at, however long that takes."""
