"""A chat endpoint plays: retried where that helps, stopped in one line where not, never trained."""

import asyncio
import math
import re
import time
from itertools import pairwise

import pytest
from http_service import serving

from agentgym.cli import main
from agentgym.engines import Engine
from agentgym.engines.chat import ChatEngine
from agentgym.engines.endpoint import Endpoint, RetryPolicy
from agentgym.errors import ConfigError, EngineError
from agentgym.models import from_scratch
from agentgym.types import Sampling

TOKENIZER = from_scratch.make_tokenizer((), from_scratch.SMALLEST)
QUICK = RetryPolicy(deadline=5.0, initial_delay=0.01)


def encoded(text):
    return TOKENIZER.encode(text, add_special_tokens=False)


STOP = tuple(encoded("<|end|>"))
TALK = (
    "<|system|>Be brief.<|user|>I hide a number.<|assistant|><action>50</action><|end|>"
    "<|user|>Lower. Not ü.<|assistant|>"
)


def said(text="<action>25</action>", *, finish="stop", logprobs=None):
    return 200, {
        "choices": [
            {
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
                "logprobs": logprobs,
            }
        ]
    }


def ask(url, *, prompt=TALK, retry=QUICK, key=None, extra=None, **params):
    engine = ChatEngine("m", Endpoint(url, key=key, retry=retry), TOKENIZER, extra=extra)
    assert isinstance(engine, Engine)
    return asyncio.run(engine.generate(encoded(prompt), Sampling(stop=STOP, **params)))


def test_a_conversation_goes_out_as_messages_and_the_answer_comes_back_as_tokens():
    with serving(lambda path, body: said()) as (service, url):
        completion = ask(url, key="k", seed=7, temperature=0.5, top_p=0.9, max_tokens=9)
    [(path, body, headers, _)] = service.asked
    assert path == "/v1/chat/completions" and headers["authorization"] == "Bearer k"
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "I hide a number."},
            {"role": "assistant", "content": "<action>50</action>"},
            {"role": "user", "content": "Lower. Not ü."},
        ],
        "seed": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 9,
        "logprobs": True,
    }
    assert completion.tokens == tuple(encoded("<action>25</action><|end|>"))
    assert all(math.isnan(x) for x in (*completion.logprobs, *completion.entropies))


def test_an_answer_cut_at_its_limit_has_no_stop_token_and_marks_in_it_mean_nothing():
    with serving(lambda path, body: said("a<|user|>b", finish="length")) as (_, url):
        assert ask(url).tokens == tuple(encoded("ab"))


def test_log_probabilities_of_the_services_tokens_are_kept_in_sum_and_place():
    pieces = [("<act", -0.5), ("ion>2", -0.25), ("5", -1.5), ("</action>", -0.125)]
    told = {"content": [{"token": text, "logprob": value} for text, value in pieces]}
    with serving(lambda path, body: said(logprobs=told)) as (_, url):
        completion = ask(url)
    # Ours are <action>, 2, 5, </action> and the stop token.
    assert completion.logprobs == (-0.75, 0.0, -1.5, -0.125, 0.0)
    other = {"content": [{"token": "something else", "logprob": -1.0}]}
    with serving(lambda path, body: said(logprobs=other)) as (_, url):
        assert all(math.isnan(x) for x in ask(url).logprobs[:-1])


def test_a_service_that_refuses_to_tell_log_probabilities_is_asked_without():
    def answer(path, body):
        refusal = 400, {"error": {"message": "logprobs are not supported"}}
        return refusal if "logprobs" in body else said()

    with serving(answer) as (service, url):
        assert ask(url).tokens == tuple(encoded("<action>25</action><|end|>"))
    assert [("logprobs" in body) for _, body, _, _ in service.asked] == [True, False]


def test_fields_of_a_request_can_be_added_and_removed():
    with serving(lambda path, body: said()) as (service, url):
        ask(url, extra={"max_tokens": None, "max_completion_tokens": 5})
    body = service.asked[0][1]
    assert "max_tokens" not in body and body["max_completion_tokens"] == 5


