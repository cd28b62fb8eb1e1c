"""What the system prompt and the first turns contain, in each layout."""

import asyncio
import re

import numpy as np
import pytest
from http_service import serving
from test_chat_templates import CHATML, completion, with_template

import agentgym
from agentgym import Task
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.registry import world
from agentgym.errors import ConfigError, MalformedAction
from agentgym.rollout.action_formats import ReAct, Tags
from agentgym.rollout.agent import AgentInput, ChatAgent
from agentgym.rollout.demonstrations import demonstrate, to_example
from agentgym.rollout.player import Player
from agentgym.rollout.prompts import LAYOUTS, Example
from agentgym.rollout.setup import EpisodeLimits
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
    agent.conversation.examples = (to_example(shown, agent),)
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
    assert text.count("<|im_start|>") == 2 and text.startswith("<|im_start|>user")
    assert "Say where to go." not in text  # Actions are listed, so there is no manual.
    end = f"{Tags(think=True).instructions}<|im_end|>\n<|im_start|>assistant\n"
    assert text.endswith(end)
    bare = text_of(agent, SHOWN._replace(admissible_actions=()))
    assert bare.startswith("<|im_start|>system\nSay where to go.<|im_end|>")


def test_agentgym_layout_has_an_instruction_turn_and_an_acknowledgement(chatml):
    agent = ChatAgent(chatml, action_format=ReAct(), layout=LAYOUTS["agentgym"])
    text = text_of(agent)
    roles = re.findall(r"<\|im_start\|>(\w+)\n", text)
    assert roles == ["user", "assistant", "user", "assistant"]
    for written in ("Thought: hm\nAction: go east", "Thought:\nhm\n\nAction:\ngo east"):
        assert agent.parse(completion(agent._encode(written))) == "go east"
    for written in ("Action:", "Action:\n\n", "Action: a\nAction: b"):
        with pytest.raises(MalformedAction):
            agent.parse(completion(agent._encode(written)))


def test_react_layout_shows_the_observation_before_the_task(chatml):
    agent = ChatAgent(chatml, action_format=ReAct(), layout=LAYOUTS["react"])
    text = text_of(agent)
    assert text.index("A room.") < text.index("Your task: Find it.")


def test_react_examples_are_of_the_type_of_the_task(chatml):
    agent = ChatAgent(chatml, action_format=ReAct(), layout=LAYOUTS["react"])
    agent.conversation.examples = tuple(
        Example(f"goal {n}", "start", (("Action: go", "done"),), "ab"[n % 2]) for n in range(4)
    )
    for kind, expected in {"a": "02", "b": "13", "c": "01"}.items():
        text = text_of(agent, SHOWN._replace(task_type=kind))
        assert re.findall(r"Task: goal (\d)", text) == list(expected)


LAYOUT_ASKS = {
    "verl-agent": ("<think>", "<think>hm</think><action>{}</action>"),
    "react": ('"Action: ..."', "Thought: hm\nAction: {}"),
    "agentgym": ('"Action: ..."', "Thought:\nhm\n\nAction:\n{}"),
}


@pytest.mark.parametrize("prompt", LAYOUT_ASKS)
def test_a_layout_alone_sets_format_actions_and_examples(prompt, tmp_path):
    asked, written = LAYOUT_ASKS[prompt]
    answer = {"message": {"content": written.format("east")}, "finish_reason": "stop"}
    file = tmp_path / "corridor.py"
    file.write_text(CORRIDOR)
    with serving(lambda path, body: (200, {"choices": [answer]})) as (service, url):
        report = agentgym.evaluate(
            "m",
            env=f"{file}:Corridor",
            engine="openai",
            server=url,
            agent={"prompt": prompt},
            panel={"tasks": 1, "episodes": 1},
            out=tmp_path / "episodes.jsonl",
            progress=False,
        )
    assert report.tasks[0].won == 1
    assert report.spec.settings["show_admissible"] == (prompt != "react")
    first, second = (body["messages"] for _, body, _, _ in service.asked)
    text = "\n".join(message["content"] for message in first)
    assert asked in text and ("west" in text) == (prompt != "react")
    assert text.count("Example ") == (2 if prompt == "react" else 0)
    assert len(second) == (1 if prompt == "verl-agent" else len(first) + 2)


CORRIDOR = """
from agentgym import TextEnv
from agentgym.env.base import Opening, Outcome


class Corridor(TextEnv):
    def tasks(self, split):
        return [f"{split}-{n}" for n in range(3)]

    def start(self, task, rng):
        self.at = 0
        return Opening("A corridor.", "Reach the end.", "walk")

    def act(self, action):
        self.at += action == "east"
        done = self.at == 2
        return Outcome(f"Step {self.at}.", float(done), float(done), done, done)

    def admissible(self):
        return ("east", "west")

    def oracle(self):
        return ("east",) * (2 - self.at)
"""


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
