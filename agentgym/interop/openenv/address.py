"""Who reaches a server: this machine, or others with a token."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from agentgym.errors import ConfigError

TOKEN = "AGENTGYM_OPENENV_TOKEN"
"""Environment variable with the token that clients must send, and that our client sends."""


def check_address(host: str, *, audit: bool) -> str:
    """The token that clients must send; empty where none is needed.

    Raises:
        ConfigError: Other machines could reach the server, and there is no token; or they could
            ask for the oracle.
    """
    token = os.environ.get(TOKEN, "")
    if is_loopback(host):
        return token
    if audit:
        raise ConfigError(f"--audit shows the oracle: it is for 127.0.0.1, not for {host}")
    if not token:
        raise ConfigError(
            f"{host} admits other machines: set the environment variable {TOKEN} to a secret, "
            f"which clients send as `Authorization: Bearer SECRET`"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refusal(headers: Mapping[str, str], token: str) -> tuple[int, str] | None:
    """Why a request is not answered: no token, or sent by a page of another site.

    Args:
        headers: Of the request.
        token: What clients must send as bearer token; empty: nothing.
    """
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return 403, "requests from web pages of other sites are refused"
    if token:
        _, _, given = headers.get("authorization", "").partition(" ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            return 401, "send `Authorization: Bearer TOKEN` with the server's token"
    return None
