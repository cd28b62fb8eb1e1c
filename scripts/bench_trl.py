"""A training step here and in TRL's GRPO trainer: one world, one model, the same episodes per step.

    scripts/bench trl [--model RUN/checkpoints/warm] [--updates 3] [--tasks 8] [--env ID]

TRL leaves a conversation with a world to a function of its user (``rollout_func``). Ours asks
``generate`` for the next turn of all running episodes, and shows it the whole history each time.
Both learn by GRPO with the same group size, learning rate and clip, in one optimiser step for all
episodes of a training step, from the same checkpoint and on the same tasks. Printed are the seconds
and the success of every step, at the end the medians, and when each had a success that both had at
some time. Needs TRL: `.venv/bin/pip install trl`.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch
import tyro
from naive import answers

from agentgym.engines.local.engine import LocalEngine
from agentgym.env.executor import reset_env, step_env
from agentgym.env.panel import panel
from agentgym.env.registry import EnvFactory
from agentgym.errors import ConfigError, MalformedAction
from agentgym.models import from_scratch
from agentgym.models.loading import load_model, load_tokenizer
from agentgym.models.policy import Policy
from agentgym.rollout.agent import AgentInput, ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import OptimizerSettings, ScratchSettings
from agentgym.training.learner import Learner
from agentgym.training.trainer import Trainer
from agentgym.types import Completion, Sampling, Task, Turn
from agentgym_trainers.grpo import GRPO


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained, and for how long."""

    env: str = "agentgym/TextWorld-v0"
    """Registered environment id."""
    env_args: dict[str, int | str] = field(default_factory=dict)
    """Keyword arguments of the world."""
    model: str | None = None
    """A run's checkpoint, or any Hugging Face folder with a chat template; unless given, the
    default model made from scratch, which plays every episode to the limit."""
    updates: int = 3
    """Training steps of each."""
    tasks: int = 8
    """Per step."""
    group: int = 8
    """Episodes per task."""
    turns: int = 50
    """Longest episode, in turns."""
    tokens: int = 4096
    """Longest context."""
    completion: int = 32
    """Longest completion, in tokens."""
    learning_rate: float = 2e-4
    """Constant."""
    rows: int = 8
    """Episodes of one forward and backward pass in TRL, which pads them to one length."""


WINDOW = 3
"""Training steps over which success is averaged."""


class Update(NamedTuple):
    """A training step as it was seen."""

    seconds: float
    success: float
    """Share of its episodes that won."""


class Setting:
    """What both begin with."""

    def __init__(self, options: Options, folder: str) -> None:
        self.options = options
        tasks = panel(options.env, split="train", **options.env_args).tasks
        self.tasks = [tasks[k % len(tasks)] for k in range(options.updates * options.tasks)]
        self.folder = options.model or folder
        if options.model is None:
            texts = [task.id for task in tasks[:64]] + ["You see a kitchen. You win. Score 1."] * 20
            tokenizer = from_scratch.make_tokenizer(texts, 400)
            model = from_scratch.make_model(
                tokenizer, ScratchSettings(), context=options.tokens, seed=0
            )
            from_scratch.save(model, tokenizer, Path(folder))
        self.tokenizer = load_tokenizer(self.folder)
        self.agent = ChatAgent(self.tokenizer)
        self.make = EnvFactory(kwargs=options.env_args, max_turns=options.turns)

    def step(self, number: int) -> list[Task]:
        """The tasks of a training step."""
        count = self.options.tasks
        return self.tasks[number * count : (number + 1) * count]


# ---- here ----------------------------------------------------------------------------------------


def here(setting: Setting) -> list[Update]:
    """With our trainer and engine."""
    options, model = setting.options, load_model(setting.folder)
    count = options.tasks * options.group
    player = Player(
        agent=setting.agent,
        engine=LocalEngine(model, slots=count, context=options.tokens),
        make_env=setting.make,
        limits=EpisodeLimits(turns=options.turns, tokens=options.tokens),
        sampling=Sampling(max_tokens=options.completion),
        concurrency=count,
    )
    optimisation = OptimizerSettings(
        learning_rate=options.learning_rate, warmup_steps=0, final_lr_ratio=1.0
    )
    method = GRPO(group_size=options.group, clip_ratio_high=0.2, minibatches=1)
    trainer = Trainer(method.build(), Learner(Policy(model), optimisation), player)

    async def train() -> list[Update]:
        seen = []
        for number in range(options.updates):
            began = time.perf_counter()
            step = await trainer.run_step(setting.step(number))
            won = mean(t.won for group in step.groups for t in group)
            seen.append(Update(time.perf_counter() - began, won))
        return seen

    return asyncio.run(train())


# ---- there ---------------------------------------------------------------------------------------


