"""A vLLM server in separate processes; run by scripts/test-vllm."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

pytest.importorskip("vllm", reason="scripts/test-vllm installs it")

from engine_contract import (
    TIED,
    UNTIED,
    Crowd,
    Subject,
    ask,
    assert_agrees,
    every_rule,
    model_of,
    words,
)

from agentgym.engines.endpoint import Endpoint
from agentgym.engines.factory import EngineFactory
from agentgym.engines.vllm.server import ServerEngine
from agentgym.errors import ConfigError, EngineError, RequestRejected
from agentgym.types import Sampling
from agentgym.utils.access import TOKEN

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("ours")
    model_of(TIED).save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def subject(folder):
    engine = ServerEngine(str(folder), slots=8, context=1000)  # The limit of the model applies.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN, engine._process.token)  # Others use this server, too.
        yield Subject(engine, model_of(TIED))
    engine.close()


@every_rule
def test_the_engine_satisfies_the_contract(rule, subject):
    rule(subject)


def test_an_untied_head_is_updated(tmp_path):
    """The subject's is tied."""
    model_of(UNTIED).save_pretrained(tmp_path)
    engine, other = ServerEngine(str(tmp_path), slots=8, context=1000), model_of(UNTIED, seed=1)
    try:
        assert_agrees(model_of(UNTIED), words(20, 1), ask(engine, words(20, 1), max_tokens=9))
        engine.load(other.state_dict(), 1)
        assert_agrees(other, words(20, 1), ask(engine, words(20, 1), max_tokens=9))
    finally:
        engine.close()


def test_entropies_are_exact(subject):
    assert subject.engine.exact_entropies


@pytest.mark.parametrize("given", [None, "wrong"])
def test_nothing_is_answered_without_the_token(subject, given):
    """vLLM's own key would leave all but the first open."""
    stranger = Endpoint(subject.engine._endpoint.url, key=given)
    for path in ("/v1/models", "/health", "/pause", "/collective_rpc"):
        with pytest.raises(RequestRejected, match="status 401"):
            stranger.request("GET" if path in ("/v1/models", "/health") else "POST", path)


def test_a_running_server_is_used_and_left_running(subject, folder):
    url = subject.engine._endpoint.url
    guest = ServerEngine(str(folder), url=url, context=1000)
    other = model_of(TIED, seed=1)
    try:
        assert_agrees(subject.model, words(20, 1), ask(guest, words(20, 1), max_tokens=9))
        guest.load(other.state_dict(), 3)
        completion = ask(guest, words(20, 1), max_tokens=9)
        assert completion.version == 3
        assert_agrees(other, words(20, 1), completion)
    finally:
        guest.load(subject.model.state_dict(), 0)
        guest.close()
    assert_agrees(subject.model, words(20, 2), ask(subject.engine, words(20, 2), max_tokens=9))


def test_a_running_server_receives_the_weights_in_memory(subject, folder):
    engines = EngineFactory("vllm-server", subject.engine._endpoint.url, server_model=str(folder))
    other = model_of(TIED, seed=1)
    try:
        guest = engines.make(other, None, slots=8, context=160)
        assert_agrees(other, words(20, 1), ask(guest, words(20, 1), max_tokens=9))
    finally:
        guest.load(subject.model.state_dict(), 0)
        engines.close()


def test_a_server_of_another_model_is_rejected_in_one_line(subject, tmp_path):
    model_of(TIED).save_pretrained(tmp_path / "another")
    with pytest.raises(EngineError, match=r"serves .*, expected .*another") as error:
        ServerEngine(str(tmp_path / "another"), url=subject.engine._endpoint.url)
    assert "\n" not in str(error.value)


def test_a_server_that_pauses_mid_batch_keeps_partial_completions(subject):
    """As an external operator may; resumed completions have the same weights."""
    engine = subject.engine

    async def play():
        crowd = Crowd(engine)
        while not crowd.found:
            await asyncio.sleep(0.05)
        request = partial(asyncio.to_thread, engine._endpoint.request, "POST")
        await request("/pause", params={"mode": "keep"})  # type: ignore[call-arg]
        await asyncio.sleep(2)  # Answers that were ready may still be on their way.
        before = len(crowd.found)
        await asyncio.sleep(2)
        assert len(crowd.found) == before
        await request("/resume")  # type: ignore[call-arg]
        await asyncio.wait_for(crowd.leave(), 600)
        assert len(crowd.found) > before
        return crowd.found

    for number, completion in asyncio.run(play()):
        assert len(completion.tokens) == 120
        assert_agrees(subject.model, words(30, number), completion)


def test_a_server_killed_mid_batch_restarts_and_loses_no_completion(subject):
    """With the last loaded weights, which differ from those at startup."""
    engine, other = subject.engine, model_of(TIED, seed=1)
    engine.load(other.state_dict(), 4)

    async def play():
        crowd = Crowd(engine)
        while not crowd.found:
            await asyncio.sleep(0.05)
        os.killpg(engine._process._process.pid, signal.SIGKILL)
        before = len(crowd.found)
        await asyncio.wait_for(crowd.leave(), 600)
        return crowd.found, before

    try:
        found, before = asyncio.run(play())
        assert len(found) > before
        for number, completion in found:
            assert completion.version == 4
            assert_agrees(other, words(30, number), completion)
    finally:
        engine.load(subject.model.state_dict(), 0)


def test_an_external_server_that_restarted_receives_its_weights_again(subject, folder):
    guest = ServerEngine(str(folder), url=subject.engine._endpoint.url, context=1000)
    other, process = model_of(TIED, seed=1), subject.engine._process
    try:
        guest.load(other.state_dict(), 3)
        os.killpg(process._process.pid, signal.SIGKILL)

        async def ask_while_it_is_away():
            asked = asyncio.create_task(guest.generate(words(20, 1), Sampling(max_tokens=9)))
            await asyncio.sleep(1)
            await asyncio.to_thread(process.ensure)
            return await asked

        completion = asyncio.run(ask_while_it_is_away())
        assert completion.version == 3
        assert_agrees(other, words(20, 1), completion)
    finally:
        guest.close()
        subject.engine._restart()
        subject.engine.load(subject.model.state_dict(), 0)


def test_a_server_that_cannot_start_gives_the_reason_in_one_line(tmp_path):
    model_of(TIED).save_pretrained(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(EngineError, match="ended before it was ready") as error:
        ServerEngine(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_missing_model_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match="no causal language model"):
        ServerEngine(str(tmp_path / "nothing"))


def assert_ends(group):
    """All processes of a group end within seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("processes are left")


def test_a_closed_server_leaves_no_process(folder):
    engine = ServerEngine(str(folder))
    group = engine._process._process.pid
    engine.close()
    assert_ends(group)


OWNER = """
import sys, time
from agentgym.engines.vllm.server import ServerEngine
engine = ServerEngine(sys.argv[1])
print(engine._process._process.pid, flush=True)
time.sleep(600)
"""


def test_a_server_ends_with_its_owner_though_its_first_process_was_killed_before(folder):
    """Ray kills the children of a worker with the worker, and not their children."""
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        group = int(owner.stdout.readline())
        os.kill(group, signal.SIGKILL)
        owner.kill()
    assert_ends(group)
