"""Evaluation through a chat endpoint: requests, answers, retries and errors."""

import asyncio
import json
import math
import re
import time
from collections import Counter
from contextlib import AsyncExitStack
from email.utils import formatdate
from itertools import pairwise

import pytest
from http_service import serving

from agentgym.cli import main
from agentgym.engines import Engine
from agentgym.engines.chat import ChatEngine
from agentgym.engines.chat_messages import conversation_of, make_tokenizer, text_of
from agentgym.engines.endpoint import Endpoint, RetryPolicy
from agentgym.engines.http_pool import ConnectionPool
from agentgym.engines.stats import ChatUsage
from agentgym.errors import ConfigError, ContextTooLong, EngineError
from agentgym.evaluation.files import read_report
from agentgym.types import Sampling

TOKENIZER = make_tokenizer()
QUICK = RetryPolicy(deadline=5.0, connect_deadline=0.5, initial_delay=0.01)


def encoded(text):
    return TOKENIZER.encode(text, add_special_tokens=False)


STOP = tuple(encoded("<|end|>"))
TALK = (
    "<|system|>Be brief.<|user|>I hide a number.<|assistant|><action>50</action><|end|>"
    "<|user|>Lower. Not ü.<|assistant|>"
)


def answered(text="<action>25</action>", *, finish="stop", logprobs=None, usage=None, **message):
    """An answer; ``finish=None`` leaves its reason out."""
    choice = {"message": {"role": "assistant", "content": text, **message}, "logprobs": logprobs}
    if finish is not None:
        choice["finish_reason"] = finish
    return 200, {"choices": [choice], "usage": usage}


def engine_at(url, *, retry=QUICK, key=None, **options):
    return ChatEngine("m", Endpoint(url, key=key, retry=retry), TOKENIZER, **options)


def ask(url, *, prompt=TALK, engine=None, retry=QUICK, key=None, extra=None, **params):
    engine = engine or engine_at(url, retry=retry, key=key, extra=extra)
    assert isinstance(engine, Engine)
    return asyncio.run(engine.generate(encoded(prompt), Sampling(stop=STOP, **params)))


def text_asked(completion):
    return TOKENIZER.decode(list(completion.tokens))


def test_a_conversation_is_sent_as_messages_and_the_answer_is_encoded():
    with serving(lambda path, body: answered()) as (service, url):
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


def test_an_answer_cut_at_its_limit_has_no_stop_token_and_no_special_tokens():
    with serving(lambda path, body: answered("a<|user|>b", finish="length")) as (_, url):
        assert ask(url).tokens == tuple(encoded("ab"))


def test_log_probabilities_of_service_tokens_are_mapped_to_local_tokens():
    pieces = [("<act", -0.5), ("ion>2", -0.25), ("5", -1.5), ("</action>", -0.125)]
    reported = {"content": [{"token": text, "logprob": value} for text, value in pieces]}
    with serving(lambda path, body: answered(logprobs=reported)) as (_, url):
        completion = ask(url)
    # The local tokens are <action>, 2, 5, </action> and the stop token.
    assert completion.logprobs == (-0.75, 0.0, -1.5, -0.125, 0.0)
    reported["content"].append({"token": "<|im_end|>", "logprob": -2.0})
    with serving(lambda path, body: answered(logprobs=reported)) as (_, url):
        assert ask(url).logprobs == (-0.75, 0.0, -1.5, -0.125, -2.0)
    other = {"content": [{"token": "something else", "logprob": -1.0}]}
    with serving(lambda path, body: answered(logprobs=other)) as (_, url):
        assert all(math.isnan(x) for x in ask(url).logprobs[:-1])


def test_log_probabilities_are_left_out_where_a_service_refuses_them():
    def answer(path, body):
        refusal = 400, {"error": {"message": "logprobs are not supported"}}
        return refusal if "logprobs" in body else answered()

    with serving(answer) as (service, url):
        assert ask(url).tokens == tuple(encoded("<action>25</action><|end|>"))
    assert [("logprobs" in body) for _, body, _, _ in service.asked] == [True, False]


