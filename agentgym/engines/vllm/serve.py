"""Runs vLLM's HTTP server for as long as its standard input is open.

Whoever started it holds the other end, so a server cannot outlive its owner, however that one ends.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

SERVER = "vllm.entrypoints.openai.api_server"


def _end_with_owner() -> None:
    while os.read(0, 1024):
        pass
    # The engine's own processes are in our group; they are to leave the accelerator's memory now.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_owner, daemon=True).start()
    sys.argv[0] = SERVER
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)
