"""Tool calls at random: of the right types, with every alternative, and the same for one seed."""

import json
import re
from collections import Counter
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field

from agentgym.env.base import Opening, Outcome
from agentgym.env.registry import world
from agentgym.errors import ConfigError
from agentgym.rollout.policies import random_action
from agentgym.tools import CallLimits, TagCalls, ToolEnv, tool
from agentgym.tools.random_calls import MESSAGE, random_call


class Place(BaseModel):
    """Where."""

    city: str
    floor: int


def order(
    kind: Literal["tea", "cake"],
    count: Annotated[int, Field(ge=3, le=4)],
    price: float,
    gift: bool,
    names: list[str],
    place: Place,
    note: str | None,
    extra: str = "",
) -> str:
    """Order something."""
    return "ordered"


def look(query: str = "", k: int = 3) -> str:
    """Look something up."""
    return query


def wait() -> str:
    """Wait."""
    return "."


class Shop(ToolEnv):
    """Takes orders."""

    def tasks(self, split):
        return ("a",)

    def open(self, task, rng):
        return Opening("Good morning, Ada!", "Buy <b>.")

    def act_without_call(self, action):
        return Outcome("You are welcome.")


def opened(tools, **kwargs):
    env = Shop(tools=[tool(each) for each in tools], **kwargs)
    observation, info = env.reset(options={"task": "a"})
    return env, observation, info["goal"]


def drawn(env, observation, goal, *, count=300):
    rng = np.random.default_rng(0)
    return [random_call(env, observation, goal, rng) for _ in range(count)]


def test_arguments_fit_the_schema_and_take_every_alternative():
    env, *read = opened([order], limits=CallLimits(calls=1000))
    seen = Counter()
    for action in drawn(env, *read):
        text, _, _, _, info = env.step(action)
        assert info["action_valid"], (action, text)
        given = json.loads(re.search(r"\{.*\}", action)[0])["arguments"]
        assert "extra" not in given, "it may be left out"
        for name, value in given.items():
            seen[name, json.dumps(value)] += 1
    values = {name: {v for n, v in seen if n == name} for name, _ in seen}
    assert values["kind"] == {'"tea"', '"cake"'} and values["count"] == {"3", "4"}
    assert values["price"] == set(map(str, range(10))) and values["gift"] == {"true", "false"}
    assert values["note"] >= {"null", '"Ada!"', '"morning"'}
    words = {'"Good"', '"morning"', '"Ada!"', '"Buy"', '"b"', '"."'}
    assert values["note"] <= words | {"null"}, "no word of the instructions"
    assert 120 < seen["kind", '"tea"'] < 180


def test_tools_are_drawn_evenly_and_a_message_like_a_tool_where_one_is_allowed():
    env, *read = opened([look, wait])
    counts = Counter(re.search(r'"name": "(\w+)"', action)[1] for action in drawn(env, *read))
    assert set(counts) == {"look", "wait"} and 120 < counts["look"] < 180
    assert not any('"k"' in action for action in drawn(env, *read)), "one argument, if none must be"
    env.calls_only = False
    assert 70 < Counter(drawn(env, *read))[MESSAGE] < 130


def test_calls_are_written_in_the_notation_of_the_environment():
    env, *read = opened([look], notation=TagCalls())
    assert all(re.fullmatch(r"<look>\S+</look>", action) for action in drawn(env, *read, count=20))


def test_one_seed_gives_one_sequence():
    env, *read = opened([order, look])
    assert drawn(env, *read) == drawn(env, *read)
    assert len(set(drawn(env, *read))) > 50


def test_actions_are_drawn_where_they_are_listed_and_refused_where_nothing_is_known():
    rng = np.random.default_rng(0)
    hotter = world("agentgym/Hotter-v0")
    observation, info = hotter.reset(seed=0)
    assert random_action(hotter, observation, info["goal"], rng) in hotter.admissible()
    hotter.admissible = lambda: ()
    with pytest.raises(ConfigError, match="lists no admissible actions and offers no tools"):
        random_action(hotter, observation, info["goal"], rng)
    env, *_ = opened([])
    with pytest.raises(ValueError, match="Shop offers no tools in task 'a'"):
        random_call(env, "", "", rng)


@pytest.mark.parametrize("name", ["pythonmath", "deepsearch"])
def test_a_random_player_plays_worlds_with_tools(name):
    rng = np.random.default_rng(0)
    env: Any = world(name)
    observation, info = env.reset(seed=0, options={"task": env.tasks("test")[0]})
    action = random_action(env, observation, info["goal"], rng)
    env.step(action)
    assert env.well_formed and not info["won"]
    env.close()