def test_fields_of_a_request_can_be_added_and_removed():
    with serving(lambda path, body: answered()) as (service, url):
        ask(url, extra={"max_tokens": None, "max_completion_tokens": 5})
    body = service.asked[0][1]
    assert "max_tokens" not in body and body["max_completion_tokens"] == 5


def test_defaults_of_sampling_are_left_out_and_seeds_have_31_bits():
    with serving(lambda path, body: answered()) as (service, url):
        ask(url, seed=2**62 + 5, temperature=0.0)
    body = service.asked[0][1]
    assert body["seed"] == 5 and body["temperature"] == 0.0
    assert "top_p" not in body and "top_k" not in body and "tools" not in body


def test_a_service_that_renamed_max_tokens_gets_the_new_name_from_then_on():
    def answer(path, body):
        refusal = {
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "param": "max_tokens",
        }
        return (400, {"error": refusal}) if "max_tokens" in body else answered()

    with serving(answer) as (service, url):
        engine = engine_at(url)
        for _ in range(2):
            ask(url, engine=engine, max_tokens=9)
    limits = [(b.get("max_tokens"), b.get("max_completion_tokens")) for _, b, _, _ in service.asked]
    assert limits == [(9, None), (None, 9), (None, 9)]


@pytest.mark.parametrize("name", ["seed", "temperature"])
def test_a_field_that_changes_nothing_is_left_out_where_a_service_refuses_it(name):
    def answer(path, body):
        refusal = 400, {"error": {"message": "Unsupported value", "param": name}}
        return refusal if name in body else answered()

    with serving(answer) as (service, url):
        ask(url, temperature=1.0)
        assert [name in body for _, body, _, _ in service.asked] == [True, False]
        if name == "temperature":
            with pytest.raises(EngineError, match="Unsupported value"):
                ask(url, temperature=0.5)


