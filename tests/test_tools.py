import asyncio
import json
import threading
import time
from typing import Annotated, Literal

import pytest
from pydantic import Field

from agentgym.env.base import Outcome
from agentgym.env.executor import fork_env
from agentgym.env.registry import world
from agentgym.errors import (
    ConfigError,
    EnvError,
    EnvTimeout,
    ImpossibleValue,
    MalformedAction,
    Unreachable,
)
from agentgym.rollout.action_formats import JsonCall, Plain
from agentgym.testing import CheckSettings, check_environment
from agentgym.tools import (
    CallLimits,
    HermesCalls,
    TagCalls,
    ToolEnv,
    WithTools,
    cut_characters,
    cut_tokens,
    tool,
)


def search(
    query: str,
    k: Annotated[int, Field(ge=1, le=10)] = 3,
    order: Literal["best", "newest"] = "best",
) -> str:
    """Find pages.

    Looks at titles and texts.

    Args:
        query: Words to look for.
        k: Number of pages,
            best first.
        order: How they are listed.
    """
    return f"{k} {order} pages about {query}"


def add(a: int, b: int = 0) -> int:
    """The sum."""
    return a + b


async def slow(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "waited"


def fail(kind: str) -> str:
    """Raise something."""
    raise {"value": ValueError, "key": KeyError, "zero": ZeroDivisionError, "os": OSError}[kind](
        "no such page"
    )


class Counter:
    """Count calls."""

    name = "count"

    def __init__(self, value=0):
        self.value = value

    def __call__(self) -> int:
        self.value += 1
        return self.value

    def reset(self):
        self.value = 0

    def fork(self):
        return Counter(self.value)


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def hotter(*tools, notation=None, **limits):
    env = WithTools(
        world("agentgym/Hotter-v0"), tools, notation=notation, limits=CallLimits(**limits)
    )
    env.reset(options={"task": "hotter-3"})
    return env


def result_of(env, action):
    """What a call returned, without its tags."""
    return env.step(action)[0].removeprefix("<tool_response>\n").removesuffix("\n</tool_response>")


# ---- schema and arguments --------------------------------------------------------------------


def test_schema_is_built_from_signature_and_docstring():
    assert tool(search).schema == {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Find pages.\n\nLooks at titles and texts.",
            "parameters": {
                "type": "object",
                "additionalProperties": False,
                "required": ["query"],
                "properties": {
                    "query": {"type": "string", "description": "Words to look for."},
                    "k": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": 10,
                        "default": 3,
                        "description": "Number of pages, best first.",
                    },
                    "order": {
                        "type": "string",
                        "enum": ["best", "newest"],
                        "default": "best",
                        "description": "How they are listed.",
                    },
                },
            },
        },
    }
    assert tool(search).signature == (
        'search(query: string, k: integer = 3, order: "best" | "newest" = "best")'
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "query: Field required."),
        ({"query": 3}, "query: Input should be a valid string, got 3."),
        ({"query": "a", "k": "3"}, "k: Input should be a valid integer, got '3'."),
        ({"query": "a", "k": True}, "k: Input should be a valid integer, got True."),
        ({"query": "a", "k": 11}, "k: Input should be less than or equal to 10, got 11."),
        ({"query": "a", "order": "worst"}, "order: Input should be 'best' or 'newest'"),
        ({"query": "a", "kk": 3}, "kk: Extra inputs are not permitted, got 3."),
        ({"query": ["x" * 10**4]}, "xxx..."),
    ],
)
def test_bad_arguments_return_the_expected_signature(arguments, message):
    text = result_of(hotter(search), call("search", **arguments))
    assert message in text and "Expected search(query: string, k: integer = 3" in text
    assert len(text) < 500


def test_tag_arguments_are_converted_from_text():
    env = hotter(add, notation=TagCalls())
    assert env.step("<add> 41 </add>")[0] == "<result>\n41\n</result>"
    observation, *_, info = env.step("<add>4x</add>")
    assert "unable to parse string as an integer, got '4x'" in observation
    assert not info["action_valid"]


def test_tool_without_name_or_docstring_is_rejected():
    class Silent:
        def __call__(self) -> str:
            return ""

    for function, message in [
        (lambda: 3, "'<lambda>' needs a docstring"),
        (Silent(), "needs a name"),
    ]:
        with pytest.raises(ConfigError, match=message):
            tool(function)


