"""TextWorld: generated games, played in their real interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np

from agentgym.env.base import Opening, Outcome, Progress, TextEnv, one_of
from agentgym.errors import EnvError
from agentgym_envs.textworld import games, makers, tasks, text
from agentgym_envs.textworld.engine import Session, story
from agentgym_envs.textworld.manual import MANUAL
from agentgym_envs.textworld.plan import winning_commands
from agentgym_envs.textworld.render import Scene

_GOALS = {
    "cooking": "Cook the recipe in the cookbook in the kitchen and eat the meal.",
    "coin_collector": "Find the coin and take it.",
}


class TextWorld(TextEnv):
    """Explore rooms, handle things, and reach the goal of a generated text adventure.

    A task id fully defines a game: family, settings and seed, such as
    ``cooking-r2t2o1k1c1g6-s1203`` (2 ingredients, 2 to take; with closed doors and fridge,
    cooking and cutting; 6 rooms), ``coin_collector-l7-s5``, ``treasure_hunter-l12-s9`` or
    ``simple-dense-detailed-s4``; ``file:/folder/game.z8`` plays a game of your own. Games are
    made when first needed and kept (see ``prepare``).
    """

    # TextWorld lists `prepare meal` as soon as all ingredients are carried, but its cooking games
    # refuse it until they are cooked and cut.
    admissible_exact = False

    def __init__(
        self,
        *,
        family: str = "cooking",
        difficulty: str = "easy",
        observation: Literal["terse", "full"] = "terse",
        inventory: bool | None = None,
        reward: Literal["outcome", "dense"] = "dense",
        train_games: int = 256,
        valid_games: int = 32,
        test_games: int = 64,
        **kwargs: Any,
    ) -> None:
        """Make the environment; no game is made or loaded before ``reset``.

        Args:
            family: ``cooking``, ``coin_collector``, ``treasure_hunter``, ``simple``, or ``mix``.
            difficulty: A preset, or settings codes joined by commas; see ``tasks.PRESETS``.
            observation: The game's own text, or its short form from the logical state.
            inventory: Say after each action what the player carries; in terse mode by default.
            reward: Each change of the score as a share of the largest score, or 1 for winning.
            train_games: Tasks in the split ``train``.
            valid_games: Tasks in the split ``valid``.
            test_games: Tasks in the split ``test``.
            **kwargs: See ``TextEnv``.
        """
        super().__init__(**kwargs)
        one_of("observation", observation, ("terse", "full"))
        one_of("reward", reward, ("outcome", "dense"))
        self.codes = tasks.mix(family, difficulty)
        self.terse = observation == "terse"
        self.inventory = self.terse if inventory is None else inventory
        self.dense = reward == "dense"
        self._sizes = {"train": train_games, "valid": valid_games, "test": test_games}
        self._panels: dict[str, tuple[str, ...]] = {}
        self._session: Session | None = None
        self._score = 0.0
        self._over = self._won = self._read = False

    def missing(self) -> str:
        """How to install TextWorld, if it is not there."""
        return games.missing()

    def tasks(self, split: str) -> tuple[str, ...]:
        """Consecutive seeds of the split, taking turns with families and settings."""
        if split not in self._panels:
            self._panels[split] = tasks.panel_ids(self.codes, split, self._sizes.get(split, 0))
        return self._panels[split]

    def prepare(self, tasks: Sequence[str], progress: Progress | None = None) -> None:
        """Make the games that do not exist yet, on every core."""
        makers.generate(tasks, progress=progress)

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Load the game of a task, making it first if need be. The game has no randomness."""
        played = story(games.ensure(task))
        self.close()
        self._session = Session(played)
        self._score, self._over, self._won, self._read = 0.0, False, False, False
        family = "file" if task.startswith(games.FILE_SCHEME) else tasks.parse(task).family
        goal = str(played.game.objective or "None is given.")
        first = played.opening
        if self.terse:
            goal = _short_goal(family, played.game)
            first = f"Goal: {goal}\n{text.from_room(first)}"
        return Opening(self._words(first, inventory=self.inventory), goal, family)

    def act(self, action: str) -> Outcome:
        """Send one command to the game."""
        session = self._playing()
        if self._over:
            return self._outcome("The game is over.", valid=False)
        line = text.command(action, session.story.list_names)
        if isinstance(line, text.Refused):
            return self._outcome(line.answer, valid=False)
        reply = session.send(line)
        before, self._score = self._score, session.score / session.story.max_score
        self._won, self._over = reply.won, reply.won or reply.lost
        self._read = self._read or "examining the cookbook" in reply.events
        gain = self._score - before if self.dense else float(reply.won)
        carrying = self.inventory and not self._over and "taking inventory" not in reply.events
        answer = self._words(reply.body, inventory=carrying)
        return self._outcome(answer, gain, valid=bool(reply.events))

    def manual(self) -> str:
        """The commands of TextWorld's grammar."""
        return MANUAL

    def admissible(self) -> tuple[str, ...]:
        """The commands that change or show something now, by TextWorld's logical state."""
        return () if self._over else self._playing().commands()

    def oracle(self) -> tuple[str, ...] | None:
        """Commands that win from here, by TextWorld's quest tracking; None when none are known."""
        return None if self._over else winning_commands(self._playing(), read=self._read)

    def fork(self) -> Self:
        """The same game at the same point, with an interpreter of its own."""
        other = self.shallow_copy()
        other._session = self._session.fork() if self._session else None
        return other

    def close(self) -> None:
        """Free the interpreter."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _playing(self) -> Session:
        if self._session is None:
            raise EnvError("no TextWorld game is running; call reset() first")
        return self._session

    def _words(self, body: str, *, inventory: bool) -> str:
        """What the agent reads of the game's words, with what it carries if that is wanted."""
        described = self.terse and text.describes_room(body)
        scene = self._scene() if described or inventory else None
        room = scene.look() if scene and described else ""
        answer = text.terse(body, room) if self.terse else text.full(body)
        carried = scene.inventory() if scene and inventory else ""
        return f"{answer}\n{carried}" if carried else answer

    def _scene(self) -> Scene:
        session = self._playing()
        return Scene(session.facts, session.story.names)

    def _outcome(self, answer: str, reward: float = 0.0, *, valid: bool) -> Outcome:
        # The contract: 1 exactly when won. Some games let a player lose with every point made.
        score = 1.0 if self._won else min(max(self._score, 0.0), 0.99)
        return Outcome(answer, reward, score, self._won, self._over, valid)


def _short_goal(family: str, game: Any) -> str:
    """The goal without the chatter around it."""
    if family == "treasure_hunter":
        taking = game.quests[0].win_events[0].actions[-1]
        wanted = next(fact.arguments[0].name for fact in taking.added if fact.name == "in")
        return f"Find the {game.infos[wanted].name} and take it."
    return _GOALS.get(family) or str(game.objective or "None is given.")