TOO_LONG = {
    "openai": {"message": "This model's maximum context length is 8192 tokens.", "code": "x"},
    "code": {"message": "no", "code": "context_length_exceeded"},
    "anthropic": {"message": "prompt is too long: 9 tokens > 8 maximum"},
    "vllm": {"message": "The input exceeds the model's context", "code": 400},
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_context_that_is_too_long_raises_its_own_error_type(name):
    with (
        serving(lambda path, body: (400, {"error": TOO_LONG[name]})) as (service, url),
        pytest.raises(ContextTooLong),
    ):
        ask(url)
    assert len(service.asked) == 1


def test_content_in_parts_and_a_missing_finish_reason_are_read():
    parts = [{"type": "text", "text": "<action>"}, {"type": "text", "text": "25</action>"}]
    with serving(lambda path, body: answered(parts, finish=None)) as (service, url):
        completion = ask(url)
    assert completion.tokens == tuple(encoded("<action>25</action><|end|>"))
    assert len(service.asked) == 1
    used = {"completion_tokens": 9}
    with serving(lambda path, body: answered("ab", finish=None, usage=used)) as (_, url):
        assert ask(url, max_tokens=9).finish == "length"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_are_part_of_the_completion_and_are_not_sent_back(field):
    with serving(lambda path, body: answered(**{field: "Half."})) as (service, url):
        engine = engine_at(url)
        first = text_asked(ask(url, engine=engine))
        talk = f"<|user|>Go.<|assistant|>{first}<|user|>Lower.<|assistant|>"
        ask(url, engine=engine, prompt=talk)
    assert first == "<think>Half.</think>\n<action>25</action><|end|>"
    assert service.asked[1][1]["messages"][1]["content"] == "<action>25</action>"


def test_a_thought_cut_at_the_limit_stays_open():
    with serving(lambda path, body: answered(None, finish="length", reasoning="Hm")) as (_, url):
        assert text_asked(ask(url)) == "<think>Hm"


SEARCH = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
OFFER = f"<|tools|>{json.dumps([SEARCH])}"


def test_native_tool_calls_become_text_and_go_back_as_calls_with_results():
    call = {"id": "x", "function": {"name": "search", "arguments": '{"query": "</a> ü"}'}}
    reply = answered(None, finish="tool_calls", tool_calls=[call])
    with serving(lambda path, body: reply) as (service, url):
        engine = engine_at(url)
        first = text_asked(ask(url, engine=engine, prompt=f"{OFFER}<|user|>Go.<|assistant|>"))
        assert first == (
            '<tool_call>{"name": "search", "arguments": {"query": "<\\/a> ü"}}</tool_call><|end|>'
        )
        talk = f"{OFFER}<|user|>Go.<|assistant|>{first}<|tool|>42<|assistant|>"
        ask(url, engine=engine, prompt=talk)
    assert service.asked[0][1]["tools"] == [SEARCH]
    _, assistant, tool = service.asked[1][1]["messages"]
    [sent] = assistant["tool_calls"]
    assert assistant["content"] is None and sent["function"]["name"] == "search"
    assert json.loads(sent["function"]["arguments"]) == {"query": "</a> ü"}
    assert tool == {"role": "tool", "tool_call_id": sent["id"], "content": "42"}


def test_malformed_calls_stay_text():
    talk = "<|user|>Go.<|assistant|>a <tool_call>{oops</tool_call><|user|>No.<|assistant|>"
    found = conversation_of(OFFER + talk, ()).messages
    assert [message["role"] for message in found] == ["user", "assistant", "user"]
    broken = {"function": {"name": "f", "arguments": "{1"}}
    assert text_of({"tool_calls": [broken]}, cut=False) == (
        '<tool_call>{"name": "f", "arguments": {1}</tool_call>'
    )


def test_several_calls_get_their_results_in_order():
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    results = "<tool_response>1</tool_response>\n<tool_response>2</tool_response>"
    for after, expected in {
        "<|tool|>1<|tool|>2": ["1", "2"],
        f"<|user|>{results}": ["1", "2"],
        "<|tool|>1": ["1", ""],
        "<|user|>There is no tool 'f'.": ["There is no tool 'f'.", ""],
    }.items():
        talk = f"{OFFER}<|user|>Go.<|assistant|>Both. {call}{call}{after}<|user|>On.<|assistant|>"
        _, assistant, *tools, last = conversation_of(talk, ()).messages
        assert assistant["content"] == "Both." and last["content"] == "On."
        assert [tool["content"] for tool in tools] == expected
        ids = [called["id"] for called in assistant["tool_calls"]]
        assert [tool["tool_call_id"] for tool in tools] == ids


def test_calls_stay_text_without_tools():
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    found = conversation_of(f"<|user|>Go.<|assistant|>{call}<|user|>On.<|assistant|>", ())
    assert found.tools == [] and found.messages[1] == {"role": "assistant", "content": call}


def test_a_service_that_takes_no_tools_reads_them_in_the_system_prompt():
    call = '<tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call>'

    def answer(path, body):
        refusal = {"message": '"auto" tool choice requires --enable-auto-tool-choice'}
        return (400, {"error": refusal}) if "tools" in body else answered(call)

    lines = []
    talk = f"<|system|>Be brief.<|user|>Go.<|assistant|>{call}<|tool|>1<|tool|>2<|assistant|>"
    with serving(answer) as (service, url):
        engine = engine_at(url, report=lines.append)
        for _ in range(2):
            assert text_asked(ask(url, engine=engine, prompt=OFFER + talk)) == f"{call}<|end|>"
    assert ["tools" in body for _, body, _, _ in service.asked] == [True, False, False]
    system, _, assistant, results = service.asked[-1][1]["messages"]
    assert system["content"].startswith("Be brief.") and json.dumps(SEARCH) in system["content"]
    assert assistant["content"] == call and results["role"] == "user"
    assert re.findall(r"<tool_response>\n(.*)\n</tool_response>", results["content"]) == ["1", "2"]
    [line] = lines
    assert "system prompt" in line and "--enable-auto-tool-choice" in line


def test_usage_is_summed_and_costs_come_from_the_service_or_from_prices():
    used = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 15},
    }
    with serving(lambda path, body: answered(finish="length", usage=used)) as (_, url):
        engine = engine_at(url)
        for _ in range(2):
            ask(url, engine=engine)
    assert engine.usage == ChatUsage(2, 2, 200, 128, 40, 30)
    assert engine.usage.priced(1.0, 10.0).dollars == pytest.approx(600e-6)
    assert engine.usage._replace(dollars=0.5).priced(1.0, 10.0).dollars == 0.5


