"""The oracle: commands that win from the current state of a session."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from agentgym_envs.textworld.engine import Session, Story
from agentgym_envs.textworld.render import Scene

READ = "examine cookbook"


def winning_commands(session: Session, *, read: bool) -> tuple[str, ...] | None:
    """Commands that win from here, or None when none are known.

    TextWorld's quest tracking finds it, except for games with a limited inventory, which it
    cannot follow: there it is the walkthrough, after undoing whatever led away from it.

    TextWorld's plans know the recipe without having read it. A demonstration should not, so
    until the cookbook has been read, plans begin by going there and reading it.

    Args:
        session: The game.
        read: The cookbook has been read.
    """
    tracked = _tracked(session)
    if tracked.winning_policy is None:
        return _along_the_walkthrough(session, read=read)
    first = () if read else _reading(session)
    if first:
        tracked = tracked.copy()
        for action in _actions(session.story, tracked, first):
            tracked.update(action)
    policy = tracked.winning_policy
    if not policy:
        return None
    return (*first, *session.story.inform7.gen_commands_from_actions(policy))


def _tracked(session: Session) -> Any:
    """The quest tracker, brought up to date: it costs ten milliseconds an action."""
    seen, tracked = session.tracked
    tracked = tracked or session.story.tracker(quests=True)
    for action in session.actions[seen:]:
        tracked.update(action)
    session.tracked = (len(session.actions), tracked)
    return tracked


def _actions(story: Story, progression: Any, commands: Iterable[str]) -> Iterable[Any]:
    """The logical actions of commands, as long as the caller carries out each."""
    for command in commands:
        valid = progression.valid_actions
        named = zip(valid, story.inform7.gen_commands_from_actions(valid), strict=True)
        action = next((action for action, name in named if name == command), None)
        if action is not None and action.added | action.removed:
            yield action


def _reading(session: Session) -> tuple[str, ...]:
    """Go to the cookbook and read it; nothing in a game without one."""
    names = session.story.names
    book = next((key for key, name in names.items() if name == "cookbook"), None)
    if book is None:
        return ()
    scene = Scene(session.facts, names)
    holder = scene.holder(book)
    if holder == "I":
        return (READ,)
    shut = f"open {names[holder]}" if "closed" in scene.states[holder] else ""
    path = _path(scene, holder if holder in scene.exits else scene.holder(holder))
    return () if path is None else tuple(filter(None, (*path, shut, READ)))


def _path(scene: Scene, goal: str) -> tuple[str, ...] | None:
    """The fewest rooms from here to there, opening doors on the way."""
    paths: dict[str, tuple[str, ...]] = {scene.room: ()}
    queue = deque(paths)
    while queue:
        here = queue.popleft()
        if here == goal:
            return paths[here]
        for way, there in sorted(scene.exits[here].items()):
            door = scene.doors.get((here, there), "")
            if there in paths or "locked" in scene.states[door]:
                continue
            opening = (f"open {scene.names[door]}",) if "closed" in scene.states[door] else ()
            paths[there] = (*paths[here], *opening, f"go {way}")
            queue.append(there)
    return None


def _along_the_walkthrough(session: Session, *, read: bool) -> tuple[str, ...] | None:
    """The rest of the walkthrough, after undoing what was done since the last state on it."""
    story = session.story
    commands, states = _walkthrough(story)
    state = story.game.world.state.copy()
    detour: list[Any] = []
    where = states.get(frozenset(state.facts))
    for action in session.actions:
        state.apply(action)
        detour.append(action)
        found = states.get(frozenset(state.facts))
        if found is not None:
            where, detour = found, []
    back = [story.game.kb.get_reverse_action(action) for action in reversed(detour)]
    if where is None or where == len(commands) or None in back:
        return None
    if not read and where and commands[where - 1] == READ:
        where -= 1  # reading changes no fact, so the same facts hold before and after it
    rest = (command for command in commands[where:] if not (read and command == READ))
    return (*story.inform7.gen_commands_from_actions(back), *rest)


@lru_cache(maxsize=32)
def _walkthrough(story: Story) -> tuple[tuple[str, ...], dict[frozenset[Any], int]]:
    """The walkthrough without what does nothing, and the facts before each of its commands."""
    progression = story.tracker(quests=False)
    commands: list[str] = []
    states = {frozenset(progression.state.facts): 0}
    for command in story.game.metadata.get("walkthrough") or ():
        if command == READ:
            commands.append(command)
        for action in _actions(story, progression, [command]):
            progression.update(action)
            commands.append(command)
        states[frozenset(progression.state.facts)] = len(commands)
    return tuple(commands), states
