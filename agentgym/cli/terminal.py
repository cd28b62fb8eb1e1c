"""Worlds at the terminal: a person plays one, or looks at what there is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gymnasium
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentgym.env.base import SPLITS, TextEnv
from agentgym.env.registry import environments, make
from agentgym.errors import ConfigError, MissingExtra


def play_in_terminal(
    env: str,
    env_args: Mapping[str, Any],
    *,
    task: str | None,
    seed: int,
    console: Console,
    oracle: bool = False,
) -> int:
    """One episode, a line at a time; returns the exit status.

    Args:
        env: Environment id.
        env_args: Its keyword arguments.
        task: Task id; None lets the seed draw one.
        seed: Seed of the episode.
        console: Where it is shown.
        oracle: Show how the environment's oracle plays instead of asking for actions.
    """
    game = make(env, **env_args)
    options = {} if task is None else {"task": task}
    observation, info = game.reset(seed=seed, options=options)
    world = game.unwrapped
    assert isinstance(world, TextEnv)
    console.print(f"{info['task_id']}  (:hint, :actions, :quit)", style="dim", highlight=False)
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
        observation, _, done, cut, info = game.step(line)
        ended = done or cut
        console.print(observation, highlight=False, markup=False)
    end = "won" if info["won"] else "not won"
    console.print(f"score {info['score']:.2f}, {end}", style="bold", highlight=False)
    game.close()
    return 0


def _ask(console: Console) -> str:
    """The next line; the end of the input leaves."""
    try:
        return console.input("> ")
    except (EOFError, KeyboardInterrupt):
        return ":quit"


def listing() -> Table:
    """A row per registered world."""
    table = Table()
    for name in ("world", "splits (tasks)", "horizon", "installed"):
        table.add_column(name)
    for id_ in environments():
        horizon = gymnasium.spec(id_).max_episode_steps
        # `pip install 'agentic-gym[extra]'` is no markup.
        table.add_row(id_, *map(escape, _row(id_, horizon)))
    return table


def _row(id_: str, horizon: int | None) -> tuple[str, str, str]:
    turns = "" if horizon is None else f"{horizon} turns"
    try:
        env = make(id_)
        world = env.unwrapped
        counts = _counts(world) if isinstance(world, TextEnv) else ""
        missing = world.missing() if isinstance(world, TextEnv) else ""
        env.close()
    except (MissingExtra, ModuleNotFoundError) as problem:
        return "", turns, f"no: {problem}"
    return counts, turns, f"no: {missing}" if missing else "yes"


def _counts(world: TextEnv) -> str:
    counts = []
    for split in SPLITS:
        with suppress(ConfigError):
            counts.append(f"{split} {len(world.tasks(split))}")
    return ", ".join(counts)