def test_a_web_page_in_place_of_an_api_fails_at_once():
    with (
        serving(lambda path, body: (200, b"<html>Welcome</html>")) as (service, url),
        pytest.raises(EngineError, match=r"answered with a web page .status 200., expected JSON"),
    ):
        ask(url, retry=RetryPolicy())
    assert len(service.asked) == 1


def test_an_exhausted_quota_fails_without_waiting():
    spent = 429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    with (
        serving(lambda path, body: spent) as (service, url),
        pytest.raises(EngineError, match="exceeded your quota"),
    ):
        ask(url)
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("", "/v1"),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1/chat/completions", "/v1"),
        ("/openai/v1", "/openai/v1"),
        ("/v1beta/openai", "/v1beta/openai"),
        ("/api/v3", "/api/v3"),
    ],
)
def test_an_address_may_contain_the_api_version(given, asked):
    with serving(lambda path, body: answered()) as (service, url):
        ask(url + given)
    assert service.asked[0][0] == f"{asked}/chat/completions"


def test_waiting_is_reported():
    busy = [(429, {"error": "slow down"}, ("retry-after-ms", "300"))]
    lines = []

    def answer(path, body):
        if busy:
            return busy.pop()
        time.sleep(0.5)
        return answered()

    with serving(answer) as (_, url):
        retry = RetryPolicy(deadline=9, initial_delay=0.01, report_after=0.2)
        endpoint = Endpoint(url, retry=retry, report=lines.append)
        engine = ChatEngine("m", endpoint, TOKENIZER)
        ask(url, engine=engine)
    assert any("no answer for 0 s, 1 requests in flight" in line for line in lines)
    assert any("status 429: slow down; next try in 0.3 s" in line for line in lines)


def test_a_rate_limit_holds_back_every_request():
    wait = ("retry-after", formatdate(time.time() + 2, usegmt=True))
    answers = [(429, b"", wait)]
    with serving(lambda path, body: answers.pop(0) if answers else answered()) as (service, url):
        engine = engine_at(url)

        async def both():
            first = asyncio.create_task(engine.generate(encoded(TALK), Sampling()))
            await asyncio.sleep(0.3)
            await asyncio.gather(first, engine.generate(encoded(TALK), Sampling()))

        asyncio.run(both())
    first, *others = (when for *_, when in service.asked)
    assert len(others) == 2 and min(others) - first > 0.7


def test_cpu_per_request_does_not_grow_with_requests_in_flight():
    """Clients are filled one after another, so no pool has more than a few connections."""
    pool = ConnectionPool(False, trust_env=False)

    async def hold(count):
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(pool.client()) for _ in range(count)]
        return Counter(map(id, clients))

    assert set(asyncio.run(hold(64)).values()) == {8}
    assert pool.in_flight == 0
    assert len(asyncio.run(hold(3))) == 1


