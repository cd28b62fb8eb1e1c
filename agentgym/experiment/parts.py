"""The parts of a run: environments, agent, player, models, made from its settings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agentgym.engines import chat_messages
from agentgym.engines.factory import EngineFactory
from agentgym.env.base import TextEnv
from agentgym.env.executor import Executor, ThreadExecutor
from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.spec import EvalSpec
from agentgym.experiment.assemble import (
    action_format_of,
    agent_of,
    chosen_action_format,
    tokenizer_of,
)
from agentgym.experiment.result_settings import settings_of_result
from agentgym.experiment.run_folder import RunFolder, fingerprint, fingerprint_of
from agentgym.experiment.sources import Objects, is_object, is_policy, source_of, with_turn_limit
from agentgym.models.gguf import is_gguf
from agentgym.models.loading import load_model
from agentgym.models.lora import add_lora, base_model_of
from agentgym.models.protocols import CausalLM, Tokenizer
from agentgym.programs.player import ProgramPlayer
from agentgym.programs.process import load_program
from agentgym.programs.server import ProgramServer
from agentgym.rollout.action_formats import ActionFormat, NativeCalls
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.completions import end_tokens
from agentgym.rollout.demonstrations import demonstrate, to_example
from agentgym.rollout.history_check import history_note
from agentgym.rollout.player import Player
from agentgym.rollout.prompts import Example
from agentgym.rollout.setup import EpisodeLimits
from agentgym.scoring.make import make_scorer
from agentgym.scoring.reward import as_reward
from agentgym.settings import ActionFormatName, Experiment
from agentgym.tracking.tracker import Trackers
from agentgym.types import Sampling, Task
from agentgym.utils import yaml_config
from agentgym.utils.progress import Display
from agentgym.utils.seeds import derive
from agentgym.utils.versions import versions

if TYPE_CHECKING:
    from agentgym.experiment.cluster import ClusterRun

TYPES = 12
"""Types of tasks, at most, among which examples of the own type are looked for."""


@dataclass
class RunParts:
    """What one run works with: environments, panels, players, models, all from its settings."""

    experiment: Experiment
    folder: RunFolder
    display: Display
    executor: Executor = field(default_factory=ThreadExecutor)
    """Runs the environments."""
    engines: EngineFactory = field(default_factory=EngineFactory)
    """Creates the sampling engine."""
    objects: Objects = field(default_factory=Objects)
    """What the settings cannot name."""
    trackers: Trackers = field(default_factory=Trackers)
    """Get the numbers of the run beside its files."""
    server: ProgramServer | None = None
    """Endpoint of the agent program, where one plays."""
    cluster: ClusterRun | None = None
    """Players and engines of the run, where they are on a cluster."""
    _noted: bool = False
    """The user knows that the chat template rewrites earlier turns."""

    def __post_init__(self) -> None:
        """Find the environments, and the turn limit where the settings leave it open."""
        self.source = source_of(self.experiment, self.objects)
        self.experiment = with_turn_limit(self.experiment, self.source)

    def world(self) -> TextEnv:
        """The unwrapped environment."""
        return self.source.bare()

    def prepare(self, split: str, tasks: Sequence[Task]) -> None:
        """Build ahead what tasks of a split need, such as compiled games."""
        bare = self.world()
        with self.display.stage(f"prepare: {split}", len(tasks)) as advance:
            bare.prepare([task.id for task in tasks], lambda done, total: advance(done))
        bare.close()

    def panel(self, split: str) -> Panel:
        """The frozen tasks of a split."""
        return self.source.panel(split)

    def agent(
        self,
        tokenizer: Tokenizer,
        model: CausalLM | str | Path | None = None,
        action_format: ActionFormat | None = None,
    ) -> ChatAgent:
        """The agent; the generation config of the model may name further stop tokens."""
        settings = self.experiment.agent
        form = action_format or action_format_of(self.action_format(tokenizer))
        agent = agent_of(settings, tokenizer, form, end_tokens(model))
        wanted = settings.examples
        if count := agent.layout.examples if wanted is None else wanted:
            agent.conversation.examples = self._examples(agent, count)
        # An endpoint renders the messages itself.
        local = self.experiment.model is not None and self.engines.kind != "openai"
        note = history_note(agent) if local else ""
        if note and not self._noted:
            self._noted = True
            self.display.say(note)
        return agent

    def action_format(self, tokenizer: Tokenizer | None) -> ActionFormatName:
        """The action format, as set or as it fits; without a tokenizer there is no model."""
        settings = self.experiment.agent
        return chosen_action_format(settings, tokenizer, calls_only=self.source.calls_only())

    def oracle_world(self, action_format: ActionFormatName) -> TextEnv:
        """The unwrapped environment; its oracle writes calls as the agent does."""
        bare = self.world()
        if action_format == "native" and bare.calls_only:
            from agentgym.tools import HermesCalls, ToolEnv

            assert isinstance(bare, ToolEnv)
            bare.use_notation(HermesCalls())
        return bare

    def _examples(self, agent: ChatAgent, count: int) -> tuple[Example, ...]:
        """Episodes of the oracle on the first training tasks, ``count`` or as many of each type."""
        bare = self.oracle_world(self.action_format(agent.tokenizer))
        by_type = agent.layout.examples_by_type
        try:
            tasks = self.panel("train").tasks[: count * (TYPES if by_type else 1)]
            rng = np.random.default_rng(derive(self.experiment.seed, "examples"))
            shown = [demonstrate(bare, task, rng) for task in tasks]
        finally:
            bare.close()
        if not all(each.steps for each in shown):
            raise ConfigError(
                f"{self.experiment.env} has no oracle for its examples; use `--agent.examples 0`"
            )
        found = [to_example(each, agent) for each in shown]
        types = [each.task_type for each in found]
        kept = (n for n, kind in enumerate(types) if not by_type or types[:n].count(kind) < count)
        return tuple(found[n] for n in kept)

    @property
    def panel_temperature(self) -> float:
        """Sampling temperature of evaluations."""
        chosen = self.experiment.panel.temperature
        return self.experiment.rollout.temperature if chosen is None else chosen

    def player(
        self,
        tokenizer: Tokenizer,
        model: CausalLM | str | Path,
        stream: str,
        temperature: float | None = None,
    ) -> Player:
        """A player: engine with the model's weights, agent, environments and limits.

        Where the settings name an agent program, it plays.
        """
        player = self.native_player(tokenizer, model, stream, temperature)
        if self.experiment.agent_program is None:
            return player
        if self.server is None:
            raise ConfigError(
                "agent programs are run by `agentgym train` and `agentgym eval` alone; leave "
                "`--agent-program` out for our own agent"
            )
        shared = {f.name: getattr(player, f.name) for f in fields(player)}
        named = self.objects.agent_program or self.experiment.agent_program
        return ProgramPlayer(
            **shared | {"agent": self.agent(tokenizer, model, NativeCalls())},
            program=load_program(named),
            server=self.server,
            settings=self.experiment.program,
        )

    def training_player(self, tokenizer: Tokenizer, model: CausalLM | str | Path) -> Player:
        """The player of training, whose episodes have the reward of the settings."""
        player = self.player(tokenizer, model, "train")
        if self.experiment.scoring.given:
            scorer = make_scorer(self.experiment.scoring, self.display.say)
            player.rescore = as_reward(scorer, player.agent.decode)
        return player

    def native_player(
        self,
        tokenizer: Tokenizer,
        model: CausalLM | str | Path,
        stream: str,
        temperature: float | None = None,
    ) -> Player:
        """The same with our own agent."""
        wanted = self.experiment.rollout
        assert wanted.max_turns is not None, "set in __post_init__"
        return Player(
            agent=self.agent(tokenizer, model),
            engine=self.engines.make(
                model, tokenizer, slots=wanted.concurrency, context=wanted.max_context_tokens
            ),
            make_env=self.source.factory(wanted.max_turns),
            executor=self.executor,
            limits=EpisodeLimits(
                turns=wanted.max_turns,
                tokens=wanted.max_context_tokens * self.engines.units_per_token,
                thought_tokens=wanted.max_thought_tokens,
                seconds=wanted.max_seconds,
            ),
            sampling=Sampling(
                temperature=wanted.temperature if temperature is None else temperature,
                max_tokens=wanted.max_completion_tokens,
            ),
            concurrency=wanted.concurrency,
            stream=f"{self.experiment.seed}/{stream}",
        )

    def trainable(self, checkpoint: str | Path, *, changes: bool = True) -> tuple[Any, Any]:
        """Tokenizer and model; the weights that are trained are float32 and require gradients.

        Args:
            checkpoint: Folder, hub id, or the name of the model object.
            changes: Whether the weights are going to change, so that an object is copied.
        """
        experiment = self.experiment
        if is_object(checkpoint):
            model = self.objects.model
            if changes or experiment.lora.rank is not None:
                model = copy.deepcopy(model)
        else:
            frozen = experiment.lora.rank is not None or base_model_of(checkpoint) is not None
            half = frozen and experiment.optimizer.precision != "float32"
            model = load_model(checkpoint, dtype=None if half else torch.float32)
        if is_object(checkpoint) and changes and experiment.lora.rank is None:
            model = model.float()
        if experiment.lora.rank is not None:
            add_lora(model, experiment.lora, seed=derive(experiment.seed, "adapters"))
        return self.tokenizer(checkpoint), model

    def tokenizer(self, checkpoint: str | Path) -> Any:
        """The tokenizer of a model, with the chat template of the settings."""
        given = self.objects.tokenizer if checkpoint == self.experiment.model else None
        return given or tokenizer_of(checkpoint, self.experiment.agent)

    def _reader(self, checkpoint: str | Path) -> Tokenizer | None:
        """The tokenizer of what is evaluated; None for a policy without a model."""
        if is_policy(checkpoint, self.experiment):
            return None
        if self.engines.kind == "openai":
            return chat_messages.make_tokenizer()
        found: Tokenizer = self.tokenizer(checkpoint)
        return found

    def loaded(self, checkpoint: str | Path) -> tuple[Any, Any]:
        """Tokenizer and model; the path instead of the model where the engine loads it itself."""
        if self.engines.kind == "openai":
            return chat_messages.make_tokenizer(), checkpoint
        tokenizer = self.tokenizer(checkpoint)
        if is_object(checkpoint):
            return tokenizer, self.objects.model
        engines = self.engines
        loads = base_model_of(checkpoint) is not None or is_gguf(checkpoint)
        here = engines.kind == "local" or engines.server_model or loads
        return tokenizer, load_model(checkpoint) if here else checkpoint

    def spec(self, checkpoint: str | Path) -> EvalSpec:
        """What the result of an evaluation depends on."""
        if is_object(checkpoint):
            model = fingerprint_of(self.objects.model, self.objects.tokenizer)
        else:
            model = fingerprint(checkpoint)
        return EvalSpec(
            model,
            settings_of_result(
                self.experiment,
                action_format=self.action_format(self._reader(checkpoint)),
                temperature=self.panel_temperature,
                engine=self.engines.kind,
            ),
            name=str(checkpoint),
            experiment=yaml_config.encode(self.experiment),
            versions=versions(),
        )
