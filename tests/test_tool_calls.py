# ruff: noqa: RUF001 - DeepSeek writes fullwidth bars.
"""Native tool calls: every family's notation, written by templates and read back."""

import asyncio
import json

import numpy as np
import pytest
from test_chat_templates import OWN, REAL, completion, with_template

from agentgym import Opening, Outcome, Task
from agentgym.engines.scripted import ScriptedEngine
from agentgym.env.registry import world
from agentgym.errors import ConfigError, MalformedAction
from agentgym.experiment.parts import RunParts
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.sources import Objects
from agentgym.rollout.action_formats import JsonCall, NativeCalls
from agentgym.rollout.agent import AgentInput, ChatAgent
from agentgym.rollout.demonstrations import demonstrate, to_trajectory
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.rollout.tool_calls import (
    NOTATIONS,
    Parsed,
    ToolCall,
    detect,
    hermes_text,
    notation,
    read_calls,
    results_of,
    typed,
)
from agentgym.settings import AgentSettings, Experiment
from agentgym.tools.calls import TagCalls
from agentgym.tools.env import ToolEnv, WithTools
from agentgym.types import Turn
from agentgym.utils.progress import Display

PARIS = ToolCall("weather", {"city": "Paris", "days": 3})
TEXTS = ToolCall("weather", {"city": "Paris", "days": "3"})

WRITTEN = {
    "hermes": ['Hm.<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 3}}\n'
               "</tool_call>",
               '<tool_call>{"name": "weather", "arguments": '
               '"{\\"city\\": \\"Paris\\", \\"days\\": 3}"}</tool_call>'],
    "qwen-xml": ["<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n"
                 "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"],
    "glm": ["<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
            "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"],
    "deepseek": ["<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
                 "weather\n```json\n"
                 '{"city": "Paris", "days": 3}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
                 "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"
                 '{"city": "Paris", "days": 3}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'],
    "gpt-oss": [' to=functions.weather<|channel|>commentary json<|message|>{"city": "Paris", '
                '"days": 3}<|call|>',
                "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json"
                '<|message|>{"city": "Paris", "days": 3}'],
    "mistral": ['[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris", "days": 3}}]',
                '[TOOL_CALLS]weather[ARGS]{"city": "Paris", "days": 3}'],
    "gemma": ['<|tool_call>call:weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>'],
    "atem": ['<atem:function_calls>\n<atem:invoke name="weather">\n<atem:parameter name="city">'
             'Paris</atem:parameter>\n<atem:parameter name="days">3</atem:parameter>\n'
             "</atem:invoke>\n</atem:function_calls>"],
    "llama-json": ['{"name": "weather", "parameters": {"city": "Paris", "days": 3}}',
                   '<|python_tag|>{"name": "weather", "parameters": {"city": "Paris", "days": 3}}'],
    "pythonic": ["[weather(city='Paris', days=3)]",
                 '<|tool_call_start|>[weather(city="Paris", days=3)]<|tool_call_end|>',
                 '<|python_start|>[weather(city="Paris", days=3)]<|python_end|>'],
}  # fmt: skip
SCHEMA = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in WRITTEN.items() for t in texts])
def test_every_notation_is_parsed(name, text):
    parsed = read_calls(text, notation(name))
    assert len(parsed.calls) == 1
    assert typed(parsed.calls[0], [SCHEMA]) == PARIS


@pytest.mark.parametrize("name", WRITTEN)
def test_every_notation_is_detected_from_a_call_rendered_by_a_template(name):
    text = WRITTEN[name][0].removeprefix("Hm.")
    call = TEXTS if name in ("qwen-xml", "glm", "atem") else PARIS
    found = detect(text, call)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    ("name", "text"), [(n, texts[0]) for n, texts in WRITTEN.items() if n != "hermes"]
)
def test_a_call_of_another_family_is_malformed_and_the_message_shows_the_right_form(name, text):
    with pytest.raises(MalformedAction) as error:
        read_calls(text, notation("hermes"))
    assert f"{name!r}, expected 'hermes'" in str(error.value) and "\n" not in str(error.value)


