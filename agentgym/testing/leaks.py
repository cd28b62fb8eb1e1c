"""Checks that observations reveal neither the solution nor the score."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agentgym.testing.findings import Skipped
from agentgym.testing.harness import Harness
from agentgym.testing.steps import Step

_TASKS = 16
"""Tasks of which the opening is read."""
_FEWEST = 4
"""With fewer, a pattern cannot be distinguished from chance."""
_OFTEN = 0.8
"""Share of the tasks in which a pattern must show."""
_FEW_ALTERNATIVES = 0.25
"""Share of the alternatives that are named as often as the solution, above which it is hidden."""


def openings_hide_the_solution(harness: Harness) -> str:
    """The opening names neither the oracle's actions nor where to act."""
    env = harness.make()
    named: dict[str, list[str]] = {"first": [], "last": []}
    tasks, spelled = 0, list[str]()
    late = harness.hurry()
    chosen = harness.few(env, -(-_TASKS // 3))
    for number, task in enumerate(chosen, 1):
        opening, plan, _ = harness.opened(env, task)
        if not plan:
            continue
        tasks += 1
        text = opening.observation.replace(opening.info["goal"], " ")
        if len(set(plan)) > 1 and len(plan) > 2 and _in_order(text, plan):
            spelled.append(task)
        listed = opening.info["admissible_commands"]
        for which, action in (("first", plan[0]), ("last", plan[-1])):
            if _stands_out(text, action, listed):
                named[which].append(action)
        if late() and tasks >= _FEWEST:
            harness.tried(number, len(chosen), "openings")
            break
    if tasks < _FEWEST:
        raise Skipped(f"an oracle is known for {tasks} of the tasks tried, {_FEWEST} are needed")
    harness.require(
        len(spelled) < _OFTEN * tasks,
        f"the opening spells out the oracle's plan, for example that of task "
        f"{(spelled or [''])[0]!r}: look at the observation of `start`",
    )
    for which, actions in named.items():
        harness.require(
            len(actions) < _OFTEN * tasks or len(set(actions)) < 3,
            f"the opening singles out the oracle's {which} action in {len(actions)} of {tasks} "
            f"tasks, such as {(actions or [''])[0]!r}: look at the observation of `start`",
        )
    return f"{tasks} openings"


def _in_order(text: str, plan: Iterable[str]) -> bool:
    """Every action of the plan occurs, one after the other."""
    place = 0
    for action in plan:
        found = re.compile(_words(action)).search(text, place)
        if found is None:
            return False
        place = found.end()
    return True


def _stands_out(text: str, action: str, listed: Iterable[str]) -> bool:
    """The action, or what it acts on, is named more often than nearly all alternatives are.

    Alternatives are the admissible actions that begin with the same word, or, for an action of
    one word, the others of one word. A room that lists every drawer once gives nothing away.
    """
    verb, _, rest = action.partition(" ")
    target = rest or verb
    others = {
        (words[2] or words[0])
        for words in (other.partition(" ") for other in listed)
        if bool(words[2]) == bool(rest) and (not rest or words[0] == verb)
    } - {target}
    times = _count(text, target)
    if times == 0 or len(others) < 3:
        return False
    equals = sum(_count(text, other) >= times for other in others)
    return equals < _FEW_ALTERNATIVES * len(others)


def _count(text: str, words: str) -> int:
    return len(re.findall(_words(words), text))


def _words(words: str) -> str:
    return rf"(?<!\w){re.escape(words)}(?!\w)"


def answers_hide_the_score(harness: Harness) -> str:
    """Answers do not print the number that is reported as the score."""
    steps = [step for walk in harness.recorded() for step in walk.steps]
    partial = [step for step in steps if 0 < step.info["score"] < 1]
    if len({step.info["score"] for step in partial}) < 2:
        raise Skipped("the walks met fewer than two scores between 0 and 1")
    printed = [step for step in partial if _prints(step)]
    harness.require(
        len(printed) < len(partial),
        f"every answer prints info['score'], such as {partial[0].info['score']:g} in "
        f"{partial[0].observation[:80]!r}: the agent must not read its own label",
    )
    return f"{len(partial)} answers with part of the score"


def _prints(step: Step) -> bool:
    """One of the usual ways to write the score stands in the observation."""
    score = step.info["score"]
    written = {str(score), f"{score:.1f}", f"{score:.2f}", f"{score:.3f}", f"{score:.0%}"}
    return any(re.search(_words_or_percent(text), step.observation) for text in written)


def _words_or_percent(text: str) -> str:
    return rf"(?<![\w.]){re.escape(text)}(?![\w])"
