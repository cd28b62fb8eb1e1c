"""The command line: one verb per function; only this package knows tyro.

The fields and docstrings of a verb's dataclass are its options and its help.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from io import TextIOWrapper

from agentgym.errors import AgentGymError, ConfigError, did_you_mean
from agentgym.plugins import missing_extra

USAGE = """\
usage: agentgym VERB [options]

  train        train an agent in an environment, and measure how much it improves
  eval         play a frozen panel of tasks with a model and report pass@k
  compare      test whether evaluations differ, by how much, and on which tasks
  plan         estimate how fast training would be on a number of GPUs, and how to divide them
  plan-eval    compute how many tasks and episodes an evaluation needs
  report       write the report of a run, or of several over one another, as HTML
  probe        estimate what every turn of an episode was worth, by playing on from it
  verify       play a sample of an evaluation again, and check that it is the same
  view         look at the episodes of runs in a browser, or as one HTML file
  score        score stored episodes by a function or a judge, without playing again
  export       write episodes for other projects: openai, atif, verl, trl, inspect
  import       write episodes of other projects as our records
  play         play an environment yourself, in the terminal
  serve        serve an environment to people in a web browser, or to programs by MCP
  check        check that an environment keeps the contract
  new-env      write a package with an environment of your own
  doctor       report which engines work on this machine, and why others do not
  envs         list the environments: splits, tasks, turn limit, what is installed
  algorithms   list the algorithms: paper, and what each chooses

`agentgym VERB --help` explains a verb's options; `agentgym --version` prints the version.
"""

VERBS = {
    "train": "training:train",
    "eval": "evaluation:evaluate",
    "compare": "comparison:compare",
    "plan": "planning:plan",
    "plan-eval": "comparison:plan_eval",
    "report": "report:report",
    "probe": "probe:probe",
    "verify": "verification:verify",
    "view": "view:view",
    "score": "scoring:score",
    "export": "interchange:export_episodes",
    "import": "interchange:import_episodes",
    "play": "worlds:play",
    "serve": "serving:serve",
    "check": "worlds:check",
    "new-env": "worlds:new_env",
    "doctor": "about:doctor",
    "envs": "worlds:envs",
    "algorithms": "about:algorithms",
}
"""Verb to module and function of this package; a module is imported when its verb runs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; an expected failure is one line on stderr and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Spinning OpenMP threads cost most of the speed on a busy machine and gain nothing on an idle
    # one. torch reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not _leads():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # Terminals that cannot show a character.
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has closed it, as `head` does. Buffered output is discarded, or
        # the interpreter would report an error when it flushes on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(words: list[str]) -> int:
    try:
        return _verb(words)
    except AgentGymError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        raise
    except ImportError as problem:
        missing = missing_extra(problem)
        if missing is None:
            raise
        return _refuse(str(missing))
    except OSError as problem:
        if problem.filename is None or problem.strerror is None:
            raise
        return _refuse(f"{problem.filename}: {problem.strerror}")


def _verb(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from agentgym import __version__

        print(f"agentgym {__version__}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        known = ", ".join(VERBS)
        raise ConfigError(f"no verb {verb!r}.{did_you_mean(verb, VERBS)} Verbs: {known}")
    module, _, name = VERBS[verb].partition(":")
    run: Callable[[list[str]], int] = getattr(import_module(f"agentgym.cli.{module}"), name)
    return run(rest)


def _leads() -> bool:
    """Whether this process speaks: alone, or as rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _refuse(message: str) -> int:
    if not _leads():
        return 2
    print(f"agentgym: {message}", file=sys.stderr)
    return 2