def test_tool_with_parameters_a_model_cannot_pass_is_rejected():
    def untyped(x) -> str:
        """No type."""

    def many(*words: str) -> str:
        """Words."""

    def odd(x: threading.Thread) -> str:
        """A thread."""

    for function, message in [
        (untyped, "parameter 'x' of tool 'untyped' needs a type"),
        (many, "needs to be passed by name"),
        (odd, "no model can pass"),
    ]:
        with pytest.raises(ConfigError, match=message):
            tool(function)


def test_duplicate_names_and_tags_for_two_arguments_are_rejected():
    def pair(a: str, b: str) -> str:
        """Both."""

    with pytest.raises(ConfigError, match="share a name: add, add"):
        hotter(add, add)
    with pytest.raises(ConfigError, match="a tag carries one argument"):
        hotter(pair, notation=TagCalls())


# ---- notations -------------------------------------------------------------------------------


@pytest.mark.parametrize("notation", [HermesCalls(), TagCalls()])
@pytest.mark.parametrize("text", ["words", "é 🙂 \\ \" ' \n two", "<b>1</b>", "a < b </tool_call>"])
def test_written_calls_are_parsed_back(notation, text):
    one = tool(search)
    (found,) = notation.parse("I will.\n" + notation.write(one, {"query": text}), [one])
    assert (found.name, found.arguments, found.problem) == ("search", {"query": text}, "")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "is not JSON"),
        ('{"name": "add", "arguments": {"a": 1}, "a": 2}', "no more"),
        ('{"name": "add"}', "no more"),
        ("[]", "no more"),
        ('{"name": 3, "arguments": {}}', '"name" must be a string'),
        ('{"name": "add", "arguments": [1]}', '"arguments" an object'),
        ('{"name": "add", "arguments": {"a": 1, "a": 2}}', "names a key twice"),
        ('{"name": "add", "arguments": {"a": NaN}}', "NaN, which is not JSON"),
        ('{"name": "add", "arguments": {"a": "\\ud800"}}', "half of a surrogate pair"),
        ('{"name": "add", "arguments": {"\\udfff": 1}}', "half of a surrogate pair"),
        ('{"name": "add", "arguments": {"a": ' + "9" * 5000 + "}}", "is not JSON"),
        ('{"name": "add", "arguments": {"a": ' + "[" * 40 + "]" * 40 + "}}", "nested deeper"),
        ("[" * 60_000, "is not JSON"),
        ('{"name": "add", "arguments": {"a": "' + "x" * 10**6 + '"}}', "expected at most 65536"),
        ('{"name": "ad", "arguments": {"a": 1}}', "no tool 'ad'. Did you mean 'add'?"),
    ],
)
def test_malformed_call_gets_a_short_answer_and_the_other_calls_run(body, message):
    env = hotter(add)
    action = f"<tool_call>{body}</tool_call> {call('add', a=40, b=2)}"
    observation, reward, done, _, info = env.step(action)
    assert message in observation and len(observation) < 400
    assert observation.endswith("<tool_response>\n42\n</tool_response>")
    assert (reward, done, info["action_valid"]) == (0.0, False, False)


@pytest.mark.parametrize("tag", ["<tool_call>", "</tool_call>", "<tool_call></tool_call>"])
def test_a_megabyte_of_tags_is_parsed_in_linear_time(tag):
    env = hotter(add)
    start = time.process_time()
    env.step(tag * (1_000_000 // len(tag)))
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "text",
    ["print('</tool_call>')", "</tool_call><tool_call>{}", 'a " </tool_call> \\', "<tool_call>"],
)
def test_tags_inside_a_json_string_do_not_end_the_call(text):
    body = json.dumps({"name": "run", "arguments": {"code": text}})
    found = HermesCalls().parse(f"Now: <tool_call>\n{body}\n</tool_call> done {TWICE}", ())
    assert [dict(each.arguments) for each in found] == [{"code": text}, {"n": 1}]
    assert not any(each.problem for each in found)


TWICE = '<tool_call>{"name": "twice", "arguments": {"n": 1}}</tool_call>'


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"n": 1}', {"n": 1}),
        ("{}", {}),
        ('{"text": "</tool_call>"}', {"text": "</tool_call>"}),
        ("[1]", None),
        ("n = 1", None),
        ('{"n": 1, "n": 2}', None),
        ('{"n": NaN}', None),
        ('"{}"', None),
        ("[" * 100_000, None),
    ],
)
def test_arguments_may_be_a_json_string_as_openai_writes_them(arguments, expected):
    body = json.dumps({"name": "twice", "arguments": arguments})
    (found,) = HermesCalls().parse(f"<tool_call>{body}</tool_call>", ())
    if expected is None:
        assert found.problem
    else:
        assert (found.name, found.arguments, found.problem) == ("twice", expected, "")


