"""Every exception this package raises on purpose.

AgentGymError
├── ConfigError         a name, a field or a value in a configuration is wrong
├── ImpossibleValue     a hyper-parameter has a value that no run could have
├── MissingExtra        an optional package is not installed; the message says how to get it
│   └── Unconfined      this machine cannot confine foreign code as it must
├── UnknownTask         a task id that the world does not have
├── EnvError          a world broke (corrupt game, dead process); never the agent's fault
│   ├── Unreachable     what a tool talks to was not reached
│   ├── EnvTimeout    it, or a tool in it, gave no answer in time
│   └── EnvLost       it lost its process through no fault of its own
├── CompositionError    the pieces of an algorithm do not fit together
├── MalformedAction     the agent's text is not an action (becomes an observation, never a crash)
├── EngineError         an engine broke, or is not the one expected; what was asked for is lost
├── OutOfMemory         a model, with what it reads, does not fit into memory
├── TrainingError       training cannot go on: engine and trainer differ, a learner used twice
│   └── NotFinite       a loss or a gradient is no finite number (in agentgym.training.learner)
└── NotReplayable       a world gave a different answer to the same task, seed and actions
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AgentGymError(Exception):
    """Base of every deliberate failure; its text is one line that says what to do."""


class ConfigError(AgentGymError, ValueError):
    """A name, a field or a value in a configuration is wrong."""


class ImpossibleValue(AgentGymError):
    """A hyper-parameter has a value that no run could have, such as a group of one.

    No ``ValueError``, so that no parser takes it for a value of the wrong type.
    """


class MissingExtra(AgentGymError, ImportError):
    """An optional package is not installed."""


class Unconfined(MissingExtra, ConfigError):
    """This machine cannot confine foreign code as it must; the message says what it lacks."""


class UnknownTask(AgentGymError, ValueError):
    """A task id that the world does not have."""


class EnvError(AgentGymError, RuntimeError):
    """A world broke. The episode is data about the world, not about the agent."""


class Unreachable(EnvError):
    """What a tool talks to was not reached; a call may be worth another try."""


class EnvTimeout(EnvError):
    """A world, or a tool in it, gave no answer in time."""


class EnvLost(EnvError):
    """A world lost its place, such as its process, through no fault of its own."""


class CompositionError(AgentGymError, TypeError):
    """The pieces of an algorithm do not fit together."""


class MalformedAction(AgentGymError):
    """The agent's text is not an action; the message is shown to the agent."""


class EngineError(AgentGymError, RuntimeError):
    """An engine broke or is not the one expected; a completion that was asked for is lost."""


class OutOfMemory(AgentGymError, MemoryError):
    """A model, with what it reads, does not fit into memory."""


class TrainingError(AgentGymError, RuntimeError):
    """Training cannot go on; the step was not taken."""


class NotReplayable(AgentGymError):
    """A world gave a different answer to the same task, seed and actions."""


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