class Episode:
    """One episode in TRL's terms: a prompt, and a completion that holds the world's answers too."""

    def __init__(self, setting: Setting, task: Task) -> None:
        self.options, self.agent = setting.options, setting.agent
        self.env = setting.make(task)
        self.opening, info = reset_env(self.env, task)
        self.goal, self.turns = info["goal"], list[Turn]()
        self.over, self.reward, self.won = False, 0.0, False
        prompt = self.agent.prompt(AgentInput(self.goal, self.opening, self.opening), ())
        self.prompt, self.read = list(prompt.tokens), prompt.tokens
        self.tokens: list[int] = []
        self.ours: list[int] = []
        """1 for the policy's tokens of ``tokens``, 0 for those of the environment."""

    @property
    def context(self) -> list[int]:
        """The context of the next completion."""
        return self.prompt + self.tokens

    def answer(self, tokens: list[int]) -> None:
        """Act in the environment and append its answer."""
        zeros = (0.0,) * len(tokens)
        completion = Completion(tuple(tokens), zeros, zeros)
        self.tokens += tokens
        self.ours += [1] * len(tokens)
        try:
            action = self.agent.parse(completion)
        except MalformedAction as problem:
            action, observation, reward = "", str(problem), 0.0
        else:
            observation, reward, done, cut, info = step_env(self.env, action)
            self.over, self.won = done or cut, bool(info["won"])
        self.reward += reward
        self.turns.append(Turn(self.read, completion, action, observation, reward))
        scene = AgentInput(self.goal, self.opening, observation)
        self.read = self.agent.prompt(scene, self.turns).tokens
        room = self.options.tokens - len(self.context) - len(self.read) - self.options.completion
        self.over = self.over or room < 0 or len(self.turns) >= self.options.turns
        if self.over:
            self.env.close()
        else:
            self.tokens += self.read
            self.ours += [0] * len(self.read)


class Loop:
    """The function that TRL calls for the episodes of a training step."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.success: list[float] = []

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        """All turns of all episodes; those that have ended are left out."""
        tasks = {task.id: task for task in self.setting.tasks}
        episodes = [Episode(self.setting, tasks[name]) for name in prompts]
        while going := [episode for episode in episodes if not episode.over]:
            sampled = self.write(trainer.model, [episode.context for episode in going])
            for episode, tokens in zip(going, sampled, strict=True):
                episode.answer(tokens)
        self.success.append(mean(episode.won for episode in episodes))
        return {
            "prompt_ids": [episode.prompt for episode in episodes],
            "completion_ids": [episode.tokens for episode in episodes],
            "env_mask": [episode.ours for episode in episodes],
            "logprobs": None,
            "returned": [episode.reward for episode in episodes],
        }

    def write(self, model: Any, contexts: list[list[int]]) -> list[list[int]]:
        """The next completion of each, up to and with its stop token."""
        stop = self.setting.agent.stop
        sampled = answers(
            model,
            contexts,
            padding=stop[0],
            temperature=1.0,
            top_k=0,
            max_new_tokens=self.setting.options.completion,
            eos_token_id=list(stop),
        )
        ends = [[k for k, token in enumerate(row) if token in stop] for row in sampled]
        return [row[: end[0] + 1] if end else row for row, end in zip(sampled, ends, strict=True)]


def there(setting: Setting) -> list[Update]:
    """With TRL's trainer."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    options, loop, times = setting.options, Loop(setting), [time.perf_counter()]

    class Clock(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            times[0] = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.perf_counter())

    def returned(completions: list[str], returned: list[float], **others: Any) -> list[float]:
        return returned

    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=options.rows,
            gradient_accumulation_steps=options.tasks * options.group // options.rows,
            num_generations=options.group,
            max_steps=options.updates,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            loss_type="grpo",
            beta=0.0,
            epsilon=0.2,
            max_grad_norm=1.0,
            shuffle_dataset=False,
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        GRPOTrainer(
            model=load_model(setting.folder),
            processing_class=setting.tokenizer,
            reward_funcs=returned,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": task.id} for task in setting.tasks]),
            rollout_func=loop,
            callbacks=[Clock()],
        ).train()
    seconds = [later - sooner for sooner, later in pairwise(times)]
    return [Update(*both) for both in zip(seconds, loop.success, strict=True)]


def main(options: Options) -> None:
    """A line per training step, and the medians."""
    if find_spec("trl") is None:
        raise SystemExit("bench_trl: TRL is not installed: .venv/bin/pip install trl")
    if options.tasks * options.group % options.rows:
        raise ConfigError(
            f"got rows={options.rows}: expected a divisor of the {options.tasks * options.group} "
            f"episodes of a step"
        )
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(options, folder)
        ways: dict[str, Callable[[Setting], list[Update]]] = {"agentgym": here, "trl": there}
        found = {name: way(setting) for name, way in ways.items()}
    for name, updates in found.items():
        for number, update in enumerate(updates):
            print(
                f"  {name:9} step {number}: {update.seconds:7.1f} s  success {update.success:.2f}"
            )
    middle = {name: median(u.seconds for u in updates) for name, updates in found.items()}
    ratio = middle["trl"] / middle["agentgym"]
    print(
        f"median seconds per step: agentgym {middle['agentgym']:.1f}, trl {middle['trl']:.1f}: "
        f"{ratio:.2f} x"
    )
    if options.updates < WINDOW:
        return
    both = min(max(level for _, level in curve(updates)) for updates in found.values())
    spent = {name: reached(updates, both) for name, updates in found.items()}
    print(
        f"seconds until {WINDOW} steps in a row win {both:.2f}, which both do: agentgym "
        f"{spent['agentgym']:.0f}, trl {spent['trl']:.0f}: {spent['trl'] / spent['agentgym']:.2f} x"
    )


def curve(updates: Sequence[Update]) -> Iterator[tuple[float, float]]:
    """Seconds spent, and the success of the last few steps, after each step that has them."""
    for end in range(WINDOW, len(updates) + 1):
        last = updates[end - WINDOW : end]
        yield sum(u.seconds for u in updates[:end]), mean(u.success for u in last)


def reached(updates: Sequence[Update], target: float) -> float:
    """Seconds until the success of the last few steps was high enough."""
    return next(seconds for seconds, level in curve(updates) if level >= target)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