def test_unclosed_call_is_reported():
    env = hotter(search, notation=TagCalls("information"))
    observation, *_ = env.step("<search>a</search><search>b")
    assert observation == (
        "<information>\n3 best pages about a\n</information>\n"
        "<information>\n<search> is not closed by </search>.\n</information>"
    )


def test_nested_tag_is_part_of_the_outer_text():
    env = hotter(search, add, notation=TagCalls())
    observation, *_ = env.step("<search>what <add>1</add> is</search>")
    assert observation == "<result>\n3 best pages about what <add>1</add> is\n</result>"


def test_tool_instructions_are_part_of_the_goal():
    goal = hotter(search).step("1")[4]["goal"]
    assert goal.startswith("Find the number.\n\n")
    assert json.dumps(tool(search).schema) in goal
    tags = hotter(search, notation=TagCalls()).step("1")[4]["goal"]
    assert "<search>query</search>: Find pages." in tags


def test_calls_inside_thoughts_are_not_executed():
    form = Plain()
    assert form.parse(f"<think>{call('add', a=1)}</think>\n say 3 ") == "say 3"
    assert form.parse(f"hm</think>{form.format('go')}") == "go"
    for text in ("<think>a</think> <think><add>1</add>", "<think>a</think> ", ""):
        with pytest.raises(MalformedAction):
            form.parse(text)


# ---- limits ----------------------------------------------------------------------------------


def test_async_tools_run_outside_the_callers_event_loop():
    env = hotter(slow)

    async def inside():
        return env.step(call("slow", seconds=0.0))[0]

    assert "waited" in asyncio.run(inside())
    assert "waited" in env.step(call("slow", seconds=0.0))[0]


def nap(seconds: float) -> str:
    """Wait, on a thread."""
    time.sleep(seconds)
    return "slept"


@pytest.mark.parametrize("one", [slow, nap])
def test_tool_timeout_breaks_the_episode_and_is_not_retried(one):
    env = hotter(one, timeout=0.2, retries=5)
    start = time.monotonic()
    with pytest.raises(EnvTimeout, match=f"tool '{one.__name__}' did not answer within 0.2 s"):
        env.step(call(one.__name__, seconds=3.0))
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("fault", [ConnectionResetError("reset"), Unreachable("503")])
@pytest.mark.parametrize("faults", [2, 3])
def test_only_connection_errors_are_retried(fault, faults):
    left = [fault] * faults

    def fetch() -> str:
        """Fetch."""
        if left:
            raise left.pop()
        return "page"

    env = hotter(fetch, retries=2, backoff=0.001)
    if faults == 2:
        assert result_of(env, call("fetch")) == "page"
    else:
        with pytest.raises(Unreachable, match=f"failed in 3 tries: {fault}"):
            env.step(call("fetch"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("value", "ValueError: no such page"),
        ("key", "KeyError: 'no such page'"),
        ("zero", "ZeroDivisionError: no such page"),
    ],
)
def test_tool_error_is_an_observation_and_not_retried(kind, text):
    env = hotter(fail)
    observation, _, _, _, info = env.step(call("fail", kind=kind))
    assert observation == f"<tool_response>\n{text}\n</tool_response>"
    assert not info["action_valid"] and info["tool_calls"] == 1
    assert info["last_calls"] == [{"name": "fail", "arguments": {"kind": kind}}]
    assert env.step("50")[-1]["last_calls"] == []


def test_broken_tool_raises_env_error():
    with pytest.raises(EnvError, match="tool 'fail' broke: OSError: no such page"):
        hotter(fail).step(call("fail", kind="os"))


def test_calls_per_turn_and_per_episode_are_bounded():
    env = hotter(Counter(), calls=4, per_turn=3)
    observation, *_, info = env.step(call("count") * 9)
    assert [line for line in observation.splitlines() if "tool_response" not in line] == [
        *"123",
        "Only 3 calls in a turn, got 9: the rest were ignored.",
    ]
    assert info["tool_calls"] == 3 and not info["action_valid"]
    assert result_of(env, call("count")) == "4"
    assert result_of(env, call("count")) == "All 4 calls of the episode are used."
    env.reset(options={"task": "hotter-3"})
    assert result_of(env, call("count")) == "1"


def test_limits_out_of_range_are_rejected():
    for limits in ({"timeout": 0}, {"retries": -1}, {"calls": 0}, {"per_turn": 0}):
        with pytest.raises(ImpossibleValue, match=next(iter(limits))):
            CallLimits(**limits)