def test_every_notation_is_tested_here_and_an_unknown_one_is_rejected():
    assert set(WRITTEN) == set(NOTATIONS)
    with pytest.raises(ConfigError, match="hermes"):
        notation("hermez")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", "<tool_call>{"),
        ("hermes", "<tool_call>[]</tool_call>"),
        ("hermes", '<tool_call>{"name": "a", "name": "b"}</tool_call>'),
        ("hermes", '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "a", "arguments": {"x": "\\ud800"}}</tool_call>'),
        ("hermes", "<tool_call>" + "[" * 60_000 + "</tool_call>"),
        ("qwen-xml", "<tool_call><function=a><parameter=x>1</function></tool_call>"),
        ("glm", "<tool_call>a<arg_key>x</arg_key></tool_call>"),
        ("deepseek", "<｜tool▁call▁begin｜>a<｜tool▁sep｜>{}"),
        ("mistral", "[TOOL_CALLS] nothing"),
        ("gemma", "<|tool_call>act go<tool_call|>"),
        ("llama-json", '{"name": "a", "parameters": {'),
        ("pythonic", "[a(1)]"),
        ("pythonic", "[a(x=open('f'))]"),
        ("hermes", "no call at all"),
        ("hermes", "x" * 70_000),
    ],
)
def test_a_malformed_call_is_answered_in_one_short_line(name, text):
    with pytest.raises(MalformedAction) as error:
        read_calls(text, notation(name))
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_several_calls_keep_their_order_and_the_text_around_them():
    text = "First.<tool_call>{}</tool_call>".replace("{}", '{"name": "a", "arguments": {}}')
    parsed = NOTATIONS["hermes"].read(text + text)
    assert parsed == Parsed("First.First.", (ToolCall("a", {}), ToolCall("a", {})))


def test_results_are_split_by_call():
    two = "<tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response>"
    assert results_of(two, 2) == ["a", "b"]
    assert results_of(two, 1) == [two]
    assert results_of("plain", 1) == ["plain"]


def test_json_calls_take_arguments_as_a_json_string():
    call = {"name": "act", "arguments": json.dumps({"action": "go"})}
    assert JsonCall().parse(f"<tool_call>{json.dumps(call)}</tool_call>") == "go"


# ---- with templates and environments ---------------------------------------------------------


@pytest.mark.parametrize("name", ["tools", *REAL])
def test_calls_rendered_by_a_template_are_parsed_back(tokenizer, name):
    source = OWN[name] if name in OWN else REAL[name].read_text()
    agent = ChatAgent(with_template(tokenizer, source), action_format=NativeCalls())
    for action in ("go north", 'say "hi"', "take ü"):
        assert agent.parse(completion(agent.encode_action(action))) == action


def test_schemas_are_passed_to_the_template_and_results_are_tool_messages(tokenizer):
    agent = ChatAgent(with_template(tokenizer, OWN["tools"]), action_format=NativeCalls())
    shown, done = AgentInput("goal", "start", "start"), []
    first = agent.prompt(shown, done)
    assert '"name": "act"' in agent.tokenizer.decode(first.tokens)
    tokens = agent.encode_action("go")
    done = [Turn(first.tokens, completion(tokens), "go", "wall", 0.0, True)]
    following = agent.prompt(shown._replace(observation="wall"), done)
    text = agent.tokenizer.decode(following.tokens)
    assert text == "\n<|im_start|>tool\nwall<|im_end|>\n<|im_start|>assistant\n"


def test_a_malformed_completion_is_answered_in_a_user_message(tokenizer):
    agent = ChatAgent(with_template(tokenizer, OWN["tools"]), action_format=NativeCalls())
    shown = AgentInput("goal", "start", "start")
    first = agent.prompt(shown, [])
    tokens = (*agent._encode("eh"), agent.stop[0])
    turn = Turn(first.tokens, completion(tokens), "", "Expected a call.", 0.0, True, parsed=False)
    following = agent.prompt(shown._replace(observation="Expected a call."), [turn])
    assert "<|im_start|>user\nExpected a call." in agent.tokenizer.decode(following.tokens)


def test_a_template_without_tools_gets_the_schema_in_the_system_prompt(tokenizer):
    agent = ChatAgent(with_template(tokenizer, OWN["chatml"]), action_format=NativeCalls())
    text = agent.tokenizer.decode(agent.prompt(AgentInput("g", "o", "o"), []).tokens)
    assert '"name": "act"' in text and "<tool_call>" in text


def double(number: int) -> str:
    """Twice a number."""
    return str(2 * number)


def finish(number: int) -> Outcome:
    """End the episode."""
    return Outcome("Done.", 1.0, 1.0, True, True)


class Sums(ToolEnv):
    """Two tools, each with its own tags."""

    def __init__(self, **kwargs):
        super().__init__(tools=[double, finish], notation=TagCalls(), **kwargs)

    def tasks(self, split):
        return ("sum",)

    def manual(self):
        return "What the tools do is listed.\nA call is `<double>3</double>`."

    def open(self, task, rng):
        return Opening("Ready.", "Double 20.")


