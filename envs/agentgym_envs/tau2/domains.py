"""Domains of tau2-bench: policy, functions, tasks with their splits, states and the check."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

from agentgym_envs.functions import Function, Result
from agentgym_envs.tau2 import package, records

DOMAINS = ("telecom", "retail", "airline")
SPLITS = ("train", "valid", "test", "base", "full")
DONE = "done"
"""The function by which the agent ends an episode."""


class Spoken(NamedTuple):
    """What an episode is judged by, beside the databases."""

    calls: tuple[tuple[str, Mapping[str, Any]], ...]
    """Names and arguments."""
    messages: tuple[str, ...]
    """Of the agent."""


@dataclass(frozen=True, eq=False)
class Domain:
    """One domain; nothing in it changes."""

    name: str
    solo: bool
    """The agent also has the functions of the user's device, and no user to talk to."""

    @cached_property
    def _module(self) -> Any:
        return package.module(f"domains.{self.name}.environment")

    @cached_property
    def _template(self) -> Any:
        return self._module.get_environment(**({"solo_mode": True} if self.solo else {}))

    @cached_property
    def policy(self) -> str:
        """What the agent must keep to."""
        return str(self._template.get_policy())

    @cached_property
    def _rows(self) -> Mapping[str, Any]:
        """Id -> task as the file holds it; reading them all as objects would take seconds."""
        path = vars(package.module(f"domains.{self.name}.utils"))
        rows = package.module("utils").load_file(path[f"{self.name.upper()}_TASK_SET_PATH"])
        return {row["id"]: row for row in rows}

    @cache  # noqa: B019 - there are three domains
    def task(self, id_: str) -> Any:
        """The package's ``Task``."""
        return package.module("data_model.tasks").Task.model_validate(self._rows[id_])

    @cache  # noqa: B019
    def ids(self, split: str) -> tuple[str, ...]:
        """Ids of a split: ``train`` and ``test`` are published, and ``base``, both of them.

        ``valid`` is the published ``small`` in telecom, which is no part of the others; in the
        other domains every fifth task of ``train``, which then lacks them. ``full`` is all.
        """
        if split == "full":
            return tuple(self._rows)
        published = self._module.get_tasks_split()
        known = published["train"]
        if split == "valid" and "small" in published:
            return tuple(published["small"])
        if split in ("train", "valid") and "small" not in published:
            held = known[4::5]
            return tuple(held if split == "valid" else [each for each in known if each not in held])
        return tuple(published[split])

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """What the agent may call."""
        tools = self._template.get_tools()
        tools += self._template.get_user_tools() if self.solo else []
        found = [each.openai_schema["function"] for each in tools]
        done = Function(
            DONE, "End the case, when all is done.", {"type": "object", "properties": {}}
        )
        return (
            *(Function(f["name"], f["description"], _plain(f["parameters"])) for f in found),
            done,
        )

    @cached_property
    def _on_device(self) -> frozenset[str]:
        return frozenset(self._template.user_tools.tools) if self.solo else frozenset()

    def call(self, environment: Any, name: str, arguments: Mapping[str, Any]) -> Result:
        """Run a function that is offered: the package's ``get_response``, without its look-ups."""
        owner = environment.user_tools if name in self._on_device else environment.tools
        try:
            answer = getattr(owner, name)(**arguments)
            environment.sync_tools()
        except Exception as problem:
            return Result(" ".join(f"Error: {problem}".split()), failed=True)
        return Result(str(environment.to_json_str(answer)))

    def begin(self, task: str) -> Any:
        """The package's environment at the start of a task."""
        if not self.solo:
            return self._with(records.shared(self._template.tools.db), None)
        return self._with(*pickle.loads(_start(self, task)))

    def copied(self, environment: Any) -> Any:
        """An environment in the same state."""
        if not self.solo:
            return self._with(records.fork(environment.tools.db), None)
        both = (environment.tools.db, environment.user_tools.db)
        return self._with(*pickle.loads(pickle.dumps(both, protocol=5)))

    def passed(self, task: Any, environment: Any, spoken: Spoken) -> bool:
        """The published check: of databases, assertions, actions and messages, as the task asks."""
        wanted, basis = (
            task.evaluation_criteria,
            {b.value for b in task.evaluation_criteria.reward_basis},
        )
        return (
            ("DB" not in basis or self._right_database(task, environment))
            and ("ENV_ASSERTION" not in basis or _asserted(environment, wanted.env_assertions))
            and ("ACTION" not in basis or _made(spoken.calls, wanted.actions))
            and ("COMMUNICATE" not in basis or _told(spoken.messages, wanted.communicate_info))
        )

    def _right_database(self, task: Any, environment: Any) -> bool:
        """Equal to what the published actions lead to."""
        gold = self.begin(task.id)
        for each in task.evaluation_criteria.actions or ():
            try:
                gold.make_tool_call(each.name, requestor=each.requestor, **each.arguments)
            except Exception:
                continue  # As in the package's evaluator, some published actions fail.
        return records.equal(gold.tools.db, environment.tools.db)

    def _with(self, database: Any, device: Any) -> Any:
        """An environment on given databases."""
        made, template = object.__new__(type(self._template)), self._template
        vars(made).update(vars(template))
        made.tools = type(template.tools)(database)
        if device is not None:
            made.user_tools = type(template.user_tools)(device)
        return made


@cache
def domain(name: str) -> Domain:
    """A domain; the users of telecom have devices, which only the solo mode works without them."""
    return Domain(name, solo=name == "telecom")


@lru_cache(maxsize=256)
def _start(where: Domain, task: str) -> bytes:
    """Databases of agent and user at the start of a task."""
    template, state = where._template, where.task(task).initial_state
    both = pickle.loads(pickle.dumps((template.tools.db, template.user_tools.db), protocol=5))
    made = where._with(*both)
    data, actions = (
        (None, None)
        if state is None
        else (
            state.initialization_data,
            state.initialization_actions,
        )
    )
    made.set_state(data, actions, [])
    return pickle.dumps((made.tools.db, made.user_tools.db), protocol=5)


def _asserted(environment: Any, assertions: Sequence[Any] | None) -> bool:
    return all(
        environment.run_env_assertion(each, raise_assertion_error=False)
        for each in assertions or ()
    )


def _made(calls: Sequence[tuple[str, Mapping[str, Any]]], actions: Sequence[Any] | None) -> bool:
    made = package.module("data_model.message").ToolCall
    found = [made(name=name, arguments=dict(arguments)) for name, arguments in calls]
    return all(any(action.compare_with_tool_call(c) for c in found) for action in actions or ())


def _told(messages: Sequence[str], facts: Sequence[str] | None) -> bool:
    texts = [message.lower().replace(",", "") for message in messages]
    return all(any(fact.lower() in message for message in texts) for fact in facts or ())


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    from agentgym.tools.tool import without_titles

    return without_titles(schema)