FAILURES = {
    "too many requests": (429, {"error": {"message": "slow down"}}),
    "a broken server": (500, {"detail": "oops"}),
    "a proxy's page": (502, b"<html>Bad gateway</html>"),
    "a page that claims to be fine": (200, b"<html>Welcome</html>"),
    "half an answer": (200, b'{"choices": [{"mess'),
    "no choices": (200, {"choices": []}),
    "another shape": (200, {"choices": [{"text": "hm", "finish_reason": "stop"}]}),
    "nothing": (200, b"null"),
    "a list for a text": (200, {"choices": [{"message": {"content": ["hm"]}}]}),
    "a list for numbers": (
        200,
        {"choices": [{"message": {"content": "hm"}, "logprobs": [1], "finish_reason": "stop"}]},
    ),
    "lists within lists": (200, b"[" * 100_000),
    "no gzip": (200, b"hm", ("content-encoding", "gzip")),
    "hung up": None,
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_that_may_pass_is_tried_again(name):
    answers = [FAILURES[name], FAILURES[name], said()]
    with serving(lambda path, body: answers.pop(0)) as (service, url):
        completion = ask(url)
    assert completion.tokens == tuple(encoded("<action>25</action><|end|>"))
    assert len(service.asked) == 3


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_that_does_not_pass_is_one_line_when_the_time_is_over(name):
    begun = time.monotonic()
    with (
        serving(lambda path, body: FAILURES[name]) as (service, url),
        pytest.raises(EngineError, match=r"gave no usable answer in 1 s, tried \d+ times"),
    ):
        ask(url, retry=RetryPolicy(deadline=1, initial_delay=0.02))
    assert time.monotonic() - begun < 5 and 2 <= len(service.asked) < 9


def test_pauses_grow_and_a_service_may_ask_for_longer_ones():
    wait = ("retry-after", "0.4")
    answers = [(500, b""), (500, b""), (429, b"", wait), said()]
    with serving(lambda path, body: answers.pop(0)) as (service, url):
        ask(url, retry=RetryPolicy(deadline=20, initial_delay=0.05))
    times = [when for *_, when in service.asked]
    first, second, third = (b - a for a, b in pairwise(times))
    assert first >= 0.05 and second >= 0.1 and third >= 0.4


def test_a_service_that_never_answers_is_not_waited_for_forever():
    def hang(path, body):
        time.sleep(3)

    begun = time.monotonic()
    with serving(hang) as (_, url), pytest.raises(EngineError, match=r"in 0\.5 s"):
        ask(url, retry=RetryPolicy(deadline=0.5))
    assert time.monotonic() - begun < 2.5


def test_nobody_at_the_address_is_one_line():
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9 gave no usable answer") as error:
        ask("http://127.0.0.1:9", retry=RetryPolicy(deadline=0.2))
    assert "\n" not in str(error.value)
    for address in ("localhost:8000", "http://"):
        with pytest.raises(ConfigError, match="expected an address such as"):
            ask(address)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_another_try_cannot_change_is_not_tried_again(status):
    refusal = status, {"error": {"message": "no such\nthing"}}
    with (
        serving(lambda path, body: refusal) as (service, url),
        pytest.raises(EngineError, match=f"status {status}: no such thing"),
    ):
        ask(url)
    assert len(service.asked) == 1


def test_it_says_that_it_cannot_be_trained(capsys):
    engine = ChatEngine("m", Endpoint("http://127.0.0.1:9"), TOKENIZER)
    with pytest.raises(ConfigError, match="cannot be trained, only evaluated"):
        engine.load({}, 1)
    assert main(["train", "--env", "agentgym/Hotter-v0", "--engine", "openai"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "a chat endpoint cannot be trained, only evaluated" in line


def test_a_running_server_trains_the_model_that_it_serves(capsys):
    command = ["train", "--env", "agentgym/Hotter-v0", "--engine", "vllm-server"]
    assert main([*command, "--server", "http://127.0.0.1:9"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "serves a model of its own: name it with `--model`" in line


def test_it_is_evaluated_from_the_command_line(tmp_path, capsys):
    """The service is a perfect player, who reads the conversation."""

    def answer(path, body):
        low, high = 1, 100
        messages = [message["content"] for message in body["messages"][1:]]
        for guess, hint in zip(messages[1::2], messages[2::2], strict=True):
            number = int(re.search(r"\d+", guess)[0])
            low, high = (number + 1, high) if "Higher" in hint else (low, number - 1)
        return said(f"<action>{(low + high) // 2}</action>")

    out = tmp_path / "episodes.jsonl"
    words = ["--env", "agentgym/Hotter-v0", "--out", str(out), "--engine", "openai"]
    few = ["--panel.tasks", "4", "--panel.episodes", "2"]
    with serving(answer) as (service, url):
        assert main(["eval", "perfect", *words, *few, "--server", url]) == 0
    assert "1.00" in capsys.readouterr().out
    assert len(out.read_text().splitlines()) == 1 + 8
    assert {body["model"] for _, body, _, _ in service.asked} == {"perfect"}
