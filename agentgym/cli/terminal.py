"""Environments at the terminal: play one, or list them."""

from __future__ import annotations

import inspect
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentgym.env import schemes
from agentgym.env.base import SPLITS, TextEnv
from agentgym.env.registry import arguments, environments, make
from agentgym.errors import ConfigError, MissingExtra
from agentgym.evaluation.record_files import append, read_episodes
from agentgym.evaluation.records import EpisodeRecord
from agentgym.experiment.sources import EnvSource
from agentgym.rollout.without_model import NOTHING
from agentgym.types import Stop, Task, Trajectory, Turn


def play_in_terminal(
    source: EnvSource,
    *,
    task: str | None,
    seed: int,
    console: Console,
    oracle: bool = False,
    record: Path | None = None,
) -> int:
    """Play one episode, an action per line; returns the exit status.

    Args:
        source: The environment.
        task: Task id; None lets the seed draw one.
        seed: Seed of the episode.
        console: Where it is shown.
        oracle: Show how the environment's oracle plays instead of asking for actions.
        record: File to which the finished episode is added, if any.
    """
    game = source.make()
    options = {} if task is None else {"task": task}
    opening, info = game.reset(seed=seed, options=options)
    if record is not None:
        # Evaluations play every task with seed 0.
        opening, info = game.reset(seed=0, options={"task": info["task_id"]})
    observation, turns = opening, list[Turn]()
    world = game.unwrapped
    assert isinstance(world, TextEnv)
    console.print(f"{info['task_id']}  (:hint, :actions, :quit)", style="dim", highlight=False)
    if info["goal"] not in observation:
        console.print(info["goal"], style="bold", highlight=False, markup=False)
    console.print(observation, highlight=False, markup=False)
    moves = iter(world.oracle() or ()) if oracle else None
    ended = False
    while not ended:
        line = _ask(console) if moves is None else next(moves, ":quit")
        if moves is not None:
            console.print(f"> {line}", style="bold", highlight=False, markup=False)
        if line == ":quit":
            break
        if line in (":hint", ":actions"):
            known = world.oracle() if line == ":hint" else world.admissible()
            shown = (known or ("(none known)",))[: 1 if line == ":hint" else None]
            console.print(", ".join(shown), style="dim", highlight=False, markup=False)
            continue
        if line.startswith(":"):
            console.print("commands: :hint, :actions, :quit", style="dim", highlight=False)
            continue
        observation, reward, done, cut, info = game.step(line)
        valid = bool(info["action_valid"])
        turns.append(Turn((), NOTHING, line, observation, float(reward), valid=valid))
        ended = done or cut
        console.print(observation, highlight=False, markup=False)
    end = "won" if info["won"] else "not won"
    console.print(f"score {info['score']:.2f}, {end}", style="bold", highlight=False)
    if record is not None and ended:
        played = Task(source.id, str(info["task_id"]))
        _record(record, played, opening, turns, info, Stop.TERMINATED if done else Stop.MAX_TURNS)
        console.print(f"recorded in {record}", highlight=False, markup=False, soft_wrap=True)
    game.close()
    return 0


def _record(
    path: Path, task: Task, opening: str, turns: list[Turn], info: dict[str, Any], stop: Stop
) -> None:
    """Add an episode to a file, as the next one of its task."""
    records = read_episodes(path) if path.exists() else ()
    episode = Trajectory(
        task,
        sum(each.key[0] == task for each in records),
        str(info["goal"]),
        opening,
        tuple(turns),
        stop,
        float(info["score"]),
        bool(info["won"]),
        str(info.get("task_type", "")),
    )
    append(path, EpisodeRecord.of(episode))


def _ask(console: Console) -> str:
    """The next line; the end of the input leaves."""
    try:
        return console.input("> ")
    except (EOFError, KeyboardInterrupt):
        return ":quit"


def print_environments(console: Console) -> None:
    """Print a row per registered environment, then how to install those that lack a package."""
    table = Table()
    for name in ("environment", "splits (tasks)", "turn limit", "installed"):
        table.add_column(name, no_wrap=name != "splits (tasks)")
    lacking: dict[str, str] = {}
    for id_ in environments():
        counts, problem = _state(id_)
        limit = gymnasium.spec(id_).max_episode_steps
        turns = "" if limit is None else f"{limit} turns"
        table.add_row(id_, escape(counts), turns, "no" if problem else "yes")
        if problem:
            lacking[id_] = problem
    console.print(table)
    console.print(_kinds())
    for id_, problem in lacking.items():
        # In full, whatever the width: the command is there to be copied.
        console.print(f"{id_}: {problem}", highlight=False, markup=False, soft_wrap=True)


def print_arguments(env: str, console: Console) -> None:
    """Print a row per keyword argument of an environment.

    Raises:
        ConfigError: There is no such environment.
        MissingExtra: The environment's own package is not installed.
    """
    table = Table(title=f"arguments of {env}")
    for name in ("argument", "type", "default"):
        table.add_column(name, no_wrap=name == "argument")
    for each in arguments(env):
        default = "" if each.default is inspect.Parameter.empty else repr(each.default)
        table.add_row(each.name, escape(each.type), escape(default))
    console.print(table)


def _kinds() -> Table:
    """A row per kind of foreign environment, with what it cannot promise."""
    table = Table(title="environments of other libraries")
    for name in ("name", "what stands behind the colon", "does not promise"):
        table.add_column(name, no_wrap=name == "name")
    for kind, scheme in schemes.SCHEMES.items():
        adapter: Any = load_env_creator(scheme.entry_point)
        table.add_row(f"{kind}:...", scheme.target, ", ".join(adapter.promises.lacking))
    return table


def _state(id_: str) -> tuple[str, str]:
    """Task counts of an environment, and what it lacks; one of them is empty."""
    try:
        env = make(id_)
        world = env.unwrapped
        missing = world.missing() if isinstance(world, TextEnv) else ""
        counts = _counts(world) if isinstance(world, TextEnv) else ""
        env.close()
    except (MissingExtra, ModuleNotFoundError) as problem:
        return "", str(problem)
    return counts, missing


def _counts(world: TextEnv) -> str:
    counts = []
    for split in SPLITS:
        with suppress(ConfigError):
            counts.append(f"{split} {len(world.tasks(split))}")
    return ", ".join(counts)