FAILURES = {
    "rate limit": (429, {"error": {"message": "slow down"}}),
    "a broken server": (500, {"detail": "oops"}),
    "a web page of a proxy": (502, b"<html>Bad gateway</html>"),
    "half an answer": (200, b'{"choices": [{"mess'),
    "no choices": (200, {"choices": []}),
    "another shape": (200, {"choices": [{"text": "hm", "finish_reason": "stop"}]}),
    "nothing": (200, b"null"),
    "a list of texts as content": (200, {"choices": [{"message": {"content": ["hm"]}}]}),
    "a list for numbers": (
        200,
        {"choices": [{"message": {"content": "hm"}, "logprobs": [1], "finish_reason": "stop"}]},
    ),
    "lists within lists": (200, b"[" * 100_000),
    "invalid gzip": (200, b"hm", ("content-encoding", "gzip")),
    "closed connection": None,
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_temporary_failure_is_retried(name):
    answers = [FAILURES[name], FAILURES[name], answered()]
    with serving(lambda path, body: answers.pop(0)) as (service, url):
        completion = ask(url)
    assert completion.tokens == tuple(encoded("<action>25</action><|end|>"))
    assert len(service.asked) == 3


@pytest.mark.parametrize("name", FAILURES)
def test_a_permanent_failure_gives_a_one_line_error_after_the_deadline(name):
    started = time.monotonic()
    with (
        serving(lambda path, body: FAILURES[name]) as (service, url),
        pytest.raises(EngineError, match=r"gave no usable answer in \d\.\d s, tried \d+ times"),
    ):
        ask(url, retry=RetryPolicy(deadline=1, connect_deadline=1, initial_delay=0.02))
    assert time.monotonic() - started < 5 and 2 <= len(service.asked) < 9


def test_delays_grow_and_retry_after_is_respected():
    wait = ("retry-after", "0.4")
    answers = [(500, b""), (500, b""), (429, b"", wait), answered()]
    with serving(lambda path, body: answers.pop(0)) as (service, url):
        ask(url, retry=RetryPolicy(deadline=20, initial_delay=0.05))
    times = [when for *_, when in service.asked]
    first, second, third = (b - a for a, b in pairwise(times))
    assert first >= 0.05 and second >= 0.1 and third >= 0.4


def test_a_hung_service_times_out():
    def hang(path, body):
        time.sleep(3)

    started = time.monotonic()
    with serving(hang) as (_, url), pytest.raises(EngineError, match=r"in 0\.\d s"):
        ask(url, retry=RetryPolicy(deadline=0.5))
    assert time.monotonic() - started < 2.5


def test_an_unreachable_address_fails_fast_in_one_line():
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9 gave no usable answer") as error:
        ask("http://127.0.0.1:9", retry=RetryPolicy(connect_deadline=0.2))
    assert "\n" not in str(error.value)
    assert "is the server running, and is its address right?" in str(error.value)
    for address in ("localhost:8000", "http://"):
        with pytest.raises(ConfigError, match="expected an address such as"):
            ask(address)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_rejected_request_is_not_retried(status):
    refusal = status, {"error": {"message": "no such\nthing"}}
    with (
        serving(lambda path, body: refusal) as (service, url),
        pytest.raises(EngineError, match=f"status {status}: no such thing"),
    ):
        ask(url)
    assert len(service.asked) == 1


def test_training_through_a_chat_endpoint_is_rejected(capsys):
    engine = ChatEngine("m", Endpoint("http://127.0.0.1:9"), TOKENIZER)
    with pytest.raises(ConfigError, match="cannot be trained, only evaluated"):
        engine.load({}, 1)
    assert main(["train", "--env", "agentgym/Hotter-v0", "--engine", "openai"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "a chat endpoint cannot be trained, only evaluated" in line


def test_training_with_a_running_server_needs_a_model(capsys):
    command = ["train", "--env", "agentgym/Hotter-v0", "--engine", "vllm-server"]
    assert main([*command, "--server", "http://127.0.0.1:9"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "serves a model of its own: name it with `--model`" in line


def test_a_chat_endpoint_can_be_evaluated_from_the_command_line(tmp_path, capsys):
    """The service plays perfectly from the conversation that it receives."""

    def answer(path, body):
        low, high = 1, 100
        messages = [message["content"] for message in body["messages"][1:]]
        for guess, hint in zip(messages[1::2], messages[2::2], strict=True):
            number = int(re.search(r"\d+", guess)[0])
            low, high = (number + 1, high) if "Higher" in hint else (low, number - 1)
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        return answered(f"<action>{(low + high) // 2}</action>", usage=usage)

    out = tmp_path / "episodes.jsonl"
    words = ["--env", "agentgym/Hotter-v0", "--out", str(out), "--engine", "openai"]
    few = ["--panel.tasks", "4", "--panel.episodes", "2"]
    with serving(answer) as (service, url):
        price = ["--panel.temperature", "0", "--endpoint.prompt-price", "100"]
        more = ["--endpoint.fields", "reasoning_effort", "low"]
        address = ["--server", f"{url}/v1/"]
        assert main(["eval", "perfect", *words, *few, *price, *more, *address]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        count = len(service.asked)
        again = [*few[:2], "--panel.episodes", "3", *price, *more, *address]
        assert main(["eval", "perfect", *words, *again]) == 0
    assert "1.00" in shown
    assert f"${count / 1000:,.2f}" in shown
    assert f"endpoint: {count:,} requests, {10 * count:,} prompt tokens (0 cached)" in shown
    assert f"{count / 1000:.4f} dollars" in shown
    for path, body, _, _ in service.asked:
        assert path == "/v1/chat/completions"
        assert body["temperature"] == 0 and body["reasoning_effort"] == "low"
    assert len(out.read_text().splitlines()) == 1 + 8 + 1 + 4 + 1
    both = read_report(out)
    assert both.cost.prompt_tokens == 10 * len(service.asked) > 10 * count
    assert both.cost.completion_tokens == 5 * len(service.asked)
    assert both.only("").usage is None and not both.notes
    assert {body["model"] for _, body, _, _ in service.asked} == {"perfect"}


def solved_by_tools(path, body):
    """Runs a program first, then answers with what it printed."""
    call = {"id": "x", "type": "function"}
    last = body["messages"][-1]
    if last["role"] == "tool":
        function = {"name": "answer", "arguments": json.dumps({"result": last["content"].strip()})}
    else:
        [numbers] = re.findall(r"(\d+(?: [-+*] \d+)+)", last["content"])
        function = {"name": "python", "arguments": json.dumps({"code": f"print({numbers})"})}
    return answered(None, finish="tool_calls", tool_calls=[{**call, "function": function}])


def test_a_tool_environment_is_played_by_native_calls(tmp_path, sums):
    out = tmp_path / "episodes.jsonl"
    words = ["--env", "agentgym/PythonMath-v0", "--data", str(sums), "--out", str(out)]
    words += ["--env-args", "data_split", "test", "--panel.tasks", "2", "--panel.episodes", "1"]
    with serving(solved_by_tools) as (service, url):
        assert main(["eval", "m", *words, "--engine", "openai", "--server", url]) == 0
    first, second = (b for _, b, _, _ in service.asked if "12 * 34" in str(b["messages"]))
    assert [tool["function"]["name"] for tool in first["tools"]] == ["python", "answer"]
    system, user = (message["content"] for message in first["messages"])
    assert "<python>" not in system + user and "<tool_call>" not in system + user
    assert "interpreter" in system
    *_, assistant, tool = second["messages"]
    assert second["tools"] == first["tools"] and assistant["content"] is None
    [call] = assistant["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"code": "print(12 * 34)"}
    assert tool == {"role": "tool", "tool_call_id": call["id"], "content": "408"}
    report = read_report(out)
    assert report.spec.settings["action_format"] == "native"
    assert [task.won for task in report.tasks] == [1, 1]


@pytest.fixture
def sums(tmp_path):
    rows = [{"problem": "12 * 34", "answer": "408"}, {"problem": "5 + 6", "answer": "11"}]
    file = tmp_path / "sums.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file
