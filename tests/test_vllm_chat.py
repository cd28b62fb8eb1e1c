"""The chat engine against vLLM's OpenAI server with a real model; run by scripts/test-vllm."""

import asyncio
import json
import math

import pytest

pytest.importorskip("vllm", reason="scripts/test-vllm installs it")

from agentgym.engines.chat import ChatEngine
from agentgym.engines.chat_messages import make_tokenizer
from agentgym.engines.endpoint import Endpoint
from agentgym.engines.vllm.arguments import ENVIRONMENT, defaults
from agentgym.engines.vllm.process import ServerProcess
from agentgym.errors import ContextTooLong, EngineError
from agentgym.types import Sampling

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
    pytest.mark.pretrained,
]
TOKENIZER = make_tokenizer()
STOP = tuple(TOKENIZER.encode("<|end|>", add_special_tokens=False))
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the web.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "maxLength": 20}},
            "required": ["query"],
        },
    },
}


@pytest.fixture(scope="module")
def endpoint(pretrained, tmp_path_factory):
    settings = {
        "model": str(pretrained),
        "served-model-name": "small",
        "host": "127.0.0.1",
        "dtype": "bfloat16",
        "max-model-len": 512,
        "max-num-seqs": 8,
        "tool-call-parser": "hermes",
        "block-size": defaults(False)["block_size"],
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    words += ["--enforce-eager", "--enable-auto-tool-choice"]
    log = tmp_path_factory.mktemp("server") / "log"
    server = ServerProcess("agentgym.engines.vllm.serve", words, ENVIRONMENT, log=log, deadline=600)
    server.ensure()
    yield Endpoint(f"{server.url}/v1", key=server.token)
    server.stop()


def ask(engine, talk, **params):
    prompt = TOKENIZER.encode(talk, add_special_tokens=False)
    completion = asyncio.run(engine.generate(prompt, Sampling(stop=STOP, **params)))
    return TOKENIZER.decode(list(completion.tokens)), completion


def test_an_answer_has_log_probabilities_and_usage(endpoint):
    engine = ChatEngine("small", endpoint, TOKENIZER)
    talk = "<|system|>Be brief.<|user|>What is the capital of France?<|assistant|>"
    text, completion = ask(engine, talk, max_tokens=24, temperature=0.0)
    again, _ = ask(engine, talk, max_tokens=24, temperature=0.0)
    assert "Paris" in text and again == text
    assert -24 < math.fsum(completion.logprobs) < 0
    assert engine.usage.requests == 2
    assert engine.usage.prompt_tokens > 20 and engine.usage.completion_tokens > 4
    cut, completion = ask(engine, talk, max_tokens=2, seed=2**62)
    assert completion.finish == "length" and "<|end|>" not in cut and engine.usage.cut == 1


def test_a_native_tool_call_is_returned_and_its_result_accepted(endpoint):
    forced = {"tool_choice": {"type": "function", "function": {"name": "search"}}}
    engine = ChatEngine("small", endpoint, TOKENIZER, extra=forced)
    talk = f"<|tools|>{json.dumps([SEARCH])}<|user|>Search for rivers.<|assistant|>"
    text, _ = ask(engine, talk, max_tokens=64, seed=1)
    assert text.startswith('<tool_call>{"name": "search", "arguments": ')
    free = ChatEngine("small", endpoint, TOKENIZER)
    talk += f"{text}<|tool|>Elbe, Rhine<|assistant|>"
    _, completion = ask(free, talk, max_tokens=8)
    assert completion.tokens


def test_a_conversation_longer_than_the_context_raises_context_too_long(endpoint):
    engine = ChatEngine("small", endpoint, TOKENIZER)
    with pytest.raises(ContextTooLong) as error:
        ask(engine, f"<|user|>{'river ' * 600}<|assistant|>", max_tokens=8)
    assert "\n" not in str(error.value)


def test_an_unknown_model_gives_a_one_line_error(endpoint):
    engine = ChatEngine("other", endpoint, TOKENIZER)
    with pytest.raises(EngineError, match="status 404") as error:
        ask(engine, "<|user|>Hi<|assistant|>", max_tokens=8)
    assert "\n" not in str(error.value)
