"""One game in progress: the real interpreter beside TextWorld's own model of the world."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from agentgym.errors import WorldError
from agentgym_envs.textworld import text
from agentgym_envs.textworld.games import DIGEST, check, damaged, textworld_module

_IDLE = 16
_OPENING_COMMANDS = ("tw-trace-actions", "tw-extra-infos score")


class Interpreters:
    """Idle interpreters, because starting one copies and maps a library (milliseconds)."""

    def __init__(self, keep: int = _IDLE) -> None:
        self._idle: deque[tuple[str, Any]] = deque(maxlen=keep)
        self._lock = threading.Lock()

    def take(self, path: str) -> Any:
        """An interpreter that has loaded a game, in whatever state it was left.

        Raises:
            WorldError: The interpreter's library cannot be copied, or the file is gone.
        """
        with self._lock:
            same = next((pair for pair in self._idle if pair[0] == path), None)
            found = same or (self._idle[0] if len(self._idle) == self._idle.maxlen else None)
            if found:
                self._idle.remove(found)
        try:
            if not found:
                return textworld_module("jericho").FrotzEnv(path, -1)
            if not same:
                found[1].load(path, -1)
                found[1]._cache = {path: found[1]._cache[path]}  # else it keeps every game it saw
            return found[1]
        except OSError as problem:
            raise WorldError(
                f"cannot start the interpreter for {path}: {problem.strerror or problem}; "
                "it needs room in the folder for temporary files"
            ) from problem

    def give(self, path: str, interpreter: Any) -> None:
        """Take back an interpreter that nobody uses any more."""
        with self._lock:
            self._idle.append((path, interpreter))


INTERPRETERS = Interpreters()


class Story:
    """What is fixed about a game file; shared by every session that plays it."""

    def __init__(self, path: Path) -> None:
        rom, self.path = check(path), str(path)
        self.game = _load_game(path.with_suffix(".json"), rom)
        self.inform7 = textworld_module("textworld.generator.inform7").Inform7Game(self.game)
        self.progression = textworld_module("textworld.generator.game").GameProgression(
            self.game, track_quests=False
        )
        self.names = {key: info.name or "" for key, info in self.game.infos.items()}
        self.max_score = max(1, int(min(self.game.max_score, 2**31)))
        interpreter = INTERPRETERS.take(self.path)
        self.opening = text.parse(interpreter.reset()[0])
        for line in _OPENING_COMMANDS:
            interpreter.step(line)
        self.state = interpreter.get_state()
        INTERPRETERS.give(self.path, interpreter)


def _load_game(path: Path, rom: bytes) -> Any:
    module = textworld_module("textworld.generator.game")
    try:
        facts = json.loads(path.read_text())
        digest = facts["metadata"].get(DIGEST)
        game = module.Game.deserialize(facts)
    except Exception as problem:  # whatever TextWorld stumbles over in a file that is not its own
        raise damaged(path, f"{type(problem).__name__}: {problem}".splitlines()[0]) from problem
    if digest not in (None, hashlib.sha256(rom).hexdigest()):
        raise damaged(path.with_suffix(".z8"), "digest differs")
    return game


def story(path: Path) -> Story:
    """The parsed game of a file, from memory unless the file has changed.

    Raises:
        WorldError: The file or its ``.json`` is damaged.
    """
    try:
        stamps = tuple(
            (stat.st_mtime_ns, stat.st_size)
            for stat in (path.stat(), path.with_suffix(".json").stat())
        )
    except OSError as problem:
        raise damaged(path, problem.strerror or str(problem)) from problem
    return _story(path, stamps)


@lru_cache(maxsize=256)
def _story(path: Path, stamps: tuple[tuple[int, int], ...]) -> Story:
    return Story(path)


class Session:
    """A game being played: the interpreter's memory and the logical state, in step."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.interpreter: Any = INTERPRETERS.take(story.path)
        self.interpreter.set_state(story.state)
        self.progression = _branch(story.progression)
        self.actions: list[Any] = []
        """Logical actions that changed the world so far."""
        self.score = 0

    @property
    def facts(self) -> Any:
        """Everything true now, as TextWorld's propositions."""
        return self.progression.state.facts

    def send(self, line: str) -> text.Reply:
        """Type a line and follow what it did.

        Raises:
            WorldError: The game and its logical model no longer agree.
        """
        reply = text.parse(self.interpreter.step(line)[0])
        for event in reply.events:
            action = self._detect(event)
            # An action such as looking changes nothing, so nothing needs computing anew.
            if action is not None and action.added | action.removed:
                self._apply(action)
        if reply.score is not None:
            self.score = reply.score
        if reply.room and not (reply.won or reply.lost):
            self._follow(reply.room)
        return reply

    def commands(self) -> tuple[str, ...]:
        """What the logical state allows, sorted."""
        actions = self.progression.valid_actions
        return tuple(sorted(set(self.story.inform7.gen_commands_from_actions(actions))))

    def fork(self) -> Self:
        """The same game in the same state, played on independently."""
        other = copy.copy(self)
        other.interpreter = INTERPRETERS.take(self.story.path)
        other.interpreter.set_state(self.interpreter.get_state())
        other.progression = _branch(self.progression)
        other.actions = list(self.actions)
        return other

    def close(self) -> None:
        """Give the interpreter back; a closed session is never used again."""
        if self.interpreter is not None:
            INTERPRETERS.give(self.story.path, self.interpreter)
            self.interpreter = None

    def room(self) -> Any:
        """The variable of the room the player is in."""
        return next(
            fact.arguments[1]
            for fact in self.facts
            if fact.name == "at" and fact.arguments[0].type == "P"
        )

    def _apply(self, action: Any) -> None:
        self.progression.update(action)
        self.actions.append(action)

    def _detect(self, event: str) -> Any:
        """The logical action behind an event.

        TextWorld knows one event for each rule, but the game has other words for some: `get` and
        `pick up` work on things in or on something too, yet trace as plain taking.
        """
        valid = self.progression.valid_actions
        action = self.story.inform7.detect_action(event, valid)
        if action is None and event.startswith("taking the "):
            start = f"take {event.removeprefix('taking the ')} from ".lower()
            commands = self.story.inform7.gen_commands_from_actions(valid)
            matches = (a for a, c in zip(valid, commands, strict=True) if c.startswith(start))
            action = next(matches, None)
        return action

    def _follow(self, title: str) -> None:
        """Make the logical player go where the status line says the player is.

        `enter door` moves the player without an event that TextWorld would recognise.
        """
        names = self.story.names
        if names[self.room().name].title() == title:
            return
        for action in self.progression.valid_actions:
            if action.name.startswith("go/"):
                target = next(f.arguments[1] for f in action.added if f.name == "at")
                if names[target.name].title() == title:
                    return self._apply(action)
        known = {name.title() for name in names.values()}
        if title in known:
            raise WorldError(
                f"{self.story.path}: the game says the player is in {title!r}, its logical "
                f"model says {names[self.room().name]!r}"
            )
        return None


def _branch(progression: Any) -> Any:
    """A copy that shares what is never changed in place.

    ``GameProgression.copy`` would compute the valid actions of the first state once more.
    """
    other = copy.copy(progression)
    other.state = progression.state.copy()
    return other
