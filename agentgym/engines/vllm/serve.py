"""Runs vLLM's HTTP server while its standard input is open.

The process that started it holds the other end, so the server exits with its owner in any case.
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
    # vLLM's own processes are in this group; they must free the accelerator now.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_owner, daemon=True).start()
    sys.argv[0] = SERVER
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)
