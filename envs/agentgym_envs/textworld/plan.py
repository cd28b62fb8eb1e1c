"""The oracle: commands that win from the current state of a session."""

from __future__ import annotations

from agentgym_envs.textworld.engine import Session
from agentgym_envs.textworld.games import textworld_module


def winning_commands(session: Session, *, read: bool) -> tuple[str, ...] | None:
    """TextWorld's winning policy from here.

    Args:
        session: The game.
        read: The cookbook has been read.
    """
    story = session.story
    tracked = textworld_module("textworld.generator.game").GameProgression(story.game)
    for action in session.actions:
        tracked.update(action)
    policy = tracked.winning_policy
    if policy is None:
        return tuple(story.game.walkthrough or ()) or None if not session.actions else None
    return tuple(story.inform7.gen_commands_from_actions(policy))
