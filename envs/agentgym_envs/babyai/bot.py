"""The oracle: the package's bot, asked from any state of an episode."""

from __future__ import annotations

from typing import Any

from agentgym_envs.babyai.levels import copied

_ENOUGH = 1_000
"""Steps after which a plan is given up."""


def plan(level: Any) -> tuple[int, ...] | None:
    """Actions that win from here; None where the bot finds none.

    The bot starts with free hands. Where it fails with full ones, it puts down what it carries.
    """
    return _played(copied(level), ()) or (
        _played(copied(level), _put_down(level)) if level.carrying else None
    )


def _played(level: Any, first: tuple[int, ...]) -> tuple[int, ...] | None:
    """Begin with given actions, continue with those of the bot; plays on the level it gets."""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    actions = []
    try:
        for action in first:
            _, reward, over, _, _ = level.step(action)
            actions.append(action)
            if over:
                return tuple(actions) if reward > 0 else None
        bot = BabyAIBot(level)
        bot.stack.clear()
        bot._process_instr(_pending(level.instrs))
        while len(actions) < _ENOUGH:
            action = int(bot.replan())
            _, reward, over, _, _ = level.step(action)
            actions.append(action)
            if over:
                return tuple(actions) if reward > 0 else None
            if action == level.actions.done:
                return None
    except Exception:
        # The bot fails by all kinds of errors where a mission cannot be completed any more.
        return None
    return None


def _pending(mission: Any) -> Any:
    """What is left of a mission."""
    from minigrid.envs.babyai.core.verifier import SeqInstr

    if not isinstance(mission, SeqInstr):
        return mission
    if mission.a_done == "success":
        return _pending(mission.instr_b)
    if mission.b_done == "success":
        return _pending(mission.instr_a)
    return mission


def _put_down(level: Any) -> tuple[int, ...]:
    """Turn to a free cell and drop what is carried there."""
    (x, y), actions = level.agent_pos, level.actions
    for turns in range(4):
        dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1))[(level.agent_dir + turns) % 4]
        if level.grid.get(int(x) + dx, int(y) + dy) is None:
            return (int(actions.right),) * turns + (int(actions.drop),)
    return ()