@pytest.mark.parametrize("name", ["tools", *(n for n in REAL if n in ("qwen3_8", "gptoss"))])
def test_a_tool_environment_runs_with_native_calls(tokenizer, name):
    source = OWN[name] if name in OWN else REAL[name].read_text()
    made = with_template(tokenizer, source)
    agent = ChatAgent(made, action_format=NativeCalls())
    prompts = []

    def say(prompt, sampling):
        prompts.append(made.decode(prompt))
        call = ToolCall(("double", "finish")[len(prompts) - 1], {"number": 20})
        return agent.encode_action(hermes_text([call]))

    player = Player(
        agent=agent,
        engine=ScriptedEngine(say),
        make_env=lambda task: Sums(),
        limits=EpisodeLimits(turns=3, tokens=100_000),
    )
    played = asyncio.run(player(Task("sums", "sum"), 0))
    assert played.won and [turn.valid for turn in played.turns] == [True, True], played
    assert "double" in prompts[0]
    assert "<double>" not in prompts[0] and "What the tools do" in prompts[0]
    assert "40" in prompts[1].removeprefix(prompts[0])
    assert (
        played.turns[0].action == '<tool_call>{"name": "double", "arguments": {"number": 20}}'
        "</tool_call>"
    )


def parts_for(tokenizer, tmp_path, **settings):
    """The parts of a run with a pretrained model with a given tokenizer."""
    experiment = Experiment(env="agentgym/PythonMath-v0", model="object:M", **settings)
    objects = Objects(model=object(), tokenizer=tokenizer)
    return RunParts(experiment, RunFolder(tmp_path), Display(None), objects=objects)


def test_demonstrations_of_a_tool_environment_are_native_calls(tokenizer, tmp_path):
    made = with_template(tokenizer, OWN["tools"])
    parts = parts_for(made, tmp_path)
    agent = parts.agent(made)
    bare = parts.oracle_world(parts.action_format(made))
    shown = demonstrate(bare, parts.panel("train").tasks[0], np.random.default_rng(0))
    assert shown.won and [step.valid for step in shown.steps] == [True, True]
    turns = to_trajectory(shown, agent).turns
    for step, turn, name in zip(shown.steps, turns, ("python", "answer"), strict=True):
        written = made.decode(turn.completion.tokens)
        assert written.startswith(f'<tool_call>\n{{"name": "{name}"')
        assert agent.parse(turn.completion, turn.prompt, step.input.tools) == step.action
    read = made.decode(turns[1].prompt)
    assert "<|im_start|>tool\n" in read and "<tool_response>" not in read


@pytest.mark.parametrize(
    ("template", "settings", "expected"),
    [
        ("tools", {}, "native"),
        ("chatml", {}, "tags"),
        ("tools", {"action_format": "plain"}, "plain"),
        ("tools", {"prompt": "react"}, "react"),
    ],
)
def test_the_action_format_fits_environment_template_and_layout(
    tokenizer, tmp_path, template, settings, expected
):
    made = with_template(tokenizer, OWN[template])
    parts = parts_for(made, tmp_path, agent=AgentSettings(**settings))
    assert parts.action_format(made) == expected
    assert parts.action_format(None) == ("tags" if expected == "native" else expected)


def test_text_actions_are_one_of_the_tools_of_an_environment_with_tools(tokenizer):
    agent = ChatAgent(with_template(tokenizer, OWN["tools"]), action_format=NativeCalls())
    env = WithTools(world("agentgym/Hotter-v0"), [double])
    _, info = env.reset(options={"task": "hotter-3"})
    assert [tool["function"]["name"] for tool in info["tools"]] == ["double", "act"]
    for action in ("50", '<tool_call>{"name": "double", "arguments": {"number": 2}}</tool_call>'):
        written = completion(agent.encode_action(action))
        assert agent.parse(written, (), info["tools"]) == action
    assert env.step("50")[0] in ("Higher.", "Lower.", "Found.")


def test_a_response_template_of_the_tokenizer_takes_precedence(tokenizer):
    made = with_template(tokenizer, OWN["tools"])
    made.response_template = {
        "start_anchor": "<|im_start|>assistant",
        "fields": {
            "content": {},
            "tool_calls": {
                "open": "<tool_call>",
                "close": "</tool_call>",
                "content": "json",
                "repeats": True,
            },
        },
    }
    agent = ChatAgent(made, action_format=NativeCalls())
    assert agent.action_format.notation.name == "response-template"  # type: ignore[attr-defined]
    assert agent.parse(completion(agent.encode_action("go"))) == "go"
    with pytest.raises(MalformedAction):
        agent.parse(completion(agent._encode("<tool_call>{</tool_call>")))


def test_a_closing_tag_inside_a_json_string_does_not_end_the_call():
    text = '<tool_call>{"name": "act", "arguments": {"action": "say </tool_call>"}}</tool_call>'
    calls = read_calls(text, notation("hermes")).calls
    assert calls == (ToolCall("act", {"action": "say </tool_call>"}),)
