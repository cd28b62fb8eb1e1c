"""ALFWorld's own engine, TextWorld's PDDL planner, given the same commands as ours.

Only for differential tests and benchmarks: it needs the extra ``alfworld-reference`` and is some
thousand times slower.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from agentgym.errors import MissingExtra
from agentgym_envs.alfworld import engine, goals
from agentgym_envs.alfworld.game import Game
from agentgym_envs.alfworld.tables import ENV


class Answer(NamedTuple):
    """The answer of an engine to a command."""

    text: str
    commands: tuple[str, ...]
    """Admissible ones, sorted."""
    won: bool


class Reference:
    """A game file in the reference engine."""

    def __init__(self, path: Path) -> None:
        textworld, environment = _modules()
        infos = textworld.EnvInfos(admissible_commands=True, won=True)
        self.env = environment.AlfredDemangler(textworld.envs.PddlEnv(infos))
        with _arguments_kept():
            self.env.load(str(path))

    def reset(self) -> Answer:
        """The first observation."""
        with _arguments_kept():
            return _answer(self.env.reset())

    def step(self, command: str) -> Answer:
        """The answer to a command."""
        return _answer(self.env.step(command)[0])


class Ours:
    """A game in our engine, behind the same two questions. It goes on after winning, too."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.state = game.start

    def reset(self) -> Answer:
        """The first observation."""
        self.state = self.game.start
        return self._answer(engine.opening(self.game))

    def step(self, command: str) -> Answer:
        """The answer to a command."""
        move = engine.moves(self.game, self.state).get(command.strip())
        if move is None:
            return self._answer(engine.NOTHING_HAPPENS)
        self.state, answer = engine.do(self.game, self.state, move)
        return self._answer(answer)

    def _answer(self, answer: str) -> Answer:
        done, wanted = goals.progress(self.game, self.state)
        commands = tuple(sorted(engine.moves(self.game, self.state)))
        return Answer(answer, commands, done == wanted)


def difference(ours: Answer, theirs: Answer) -> str:
    """Where two answers part; empty when they are equal."""
    if ours.text != theirs.text:
        return f"text: ours {ours.text!r}, theirs {theirs.text!r}"
    if ours.commands != theirs.commands:
        odd = sorted(set(ours.commands) ^ set(theirs.commands))
        return f"admissible commands: only one engine has {odd}"
    return "" if ours.won == theirs.won else f"won: ours {ours.won}, theirs {theirs.won}"


def _answer(state: Any) -> Answer:
    return Answer(state.feedback, tuple(state.admissible_commands), bool(state.won))


@cache
def _modules() -> tuple[Any, Any]:
    """TextWorld and ALFWorld's wrappers, imported without their side effects."""
    before = os.environ.get("ALFWORLD_DATA")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALFWORLD_DATA"] = folder
        try:
            import_module("fast_downward")
            import_module("textworld.envs")
            wrappers = import_module("alfworld.agents.environment.alfred_tw_env")
        except ModuleNotFoundError as missing:
            raise MissingExtra(
                f"{ENV}'s reference engine lacks {missing.name}: "
                f"pip install 'agentic-gym[alfworld-reference]'"
            ) from missing
        finally:
            os.environ.pop("ALFWORLD_DATA", None)
            if before is not None:
                os.environ["ALFWORLD_DATA"] = before
    return import_module("textworld"), wrappers


@contextmanager
def _arguments_kept() -> Iterator[None]:
    """The planner's translator overwrites the arguments of the process."""
    before = sys.argv
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def parsing_once() -> Iterator[None]:
    """Let the reference engine parse and translate each text once, not at each use.

    Its answers stay the same and come several times faster; without this, large comparisons take
    hours.
    """
    _modules()
    texts: Any = import_module("textworld.envs.pddl.textgen")
    rules: Any = import_module("textworld.logic").Rule
    planner: Any = import_module("fast_downward")
    before = texts._parse_and_convert, rules.parse_conjunctive_query, planner.pddl2sas
    parse, query = cache(before[0]), cache(before[1])

    def parse_once(text: str, rule_name: str, **_: Any) -> Any:
        # The engine writes into what it was given.
        return copy.deepcopy(parse(text, rule_name=rule_name))

    texts._parse_and_convert = parse_once
    rules.parse_conjunctive_query = staticmethod(query)
    planner.pddl2sas = lru_cache(maxsize=4)(before[2])
    try:
        yield
    finally:
        texts._parse_and_convert, rules.parse_conjunctive_query, planner.pddl2sas = before
