"""HTTP connections of one event loop, spread over many small httpx clients.

The cost of a request in one httpx pool grows with the number of its connections, so a client
holds few of them and further requests get further clients.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

PER_CLIENT = 8
"""Requests in flight per client."""


@dataclass(slots=True, eq=False)
class _Client:
    http: httpx.AsyncClient
    users: int = 0


class ConnectionPool:
    """Lends clients; closes them when no request is in flight.

    Connections belong to the event loop that opened them and are closed before it ends, because
    the last request in flight closes them.

    Args:
        verify: TLS context, or False for plain HTTP.
        trust_env: Whether to use the proxy settings of the environment.
    """

    def __init__(self, verify: ssl.SSLContext | bool, *, trust_env: bool) -> None:
        self._verify, self._trust_env = verify, trust_env
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: list[_Client] = []
        self._free: list[_Client] = []
        """Clients that can take another request."""
        self.in_flight = 0

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client for one request."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._clients, self._free, self.in_flight = loop, [], [], 0
        mine = self._take()
        try:
            yield mine.http
        finally:
            if self._loop is loop:
                await self._give_back(mine)

    def _take(self) -> _Client:
        if not self._free:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            http = httpx.AsyncClient(limits=limits, verify=self._verify, trust_env=self._trust_env)
            self._clients.append(_Client(http))
            self._free.append(self._clients[-1])
        mine = self._free[-1]
        mine.users += 1
        self.in_flight += 1
        if mine.users == PER_CLIENT:
            self._free.pop()
        return mine

    async def _give_back(self, mine: _Client) -> None:
        if mine.users == PER_CLIENT:
            self._free.append(mine)
        mine.users -= 1
        self.in_flight -= 1
        if not self.in_flight:
            closing, self._clients, self._free = self._clients, [], []
            await asyncio.gather(*(each.http.aclose() for each in closing))
