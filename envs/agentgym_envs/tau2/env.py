"""tau2-bench: customer service by policy and tools, after Barres et al. 2025 (arXiv:2506.07982)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np

from agentgym.env.base import AnyText, Opening, Outcome, one_of, unknown_split, unknown_task
from agentgym.errors import ConfigError, EnvError
from agentgym.tools.user import GREETING, SimulatedUser
from agentgym_envs.functions import FunctionEnv, Result
from agentgym_envs.tau2 import package
from agentgym_envs.tau2.domains import DOMAINS, DONE, SPLITS, Spoken
from agentgym_envs.tau2.domains import domain as _domain
from agentgym_envs.tau2.package import ENV

_SOLO = (
    "You are an agent of customer service. You get a ticket with the request of a customer and "
    "solve it by calling functions, as the policy below says. You cannot talk to the customer, "
    "and you work the customer's device yourself, by functions."
)
_TALK = (
    "You are an agent of customer service. You talk to a customer and do what the customer asks "
    "for by calling functions, as far as the policy below allows it."
)
_REPLY = "Yes, please go ahead. That is all I know."
"""What the scripted customer says to everything."""


class Tau2(FunctionEnv):
    """Solve the cases of customers by functions, as a policy says.

    Domains, policies, functions and checks are those of ``tau2``. In ``telecom`` the agent works
    alone, on a ticket, with the functions of the customer's device (the package's solo mode). In
    ``retail`` and ``airline`` it talks to a scripted customer, who says everything that the
    package gives its simulated customer in the first message, and agrees to everything after it:
    tasks, databases and checks are the published ones, the conversation is easier. The function
    ``done`` ends the episode, and the result is checked.

    ``train`` and ``test`` are published splits; see ``Domain.ids`` for the others.
    """

    def __init__(
        self,
        *,
        domain: Literal["telecom", "retail", "airline"] = "telecom",
        user: SimulatedUser | None = None,
        **kwargs: Any,
    ) -> None:
        """Make the environment.

        Args:
            domain: ``telecom``, ``retail`` or ``airline``.
            user: The customer, played by a model, instead of the scripted one: it gets the brief
                that the package gives its own, and ends the episode when it ends the conversation.
            **kwargs: See ``FunctionEnv`` and ``TextEnv``.

        Raises:
            ConfigError: There is no such domain, or a user where the agent works alone.
            MissingExtra: The package is not installed.
        """
        package.require()
        super().__init__(**kwargs)
        one_of("domain", domain, DOMAINS)
        self.domain = _domain(domain)
        if user is not None and self.domain.solo:
            raise ConfigError(f"domain {domain} is solved alone: give a user to retail or airline")
        self.user = user
        self.stochastic = user is not None
        self._task: Any = None
        self._state: Any = None
        """The package's environment."""
        self._calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
        self._messages: tuple[str, ...] = ()
        first = "check_network_status" if self.domain.solo else "list_all_airports"
        self.action_space = AnyText((self.written(first, {}), self.written(DONE, {}), "Hello."))

    def tasks(self, split: str) -> tuple[str, ...]:
        """Published ids."""
        if split not in SPLITS:
            raise unknown_split(ENV, split, SPLITS)
        return tuple(f"{self.domain.name}-{each}" for each in self.domain.ids(split))

    def open(self, task: str, rng: np.random.Generator) -> Opening:
        """The ticket, or the first message of the customer."""
        id_ = task.removeprefix(f"{self.domain.name}-")
        if id_ == task or id_ not in self.domain.ids("full"):
            raise unknown_task(ENV, task, self.tasks("test")[:1])
        self._task = self.domain.task(id_)
        self._state = self.domain.begin(id_)
        self._calls, self._messages = (), ()
        self.offer(self.domain.functions)
        kind = id_[1 : id_.index("]")] if id_.startswith("[") else self.domain.name
        if self.domain.solo:
            return Opening(str(self._task.ticket), "Solve the ticket.", kind)
        text = _first(self._task)
        if self.user is not None:
            self.user.begin(text, int(rng.integers(2**31)))
            text = self.user(GREETING)
        return Opening(text, "Serve the customer.", kind)

    def call(self, name: str, arguments: Mapping[str, Any]) -> Result | Outcome:
        """Run a function; ``done`` ends the episode."""
        if name == DONE:
            return self._closed("The case is closed.")
        self._calls = (*self._calls, (name, arguments))
        return self.domain.call(self._state, name, arguments)

    def say(self, message: str) -> Outcome:
        """To the customer, where there is one."""
        if self.domain.solo:
            self.well_formed = False
            return Outcome("Messages are not read: call a function, or done to end.", valid=False)
        self._messages = (*self._messages, message)
        if self.user is None:
            return Outcome(_REPLY)
        reply = self.user(message)
        return self._closed(reply) if self.user.over else Outcome(reply)

    def about(self) -> str:
        """The policy, and how an episode ends."""
        solo = self.domain.solo
        action = "calls" if solo else "calls, or a message to the customer without a call"
        right = (
            "the customer's data and device are then as they should be"
            if solo
            else "the data are then as they should be and the customer heard what was asked"
        )
        return (
            f"{_SOLO if solo else _TALK}\nEach action is {action}. The function `{DONE}` ends the "
            f"case: call it when all is done, or when nothing can be done. The case is won if "
            f"{right}.\n\n<policy>\n{self.domain.policy}\n</policy>\n"
        )

    def oracle(self) -> tuple[str, ...] | None:
        """The published actions from here; None where they do not win."""
        task = self._playing()
        if self._last.done:
            return None
        steps = [
            (each.name, dict(each.arguments)) for each in task.evaluation_criteria.actions or ()
        ]
        made = [(name, dict(arguments)) for name, arguments in self._calls]
        reported = [", ".join(task.evaluation_criteria.communicate_info or ())]
        rest = steps[len(made) :] if steps[: len(made)] == made else steps
        for calls in (rest, steps):
            plan = [self.written(name, arguments) for name, arguments in calls]
            plan += [text for text in reported if text] if not self.domain.solo else []
            plan.append(self.written(DONE, {}))
            fork = self.fork()
            if [fork.step(action) for action in plan][-1][4]["won"]:
                return tuple(plan)
        return None

    def fork(self) -> Self:
        """A copy of the databases; unchanged records are shared."""
        other = super().fork()
        if self._state is not None:
            other._state = self.domain.copied(self._state)
        other.user = self.user.fork() if self.user is not None else None
        return other

    def _closed(self, text: str) -> Outcome:
        """The end, and the check."""
        spoken = Spoken(self._calls, self._messages)
        won = self.domain.passed(self._playing(), self._state, spoken)
        return Outcome(text, float(won), float(won), won, done=True)

    def _playing(self) -> Any:
        if self._task is None:
            raise EnvError("no task of tau2-bench is under way; call reset() first")
        return self._task


def _first(task: Any) -> str:
    """What the scripted customer says at once."""
    reported = task.user_scenario.instructions
    if isinstance(reported, str):
        return reported
    parts = (
        reported.reason_for_call,
        reported.known_info,
        reported.unknown_info,
        reported.task_instructions,
    )
    return "\n".join(" ".join(part.split()) for part in parts if part and part.strip(" ."))
