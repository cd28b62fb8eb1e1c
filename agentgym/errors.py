"""All exceptions that this package raises on purpose.

AgentGymError
├── ConfigError         a name, a field or a value in a configuration is wrong
│   └── CannotWrite     a disk is full, or a folder admits no files
├── ImpossibleValue     a setting has a value that no run can use
├── MissingExtra        an optional package is not installed; the message names the command
│   └── Unconfined      this machine cannot sandbox untrusted code as required
├── UnknownTask         a task id that the environment does not have
├── EnvError          an environment failed (corrupt game, dead process); never the agent's fault
│   ├── Unreachable     a service that a tool calls was not reached
│   ├── EnvTimeout    it, or a tool in it, did not answer in time
│   └── EnvLost       its process was lost from outside
├── CompositionError    the pieces of an algorithm do not fit together
├── MalformedAction     the completion is not an action (becomes an observation, never a crash)
├── EngineError         an engine failed or is not the expected one; the completion is lost
│   ├── MalformedAnswer a service gave answers, none of them usable
│   ├── RequestRejected a service refused a request
│   └── ContextTooLong  a prompt does not fit the context of a service (the episode is truncated)
├── OutOfMemory         a model and its batch do not fit into memory
├── TrainingError       training cannot continue: engine and trainer differ, learner used twice
│   └── NotFinite       a loss or a gradient is not finite (in agentgym.training.learner)
└── NotReplayable       an environment answered the same task, seed and actions differently
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AgentGymError(Exception):
    """Base of all deliberate errors; the message is one line that states what to do."""


class ConfigError(AgentGymError, ValueError):
    """A name, a field or a value in a configuration is wrong."""


class CannotWrite(ConfigError):
    """A file or folder cannot be written, as on a full disk; what was written before is whole."""


class ImpossibleValue(AgentGymError):
    """A setting has a value that no run can use, such as a group size of 1.

    Not a ``ValueError``, so that parsers do not report it as a value of the wrong type.
    """


class MissingExtra(AgentGymError, ImportError):
    """An optional package is not installed."""


class Unconfined(MissingExtra, ConfigError):
    """This machine cannot sandbox untrusted code as required; the message states what it lacks."""


class UnknownTask(AgentGymError, ValueError):
    """A task id that the environment does not have."""


class EnvError(AgentGymError, RuntimeError):
    """An environment failed. The episode measures the environment, not the agent."""


class CacheError(EnvError):
    """The folder in which environments keep prepared files cannot be written."""


class Unreachable(EnvError):
    """A service that a tool calls was not reached; a retry may succeed."""


class EnvTimeout(EnvError):
    """An environment, or a tool in it, did not answer in time."""


class EnvLost(EnvError):
    """An environment was lost from outside, for example because its process died."""


class CompositionError(AgentGymError, TypeError):
    """The pieces of an algorithm do not fit together."""


class MalformedAction(AgentGymError):
    """The completion is not an action; the message is shown to the agent."""


class EngineError(AgentGymError, RuntimeError):
    """An engine failed or is not the expected one; a requested completion is lost."""


class MalformedAnswer(EngineError):
    """A service gave answers, and none of them could be used."""


class RequestRejected(EngineError):
    """A service refused a request; the same request would be refused again.

    Args:
        message: One line.
        status: Of HTTP.
        code: Of the error, such as ``context_length_exceeded``; empty if none is given.
        param: Request field that the service objects to; empty if none is given.
    """

    def __init__(self, message: str, status: int, *, code: str = "", param: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class ContextTooLong(EngineError):
    """A prompt and its completion do not fit the context of a service."""


class OutOfMemory(AgentGymError, MemoryError):
    """A model and its batch do not fit into memory."""


class TrainingError(AgentGymError, RuntimeError):
    """Training cannot continue; the step was not taken."""


class NotReplayable(AgentGymError):
    """An environment answered the same task, seed and actions differently."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error: the nearest known name, or nothing.

    Examples:
        >>> did_you_mean("epoo", ["epo", "grpo"])
        " Did you mean 'epo'?"
        >>> did_you_mean("xyz", ["epo"])
        ''
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def one_line(problem: BaseException) -> str:
    """Type and last line of an exception, where libraries put the reason."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return f"{type(problem).__name__}: {lines[-1]}" if lines else type(problem).__name__
