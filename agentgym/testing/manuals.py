"""The check of the manual: it is there, and it documents the commands that the environment takes.

Only command words are compared. Whether the text is complete and right is for its author to see.
"""

from __future__ import annotations

import re
from collections import defaultdict

from agentgym.testing.harness import Harness

_WORD = re.compile(r"\w+")


def manual_documents_the_commands(harness: Harness) -> str:
    """The manual is one text for all tasks, and holds the command words of known actions."""
    env = harness.make()
    with harness.must("answer manual() at any time, also before reset"):
        text = env.manual()
    harness.require(isinstance(text, str), f"manual() returned {text!r:.80}, expected a str")
    harness.require(
        text.strip() != "",
        "has no manual: write `manual()`, which states for the agent what the environment is, "
        "every form of command with an example, what a turn answers, and what ends the episode",
    )
    for task in harness.few(env, 2)[:4]:
        shown = harness.begin(env, task).info.get("manual")
        harness.require(
            shown == text == env.manual(),
            f"task {task!r}: manual() or info['manual'] at reset is another text: the manual is "
            f"one system prompt for all tasks; what depends on the task belongs into the goal",
        )
    known = _known_actions(harness)
    documented = {word.lower() for word in _WORD.findall(text)}
    numbers = any(word.isdecimal() for word in documented)
    words: dict[str, set[str]] = defaultdict(set)
    for action in known:
        if first := _WORD.search(action):
            words[first[0].lower()].add(action)
    found = {w for w in words if w in documented or (w.isdecimal() and numbers)}
    example = known[0] if known else ""
    harness.require(
        bool(found) or not words,
        f"the manual documents no form of {example!r}, nor of any other action that oracle() or "
        f"admissible() names: show every form of command with an example",
    )
    commands = {word for word, actions in words.items() if _takes_arguments(actions)}
    lacking = sorted(commands - found)
    harness.require(
        not lacking,
        f"the manual does not document the command {(lacking or [''])[0]!r}, as in "
        f"{min(words[(lacking or [''])[0]], default='')!r}: show every form of command",
    )
    return f"{len(text)} characters, {len(commands)} commands with arguments"


def _known_actions(harness: Harness) -> list[str]:
    """Actions that the oracle or the list of admissible actions named, in a fixed order."""
    actions: dict[str, None] = {}
    env, late = harness.make(), harness.hurry()
    tasks = harness.few(env, 2)
    for number, task in enumerate(tasks, 1):
        opened = harness.opened(env, task)
        actions.update(dict.fromkeys((*(opened.plan or ()), *opened.admissible)))
        if late():
            harness.tried(number, len(tasks), "tasks")
            break
    for walk in harness.recorded():
        for step in walk.steps:
            actions.update(dict.fromkeys(step.info.get("admissible_commands", ())))
    return list(actions)


def _takes_arguments(actions: set[str]) -> bool:
    """Two actions that begin with the same word: a command and what it acts on."""
    return sum(len(_WORD.findall(action)) > 1 for action in actions) > 1
