"""Failures of engine backends: reported in one line, never a hang."""

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from engine_contract import TIED, model_of

from agentgym.engines.requests import remaining_request
from agentgym.engines.vllm import engine as vllm
from agentgym.engines.vllm import thread
from agentgym.engines.vllm.answers import parse_answer, same_model
from agentgym.errors import EngineError
from agentgym.types import Completion, Sampling


class Broken:
    """Replaces vLLM: asleep and unable to wake, or without response to any request."""

    vllm_config = SimpleNamespace(model_config=SimpleNamespace(enable_sleep_mode=True))
    engine_core = SimpleNamespace(shutdown=lambda: None)

    def __init__(self, asleep):
        self.asleep = asleep

    def sleep(self, level):
        if not self.asleep:
            raise RuntimeError("first line\nlast line")

    def wake_up(self):
        raise RuntimeError("out of memory")


@pytest.fixture
def engine_of(tmp_path, monkeypatch):
    model_of(TIED).save_pretrained(tmp_path)

    def make(broken):
        monkeypatch.setattr(thread, "start_engine", lambda arguments: (broken, True))
        return vllm.VLLMEngine(str(tmp_path))

    return make


@pytest.mark.parametrize(
    ("asleep", "line"), [(True, "out of memory"), (False, "last line")], ids=["wakes", "sleeps"]
)
def test_a_vllm_failure_between_steps_fails_every_request(engine_of, asleep, line):
    engine = engine_of(Broken(asleep))
    engine.sleep()

    async def ask():
        return await asyncio.wait_for(engine.generate([1, 2], Sampling()), 30)

    for _ in range(2):
        with pytest.raises(EngineError, match=line) as error:
            asyncio.run(ask())
        assert "\n" not in str(error.value)
    assert any(thread.name == "agentgym-vllm" for thread in threading.enumerate())
    engine.close()


def test_a_hung_vllm_times_out(engine_of, monkeypatch):
    held, let = Broken(asleep=True), threading.Event()
    held.wake_up = lambda: let.wait(60)
    engine = engine_of(held)
    engine.sleep()
    monkeypatch.setattr(vllm, "STALL_SECONDS", 0.3)
    try:
        with pytest.raises(EngineError, match=r"nothing for 0\.3 s"):
            asyncio.run(engine.generate([1, 2], Sampling()))
        with pytest.raises(EngineError, match=r"more than 0\.3 s to take new weights"):
            engine.load(model_of(TIED).state_dict(), 1)
    finally:
        let.set()
        monkeypatch.undo()
        engine.close()


def answer(*, ended="length", ids=(7, 8), **changes):
    """A vLLM server's answer with two tokens."""
    found = {
        "tokens": ["token_id:7", "token_id:8"],
        "token_logprobs": [-1.0, -2.0],
        "top_logprobs": [{"token_id:7": -1.0}, {"token_id:8": -2.0}],
    }
    choice = {"finish_reason": ended, "token_ids": list(ids), "logprobs": found | changes}
    return {"choices": [choice]}


def read(found):
    return parse_answer(found, sampling=Sampling(max_tokens=2), version=3)


def test_log_probabilities_of_other_tokens_are_malformed():
    completion, cut = read(answer())
    assert (completion.tokens, completion.logprobs, cut) == ((7, 8), (-1.0, -2.0), False)
    assert (completion.finish, completion.version) == ("length", 3)
    for names in (["token_id:7", "token_id:9"], ["token_id:7"], ["seven", "eight"]):
        with pytest.raises(ValueError):
            read(answer(tokens=names))


@pytest.mark.parametrize("columns", [((1.0,), (0.1,)), ((1.0, 1.0), (0.1, 0.1), 0, "stop", (3,))])
def test_columns_of_a_completion_have_one_length(columns):
    with pytest.raises(ValueError, match="one length"):
        Completion((7, 8), *columns)


def test_a_completion_interrupted_by_a_weight_update_is_continued():
    completion, cut = read(answer(ended="abort"))
    assert (completion.tokens, completion.version, cut) == ((7, 8), 3, True)
    for nothing in (answer(ended="abort", ids=()), answer(ended="error")):
        with pytest.raises(ValueError, match="ended by"):
            read(nothing)


def test_the_remaining_request_has_a_fresh_seed():
    how = Sampling(seed=5, max_tokens=4, temperature=0.5)
    assert remaining_request([1], how, []) == ([1], how)
    started = Completion((2, 3), (-1.0, -1.0), (0.1, 0.1), version=1)
    prompt, left = remaining_request([1], how, [started])
    assert prompt == [1, 2, 3] and left.seed != how.seed
    assert left == replace(how, seed=left.seed, max_tokens=2)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("org/model", "org/model", True),
        ("model", "/mounted/elsewhere/model", True),
        ("org/model", "org/other", False),
        ("RUN/final", "OTHER/final", False),
        ("RUN/final", "RUN/../RUN/final", True),
    ],
)
def test_an_existing_folder_of_the_same_name_is_another_model(ours, theirs, same, tmp_path):
    for name in ("RUN", "OTHER"):
        (tmp_path / name / "final").mkdir(parents=True)
        ours, theirs = (
            path.replace(name, str(tmp_path / name), 1) if path.startswith(name) else path
            for path in (ours, theirs)
        )
    assert same_model(ours, theirs) == same
