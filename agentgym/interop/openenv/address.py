"""Who reaches a server: this machine, or others with a token."""

from __future__ import annotations

import ipaddress
import os

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