def test_long_results_are_truncated_in_the_middle():
    def page() -> str:
        """A long page."""
        return "a" * 5000 + "z" * 5000

    text = result_of(hotter(page, cut=cut_characters(100)), call("page"))
    assert text == "a" * 50 + "\n[... 9900 characters left out ...]\n" + "z" * 50


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_results_are_truncated_at_token_boundaries(tokenizer, limit):
    text = "Higher. Lower. I hide a number from 1 to 100. Guess."
    tokens = tokenizer.encode(text)
    assert cut_tokens(tokenizer, len(tokens))(text) == text
    head, note, tail = cut_tokens(tokenizer, limit)(text).split("\n")
    assert note == f"[... {len(tokens) - limit} tokens left out ...]"
    assert text.startswith(head) and text.endswith(tail)
    assert len(tokenizer.encode(head)) + len(tokenizer.encode(tail)) == limit


# ---- environments -------------------------------------------------------------------------------


def test_adding_tools_leaves_the_environment_unchanged(monkeypatch):
    import gymnasium

    def make(**kwargs):
        return WithTools(world("agentgym/Hotter-v0", **kwargs), [search, Counter()])

    monkeypatch.setitem(gymnasium.registry, "test/Tools-v0", None)
    del gymnasium.registry["test/Tools-v0"]
    gymnasium.register("test/Tools-v0", make, max_episode_steps=12)
    brisk = CheckSettings(steps=100, resets=300, seconds=3.0)
    check_environment("test/Tools-v0", brisk, high=20)
    env = world("test/Tools-v0", admissible=True)
    _, info = env.reset(options={"task": "hotter-3"})
    assert info["admissible_commands"] == world("agentgym/Hotter-v0").admissible()
    env.step(call("count"))
    for guess in env.oracle():
        *_, info = env.step(guess)
    assert info["won"] and info["tool_calls"] == 1
    assert env.step(call("count"))[0] == "The episode is over."


def test_tool_call_does_not_change_the_environment():
    env = hotter(add)
    before = env.step("50")
    after = env.step(call("add", a=1))
    assert after[1:4] == (0.0, False, False)
    assert after[4]["score"] == before[4]["score"]


def test_tool_state_is_forked_with_the_environment():
    env = hotter(Counter())
    env.step(call("count"))
    twin = fork_env(env)
    assert [result_of(env, call("count")) for _ in range(2)] == ["2", "3"]
    assert result_of(twin, call("count")) == "2"


class Vault(ToolEnv):
    """An environment made of its own methods."""

    def __init__(self, **kwargs):
        super().__init__(tools=[self.turn, self.open_door], **kwargs)
        self.dial = 0

    def tasks(self, split):
        return [f"vault-{split}"]

    def open(self, task, rng):
        from agentgym.env.base import Opening

        self.dial = 0
        return Opening("A dial at 0.", "Open the vault.")

    def turn(self, steps: int) -> str:
        """Turn the dial."""
        self.dial += steps
        return f"At {self.dial}."

    def open_door(self) -> Outcome:
        """Try the door."""
        won = self.dial == 7
        return Outcome("It opens." if won else "Locked.", float(won), float(won), won, done=True)


def test_tool_that_returns_an_outcome_acts_on_the_environment_and_ends_the_turn():
    env = Vault()
    env.reset(options={"task": "vault-train"})
    twin = fork_env(env)
    env.step(call("turn", steps=3))
    observation, reward, done, _, info = env.step(
        call("turn", steps=4) + call("open_door") + call("turn", steps=1)
    )
    assert (reward, done, info["won"], info["tool_calls"]) == (1.0, True, True, 3)
    assert "It opens." in observation and "At 8" not in observation
    assert twin.dial == 0 and result_of(twin, call("turn", steps=1)) == "At 1."  # type: ignore[attr-defined]
    assert env.dial == 7


def test_action_without_call_is_answered_with_an_example():
    env = Vault()
    env.reset(options={"task": "vault-train"})
    observation, *_, info = env.step("open sesame")
    assert 'such as <tool_call>{"name": "turn", "arguments": {"steps": "..."}}<' in observation
    assert not info["action_valid"] and info["tool_calls"] == 0


def test_json_call_format_keeps_tags_inside_strings():
    text = '<tool_call>{"name": "act", "arguments": {"action": "say </tool_call>"}}</tool_call>'
    assert JsonCall().parse(text) == "say </tool_call>"
