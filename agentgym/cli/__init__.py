"""The command line: one verb per function; only this package knows tyro.

The fields and docstrings of a verb's dataclass are its options and its help.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from agentgym.cli.about import algorithms, doctor
from agentgym.cli.evaluation import evaluate
from agentgym.cli.training import train
from agentgym.cli.view import view
from agentgym.cli.worlds import check, envs, new_env, play, serve
from agentgym.errors import AgentGymError, ConfigError, did_you_mean

USAGE = """\
usage: agentgym VERB [options]

  train        train an agent in a world, and show that it got better
  eval         play a frozen panel of tasks with a model and report pass@k
  view         look at the episodes of runs in a browser, or as one HTML file
  play         play a world yourself, in the terminal
  serve        let people play a world in a web browser, or programs by MCP; or a service
  check        check that a world keeps the contract
  new-env      write a package with a world of your own
  doctor       say which engines work on this machine, and why others do not
  envs         list the worlds: splits, tasks, horizon, what is installed
  algorithms   list the algorithms: paper, and what each chooses

`agentgym VERB --help` explains a verb's options.
"""

VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "eval": evaluate,
    "view": view,
    "play": play,
    "serve": serve,
    "check": check,
    "new-env": new_env,
    "doctor": doctor,
    "envs": envs,
    "algorithms": algorithms,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; a deliberate failure is one line on stderr and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Threads of PyTorch that spin while they wait cost most of the speed on a busy machine and gain
    # nothing on an idle one. Read when torch is loaded, so it must be said before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. What is still buffered goes nowhere, or
        # the interpreter would complain when it flushes on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(words: list[str]) -> int:
    try:
        if not words or words[0] in ("-h", "--help"):
            print(USAGE, end="")
            return 0 if words else 2
        verb, *rest = words
        if verb not in VERBS:
            known = ", ".join(VERBS)
            raise ConfigError(f"no verb {verb!r}.{did_you_mean(verb, VERBS)} Verbs: {known}")
        return VERBS[verb](rest)
    except AgentGymError as error:
        print(f"agentgym: {error}", file=sys.stderr)
        return 2
