"""One game in progress: the real interpreter beside TextWorld's own model of the environment."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import threading
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from agentgym.errors import EnvError
from agentgym_envs.textworld import text
from agentgym_envs.textworld.games import DIGEST, check, damaged, textworld_module

_OPENING_COMMANDS = ("tw-trace-actions", "tw-extra-infos score")
_LOADING = threading.Lock()
"""TextWorld reads game files with one parser per process, which two threads must not enter."""


class Story:
    """What is fixed about a game file; shared by every session that plays it."""

    def __init__(self, path: Path) -> None:
        textworld_module("textworld")
        self.rom = check(path)
        self.path = str(path)
        self.game = _load_game(path.with_suffix(".json"), self.rom)
        self.inform7 = textworld_module("textworld.generator.inform7").Inform7Game(self.game)
        self.names: dict[str, str] = {key: i.name or "" for key, i in self.game.infos.items()}
        self.list_names = tuple(filter(text.is_list, self.names.values()))
        events = self.game.kb.inform7_events
        self._events = {name: _pattern(events.get(name, "")) for name in self.game.kb.rules}
        self.max_score = max(1, int(min(self.game.max_score, 2**31)))
        signature = textworld_module("textworld.logic").Signature
        self.player_at = signature("at", ["P", "r"])
        interpreter = self.interpreter(fresh=True)
        self.opening = text.without_banner(text.parse(interpreter.opening).body)
        for line in _OPENING_COMMANDS:
            interpreter.say(line)
        self.memory = interpreter.get_state()
        """The interpreter's, at the first prompt."""
        self.release(interpreter)

    def rules_of(self, event: str) -> list[Any]:
        """The rules that TextWorld could mean by an event of the game, in its order."""
        kb = self.game.kb
        return [rule for rule in kb.rules.values() if self._events[rule.name].fullmatch(event)]

    def interpreter(self, *, fresh: bool = False) -> Any:
        """An interpreter that has loaded this game, at its start or in any state."""
        return _interpreters().take(self.path, self.rom, fresh=fresh)

    def release(self, interpreter: Any) -> None:
        """Give an interpreter back."""
        _interpreters().give(interpreter)

    def tracker(self, *, quests: bool) -> Any:
        """TextWorld's model of this game at its start, with or without its quests."""
        module = textworld_module("textworld.generator.game")
        return module.GameProgression(self.game, track_quests=quests)


def _pattern(template: str) -> re.Pattern[str]:
    """What an event's template, such as ``taking the {o}``, can look like."""
    parts = re.split(r"\{[^}]*\}", template)
    return re.compile(".+".join(map(re.escape, parts)), re.IGNORECASE)


def _interpreters() -> Any:
    return textworld_module("agentgym_envs.textworld.interpreter").INTERPRETERS


def _load_game(path: Path, rom: bytes) -> Any:
    module = textworld_module("textworld.generator.game")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
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
        EnvError: The file or its ``.json`` is damaged.
    """
    try:
        stats = path.stat(), path.with_suffix(".json").stat()
    except OSError as problem:
        raise damaged(path, problem.strerror or str(problem)) from problem
    with _LOADING:
        return _story(path, tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


@lru_cache(maxsize=256)
def _story(path: Path, stamps: tuple[tuple[int, int], ...]) -> Story:
    return Story(path)


class Session:
    """A game being played: the interpreter's memory and the logical state, in step."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.interpreter = story.interpreter()
        self.interpreter.set_state(story.memory)
        self.state = story.game.world.state.copy()
        """TextWorld's logical state."""
        self.actions: list[Any] = []
        """Logical actions that changed the environment so far."""
        self.score = 0
        self.tracked: tuple[int, Any] = (0, None)
        """The oracle's quest tracker and how many of the actions it has seen; it is slow."""

    @property
    def facts(self) -> Any:
        """Everything true now, as TextWorld's propositions."""
        return self.state.facts

    @property
    def room(self) -> str:
        """Identifier of the room the player is in."""
        (fact,) = self.state.facts_with_signature(self.story.player_at)
        return str(fact.arguments[1].name)

    def send(self, line: str) -> text.Reply:
        """Type a line and follow what it did.

        Raises:
            EnvError: The game and its logical model no longer agree.
        """
        reply = text.parse(self.interpreter.say(line))
        for event in reply.events:
            action = self._detect(event)
            # An action such as looking changes nothing, so nothing needs computing again.
            if action is not None and action.added | action.removed:
                self._apply(action)
        if reply.score is not None:
            self.score = reply.score
        if reply.room and not (reply.won or reply.lost):
            self._follow(reply.room)
        return reply

    def commands(self) -> tuple[str, ...]:
        """What the logical state allows, sorted."""
        actions = self.valid_actions()
        return tuple(sorted(set(self.story.inform7.gen_commands_from_actions(actions))))

    def fork(self) -> Self:
        """The same game in the same state, played on independently."""
        other = copy.copy(self)
        other.interpreter = self.story.interpreter()
        other.interpreter.set_state(self.interpreter.get_state())
        other.state = self.state.copy()
        other.actions = list(self.actions)
        other.tracked = (0, None)
        return other

    def close(self) -> None:
        """Give the interpreter back; a closed session is never used again."""
        if self.interpreter is not None:
            self.story.release(self.interpreter)
            self.interpreter = None

    def valid_actions(self, rules: Iterable[Any] | None = None) -> list[Any]:
        """What the logical state allows, by the given rules or by all of them."""
        kb = self.story.game.kb
        chosen = kb.rules.values() if rules is None else rules
        return list(self.state.all_applicable_actions(chosen, kb.types.constants_mapping))

    def _apply(self, action: Any) -> None:
        # Not a GameProgression: that would list every valid action of the new state, which is
        # most of the cost of a step and rarely asked for.
        self.state.apply(action)
        self.actions.append(action)

    def _detect(self, event: str) -> Any:
        """The logical action behind an event.

        TextWorld knows one event for each rule, but the game has other words for some: `get` and
        `pick up` work on things in or on something too, yet trace as plain taking.
        """
        likely = self.valid_actions(self.story.rules_of(event))
        action = self.story.inform7.detect_action(event, likely)
        if action is None and event.startswith("taking the "):
            start = f"take {event.removeprefix('taking the ')} from ".lower()
            valid = self.valid_actions()
            commands = self.story.inform7.gen_commands_from_actions(valid)
            pairs = zip(valid, commands, strict=True)
            action = next((a for a, c in pairs if c.lower().startswith(start)), None)
        return action

    def _follow(self, title: str) -> None:
        """Make the logical player go to the room of the status line.

        `enter door` moves the player without an event that TextWorld would recognise.
        """
        names = self.story.names
        if names[self.room].title() == title:
            return
        for action in self.valid_actions():
            if action.name.startswith("go/"):
                target = next(f.arguments[1].name for f in action.added if f.name == "at")
                if names[target].title() == title:
                    return self._apply(action)
        if title in {name.title() for name in names.values()}:
            raise EnvError(
                f"{self.story.path}: the game shows the player in {title!r}, its logical "
                f"model has {names[self.room]!r}"
            )
        return None
