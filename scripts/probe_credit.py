"""How well GRPO, GiGPO, EMPG, EPO and PPO rank the turns of episodes, against turn values.

    scripts/probe-credit CHECKPOINT [--tasks 8] [--group 8] [--critic-steps 8] [--out FILE]

Plays a group of episodes of each of some training tasks with the checkpoint of a run, estimates the
value of every state (`agentgym probe`), computes the credit that each method gives to every turn of
the same episodes, and prints a table of rank correlations with the change of the value. The critic
of PPO is trained on further episodes of the same policy, which stays as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.batch.collate import collate
from agentgym.evaluation.records import EpisodeRecord
from agentgym.experiment.assemble import engines_of, executor_of
from agentgym.experiment.job import Job, run_info
from agentgym.experiment.plan import algorithm_settings, load_plan
from agentgym.experiment.probe_processes import Work, default_processes, values_of_tasks
from agentgym.experiment.run_folder import RunFolder
from agentgym.models.policy import Policy
from agentgym.probe.continuations import Effort, Valued, widest
from agentgym.probe.credit import agreement, turn_credit
from agentgym.probe.files import ValuedEpisode, write_values
from agentgym.rollout.collect import independent
from agentgym.rollout.player import Player
from agentgym.settings import Experiment, OptimizerSettings
from agentgym.training.learner import Learner
from agentgym.training.trainer import Trainer, task_of
from agentgym.types import Task, Trajectory
from agentgym.utils.concurrency import gather
from agentgym.utils.progress import Display

METHODS = ("grpo", "gigpo", "empg", "epo", "ppo")
FROZEN = OptimizerSettings(learning_rate=0.0)
"""The policy stays; a critic has a learning rate of its own."""

Groups = list[list[Trajectory]]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser, effort = argparse.ArgumentParser(description=__doc__.partition("\n")[0]), Effort()
    parser.add_argument("checkpoint", type=Path, help="such as RUN/checkpoints/warm")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--group", type=int, default=8, help="episodes of each task")
    parser.add_argument("--half-width", type=float, default=effort.half_width)
    parser.add_argument("--most", type=int, default=effort.most, help="from one state")
    parser.add_argument("--processes", type=int, help="unset: one per core")
    parser.add_argument("--critic-steps", type=int, default=8, help="steps of PPO's critic")
    parser.add_argument("--out", type=Path, help="file of the turn values")
    return parser.parse_args()


async def main() -> None:
    """Play, probe, credit, compare."""
    options = arguments()
    folder = RunFolder.of_checkpoint(options.checkpoint)
    if folder is None:
        raise SystemExit(f"{options.checkpoint} is no checkpoint of a run")
    experiment = load_plan(folder.config).experiment
    engines = engines_of(experiment)
    async with executor_of(experiment.rollout) as executor, engines:
        job = Job(experiment, folder, display=Display(), executor=executor, engines=engines)
        tokenizer, model = job.trainable(options.checkpoint)
        player = job.player(tokenizer, model, "credit")
        known = job.panel("train").tasks
        tasks = [task_of(known, place, experiment.seed) for place in range(options.tasks)]
        job.prepare("train", tasks)
        groups = await _play(player, tasks, options.group)
        start = time.perf_counter()
        valued = _truth(player, groups, experiment, options)
        truth = [episode for each in valued for episode in each.episodes]
        _state(truth, valued, time.perf_counter() - start)
        if options.out is not None:
            write_values(options.out, {"policy": str(options.checkpoint), "own": True}, truth)
        print("| method | pooled | within an episode | episodes |\n|---|---|---|---|")
        for name in METHODS:
            critic = options.critic_steps if name == "ppo" else 0
            found = await _credit(name, experiment, model, player, groups, known, critic)
            pooled, within, count = agreement(found, truth)
            shown = f"{within:+.2f}" if count else "the same for all turns"
            print(f"| {name} | {pooled:+.2f} | {shown} | {count} |", flush=True)


async def _play(player: Player, tasks: list[Task], size: int) -> Groups:
    groups = await gather(independent(size)(task, player) for task in tasks)
    scored = [[t for t in group if t.stop.scored and t.turns] for group in groups]
    return [group for group in scored if group]


def _truth(
    player: Player, groups: Groups, experiment: Experiment, options: argparse.Namespace
) -> list[Valued]:
    work = Work(
        experiment=experiment,
        policy=str(options.checkpoint),
        effort=Effort(half_width=options.half_width, most=options.most),
        own=True,
        groups=[
            [EpisodeRecord.of(each, decode=player.agent.decode) for each in group]
            for group in groups
        ],
    )
    processes = options.processes or default_processes(experiment, len(groups))
    print(f"valuing the turns of {len(groups)} tasks in {processes} processes", flush=True)
    found = {}
    for number, valued in values_of_tasks(work, processes):
        found[number] = valued
        print(f"{len(found)} of {len(groups)} tasks", flush=True)
    return [found[number] for number in range(len(groups))]


def _state(truth: list[ValuedEpisode], valued: list[Valued], seconds: float) -> None:
    widths = np.array([widest(episode.values) for episode in truth])
    states = sum(each.states for each in valued)
    played = sum(each.continuations for each in valued)
    won = np.mean([episode.won for episode in truth])
    print(
        f"{len(truth)} episodes ({won:.2f} won), {states} states, {played} continuations, "
        f"{seconds:.0f} s; half widths: median {np.median(widths):.3f}, largest "
        f"{widths.max():.3f}\n",
        flush=True,
    )


async def _credit(
    name: str,
    experiment: Experiment,
    model: Any,
    player: Player,
    groups: Groups,
    known: tuple[Task, ...],
    critic_steps: int,
) -> list[Any]:
    """The credit of each turn, by episode."""
    algorithm = algorithm_settings(name).build(run_info(experiment))
    policy = Policy(copy.deepcopy(model), temperature=experiment.rollout.temperature)
    learner = Learner(policy, FROZEN, seed=0, horizon=max(1, critic_steps))
    if critic_steps:
        trainer = Trainer(algorithm, learner, replace(player, stream="critic"))
        for step in range(critic_steps):
            size = len(groups)
            tasks = [task_of(known, 10_000 + step * size + k, 0) for k in range(size)]
            await trainer.run_step(tasks)
    else:
        learner.attach(algorithm)
    batch = learner.observe(collate(groups))
    batch, _ = algorithm.credit.apply(batch, algorithm.credit.init(), 0)
    return turn_credit(batch, [len(t.turns) for group in groups for t in group])


if __name__ == "__main__":
    asyncio.run(main())
