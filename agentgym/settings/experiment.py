"""The settings of one whole training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from agentgym.errors import ConfigError
from agentgym.settings.cluster import ClusterSettings
from agentgym.settings.curriculum import CurriculumSettings
from agentgym.settings.learning import (
    AlarmSettings,
    ImitationSettings,
    LoraSettings,
    OptimizerSettings,
    ScheduleSettings,
    ScratchSettings,
)
from agentgym.settings.playing import (
    AgentSettings,
    EndpointSettings,
    PanelSettings,
    RolloutSettings,
    Value,
)
from agentgym.settings.programs import ProgramSettings
from agentgym.settings.scoring import ScoringSettings
from agentgym.settings.user import UserSettings
from agentgym.utils.bounds import at_least

EngineKind = Literal["local", "vllm", "vllm-server", "openai"]

WORLD = "agentgym/TextWorld-v0"
"""The environment of a run that names none."""


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
    user: UserSettings = field(default_factory=UserSettings)
    """A simulated user, whom the agent asks or talks to."""
    agent_program: str | None = None
    """Agent program that plays instead of our own agent; its calls of the model are trained on: a
    command such as "python my_agent.py", which runs once per episode, or a function as
    `file.py:function`. It finds the model in OPENAI_BASE_URL and OPENAI_API_KEY, the environment
    in AGENTGYM_WORLD_URL. Of the section `agent` only history, chat_template, template_args and
    tool_notation apply."""
    program: ProgramSettings = field(default_factory=ProgramSettings)
    """How the agent program is run and rewarded."""
    model: str | None = None
    """Hugging Face folder, hub id or GGUF file; unset: a small model is made from scratch."""
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
    save_async: bool = False
    """Copy a checkpoint to CPU memory and write it while training goes on."""
    track: tuple[str, ...] = ()
    """Trackers that get the metrics beside `metrics.jsonl`: tensorboard, wandb, mlflow, trackio,
    swanlab. Each needs its own package and is set up by its own environment variables."""
    compress_episodes: bool = False
    """Write episodes.jsonl.zst instead of episodes.jsonl: about a quarter of the size."""
    agent: AgentSettings = field(default_factory=AgentSettings)
    """How the agent reads and writes."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """How episodes are played."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """The order of sampling and learning."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Where the processes of the run are placed, on a Ray cluster."""
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)
    """Which training tasks are played."""
    scratch: ScratchSettings = field(default_factory=ScratchSettings)
    """Size of a model made from scratch."""
    imitation: ImitationSettings = field(default_factory=ImitationSettings)
    """Warm-up before reinforcement learning."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """How weights are updated."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Train adapters instead of weights. A model made from scratch gets them after its warm-up."""
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    """When training warns, and when it stops."""
    panel: PanelSettings = field(default_factory=PanelSettings)
    """The panel that is played before and after training."""
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    """How a chat endpoint is used in an evaluation."""
    scoring: ScoringSettings = field(default_factory=ScoringSettings)
    """A scorer: its score is the reward in training, instead of the environment's. The panel is
    always scored by the environment."""

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
