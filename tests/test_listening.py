"""The server of agent programs: it serves while its context lasts, or says why it cannot."""

import asyncio

import httpx
import pytest

from agentgym.programs.listening import listening


async def hello(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def asked():
    async with listening(hello) as url, httpx.AsyncClient() as client:
        answer = await client.get(url)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    return answer.text


def test_it_answers_until_its_context_ends():
    assert asyncio.run(asked()) == "hello"


def test_a_server_that_cannot_start_raises_instead_of_waiting(monkeypatch):
    async def refused(*_args, **_named):
        raise OSError("no buffer space")

    async def enter():
        monkeypatch.setattr(asyncio.get_running_loop(), "create_server", refused)
        async with listening(hello):
            pass

    with pytest.raises(OSError, match="no buffer space"):
        asyncio.run(asyncio.wait_for(enter(), 30))
