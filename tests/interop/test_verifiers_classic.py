"""Classic environments of verifiers, played through their own rollouts and rubrics."""

import signal
import sys
import threading

import pytest

pytest.importorskip("verifiers.legacy")

from agentgym.env.registry import world
from agentgym.errors import ConfigError, EnvError, UnknownTask

pytestmark = pytest.mark.filterwarnings("ignore")

CLASSIC = '''
"""One environment of each classic kind."""
import verifiers as vf
from datasets import Dataset

def rows():
    return Dataset.from_list(
        [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(20)])

def right(completion, answer, **_):
    return float(completion[-1].content.strip() == answer)

def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: One.
        b: The other.
    """
    return a + b

class Twice(vf.MultiTurnEnv):
    """Says whether a guess is too low, and ends when it is right."""
    async def env_response(self, messages, state, **_):
        guess = int(messages[-1].content)
        text = "Higher." if guess < int(state["answer"]) else "Lower."
        return [{"role": "user", "content": text}]

    @vf.stop
    async def is_found(self, state):
        said = [step["completion"][-1].content for step in state["trajectory"]]
        return bool(said) and said[-1].strip() == state["answer"]

def broken(completion, **_):
    raise ValueError("no rubric")

def load_environment(kind="single"):
    rubric = vf.Rubric(funcs=[right])
    if kind == "tool":
        return vf.ToolEnv(tools=[add], max_turns=4, dataset=rows(), rubric=rubric)
    if kind == "multi":
        return Twice(max_turns=5, dataset=rows(), rubric=rubric)
    return vf.SingleTurnEnv(dataset=rows(), rubric=rubric, system_prompt="Answer by a number.")
'''


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "classic_vf.py").write_text(CLASSIC)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("classic_vf", None)


def started(kind, task="row-3"):
    env = world("verifiers-v0:classic_vf", args={"kind": kind})
    return env, *env.reset(seed=0, options={"task": task})


def test_a_question_is_asked_once_and_scored_by_its_rubric():
    for answer, reward in (("6", 1.0), ("7", 0.0)):
        env, opening, info = started("single")
        assert opening == "Answer by a number.\n\nWhat is 3 + 3?"
        _, paid, terminated, _, info = env.step(answer)
        assert (paid, terminated, info["won"]) == (reward, True, reward == 1.0)
        env.close()
    assert [len(env.tasks(split)) for split in ("train", "valid", "test")] == [16, 2, 2]


def test_a_conversation_goes_on_until_its_stop_condition():
    env, opening, _ = started("multi")
    assert opening == "What is 3 + 3?"
    assert env.step("2")[:3] == ("Higher.", 0.0, False)
    assert env.step("9")[0] == "Lower."
    text, reward, terminated, _, info = env.step("6")
    assert (text, reward, terminated, info["won"]) == ("is_found", 1.0, True, True)
    env.close()


def test_its_tools_are_called():
    env, opening, _ = started("tool")
    assert "Add two numbers." in opening
    text, _, terminated, *_ = env.step(
        '<tool_call>{"name": "add", "arguments": {"a": 3, "b": 3}}</tool_call>'
    )
    assert (text, terminated) == ("6", False)
    assert env.step("6")[1:3] == (1.0, True)
    env.close()


def test_what_it_cannot_promise_is_refused_and_an_episode_can_be_left():
    env, *_ = started("multi")
    with pytest.raises(ConfigError, match="cannot be forked"):
        env.fork()
    with pytest.raises(UnknownTask):
        env.reset(options={"task": "row-20"})
    with pytest.raises(ConfigError, match="verifiers-v0:no_such cannot be loaded"):
        world("verifiers-v0:no_such")
    env.reset(seed=0, options={"task": "row-4"})
    env.close()


def test_an_error_inside_is_the_environments():
    """The environment reads a number where the agent said none."""
    env, *_ = started("multi")
    with pytest.raises(EnvError, match="verifiers-v0:classic_vf failed"):
        env.step("six")
    env.close()


def test_it_is_loaded_in_threads_and_leaves_signals_alone():
    before, made = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: made.append(world("verifiers-v0:classic_vf")))
    thread.start()
    thread.join()
    assert made and signal.getsignal(signal.SIGINT) is before
    made[0].close()
