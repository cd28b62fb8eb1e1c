"""What the system prompt and the first turns contain, in each layout."""

import asyncio
import re

import numpy as np
import pytest
from test_chat_templates import CHATML, completion, with_template

from agentgym import Task
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.registry import world
from agentgym.errors import ConfigError
from agentgym.rollout.action_formats import ReAct, Tags
from agentgym.rollout.agent import AgentInput, ChatAgent
from agentgym.rollout.demonstrations import demonstrate, to_example
from agentgym.rollout.player import EpisodeLimits, Player
from agentgym.rollout.prompts import LAYOUTS
from agentgym.types import Sampling, Turn

SHOWN = AgentInput("Find it.", "A room.", "A room.", ("east", "help", "west"), "Say where to go.")


def text_of(agent, shown=SHOWN, turns=()):
    return agent.tokenizer.decode(agent.prompt(shown, turns).tokens)


@pytest.fixture
def chatml(tokenizer):
    return with_template(tokenizer, CHATML)


def test_the_system_prompt_is_the_manual_and_the_action_format(chatml):
    text = text_of(ChatAgent(chatml))
    assert text.startswith("<|im_start|>system\nSay where to go.\n\nGive exactly one action")
    assert "Say where" not in text_of(ChatAgent(chatml, system_prompt="Act."))


def test_a_model_made_from_nothing_gets_no_manual(tokenizer):
    assert "Say where" not in text_of(ChatAgent(tokenizer))


def test_examples_are_shown_in_the_format_of_the_agent(chatml):
    agent = ChatAgent(chatml)
    shown = demonstrate(
        world("agentgym/Hotter-v0"),
        Task("agentgym/Hotter-v0", "hotter-3"),
        np.random.default_rng(0),
    )
    agent.examples = (to_example(shown, agent),)
    text = text_of(agent)
    actions = re.findall(r"<action>(.*?)</action>", text.replace("<action> </action>", ""))
    assert actions == [step.action for step in shown.steps]
    assert all(step.observation in text for step in shown.steps)


def test_verl_agent_layout_shows_step_history_and_admissible_actions_in_a_fresh_prompt(chatml):
    agent = ChatAgent(chatml, action_format=Tags(think=True), layout=LAYOUTS["verl-agent"])
    turns = []
    for number in range(4):
        first = agent.prompt(SHOWN._replace(observation=f"obs {number}"), turns)
        assert first.fresh
        turns.append(
            Turn(first.tokens, completion([1]), f"act {number}", f"obs {number + 1}", 0.0, True)
        )
    text = text_of(agent, SHOWN._replace(observation="obs 4"), turns)
    assert "Task: Find it." in text and "Steps taken: 4." in text and "Current step: 5." in text
    assert "Action 3: 'act 2'" in text and "Action 4: 'act 3'" in text and "act 1" not in text
    assert "'east'\n'west'" in text and "help" not in text


def test_agentgym_layout_has_an_instruction_turn_and_an_acknowledgement(chatml):
    agent = ChatAgent(chatml, action_format=ReAct(), layout=LAYOUTS["agentgym"])
    text = text_of(agent)
    roles = re.findall(r"<\|im_start\|>(\w+)\n", text)
    assert roles == ["user", "assistant", "user", "assistant"]
    assert agent.parse(completion(agent._encode("Thought: hm\nAction: go east"))) == "go east"


def test_react_layout_shows_the_observation_before_the_task(chatml):
    agent = ChatAgent(chatml, action_format=ReAct(), layout=LAYOUTS["react"])
    text = text_of(agent)
    assert text.index("A room.") < text.index("Your task: Find it.")


def test_a_first_prompt_longer_than_the_context_gives_a_one_line_error(chatml):
    agent = ChatAgent(chatml)
    player = Player(
        agent=agent,
        engine=ScriptedEngine(lambda prompt, sampling: agent.encode_action("1")),
        make_env=lambda task: world(task.env),
        limits=EpisodeLimits(tokens=40),
        sampling=Sampling(max_tokens=32),
    )
    with pytest.raises(ConfigError, match="max-context-tokens"):
        asyncio.run(player(Task("agentgym/Hotter-v0", "hotter-3"), 0))
