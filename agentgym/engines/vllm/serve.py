"""Runs vLLM's HTTP server while its standard input is open, for those who have its token.

The process that started it holds the other end, so the server exits with its owner in any case,
even where something else, such as Ray, has killed the server's first process before. The token is
in the environment variable ``AGENTGYM_TOKEN``. vLLM's own key guards the paths under ``/v1`` alone,
not those that pause the server or load weights.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from agentgym.utils.access import TOKEN, Guarded

SERVER = "vllm.entrypoints.openai.api_server"


def _end_with_owner() -> None:
    """Watch the owner from a process of its own, which ends the whole group."""
    if os.fork():
        return
    while os.read(0, 1024):
        pass
    # vLLM's own processes are in this group; they must free the accelerator now.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    _end_with_owner()
    if not os.environ.get(TOKEN):
        sys.exit(f"set the environment variable {TOKEN} to a secret")
    sys.argv = [SERVER, *sys.argv[1:], "--middleware", f"{Guarded.__module__}.{Guarded.__name__}"]
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)
