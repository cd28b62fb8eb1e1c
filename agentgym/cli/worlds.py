"""`agentgym envs`, `play`, `check` and `new-env`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agentgym.cli.parsing import parse
from agentgym.experiment.sources import EnvSource
from agentgym.settings import WORLD, CheckSettings, UserSettings, Value
from agentgym.utils.progress import Display


@dataclass(frozen=True, kw_only=True)
class EnvsOptions:
    """List the environments: id, splits with task counts, turn limit, and what is installed.

    `agentgym envs ENV` lists the arguments of one, for `--env-args`.
    """

    env: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")] = None
    """Environment id, short name, or `file.py:ClassName`; unset: all."""


def envs(arguments: list[str]) -> int:
    """``envs [ENV]``."""
    options = parse(EnvsOptions, arguments, prog="agentgym envs")
    from agentgym.cli.terminal import print_arguments, print_environments

    if options.env is None:
        print_environments(Console())
    else:
        print_arguments(options.env, Console())
    return 0


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """Play an environment yourself.

    `:hint` shows the oracle's next action, `:actions` the admissible actions, `:quit` leaves.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")] = WORLD
    """Environment id, short name, `file.py:ClassName`, or one of another library; see
    `agentgym envs`."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the environment, such as `family cooking difficulty easy`;
    `agentgym envs ENV` lists them."""
    data: Path | None = None
    """File of tasks, passed to the environment as its argument `data`."""
    tools: tuple[str, ...] = ()
    """Functions to call in addition to the actions, as `file.py:function` or `module:function`."""
    user: UserSettings = field(default_factory=UserSettings)
    """A simulated user, to ask or to talk to."""
    task: str | None = None
    """Task id; unset: the seed draws one."""
    seed: int = 0
    """Seed of the task and of everything random in it."""
    oracle: bool = False
    """Show how the oracle plays instead of asking for actions."""
    record: Path | None = None
    """Add the finished episode to this file; `agentgym eval replay:FILE` measures its player."""


def play(arguments: list[str]) -> int:
    """``play [ENV] [options]``."""
    options = parse(PlayOptions, arguments, prog="agentgym play")
    from agentgym.cli.terminal import play_in_terminal

    source = EnvSource(
        env=options.env, kwargs=options.env_args, tools=options.tools, user=options.user
    )
    return play_in_terminal(
        source,
        task=options.task,
        seed=options.seed,
        console=Console(),
        oracle=options.oracle,
        record=options.record,
    )


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Check everything that training and evaluation rely on in an environment.

    `check openenv:URL` audits any OpenEnv server.

    Prints a row per check: passed, failed with the reason, or skipped with the reason. The exit
    status is 0 when no check failed, 1 otherwise.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """Environment id, short name, `file.py:ClassName`, or one of another library, such as
    `openenv:URL` or `gym:ID`; see `agentgym envs`."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the environment; small settings make the check quick."""
    data: Path | None = None
    """File of tasks, passed to the environment as its argument `data`."""
    effort: CheckSettings = field(default_factory=CheckSettings)
    """How much work the checks do."""
    report: Path | None = None
    """File for the findings as JSON, with the verdicts by OpenEnv's names."""


def check(arguments: list[str]) -> int:
    """``check ENV [options]``."""
    options = parse(CheckOptions, arguments, prog="agentgym check")
    from agentgym.testing.terminal import check_in_terminal

    return check_in_terminal(
        options.env, options.env_args, options.effort, Display(Console()), options.report
    )


@dataclass(frozen=True, kw_only=True)
class NewEnvOptions:
    """Write a package with a small environment, an entry point and a test, ready to edit."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Lower-case words joined by hyphens, such as lost-key."""
    into: Path = Path()
    """Folder in which the package is created."""


def new_env(arguments: list[str]) -> int:
    """``new-env NAME [options]``."""
    options = parse(NewEnvOptions, arguments, prog="agentgym new-env")
    from agentgym.cli.scaffold import new_environment

    env, folder = new_environment(options.name, options.into)
    print(
        f"wrote {folder}; next:\n"
        f"  pip install -e {folder}\n"
        f"  agentgym check {env}\n"
        f"  agentgym play {env}\n"
        f"  agentgym train --env {env}"
    )
    return 0
