"""Environments with tools: one whose actions are tool calls, and tools added to any other."""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np

from agentgym.env.act import ACT
from agentgym.env.base import Opening, Outcome, TextEnv
from agentgym.env.wrapper import EnvWrapper
from agentgym.errors import AgentGymError, ConfigError, EnvError, MalformedAction, did_you_mean
from agentgym.tools.calls import Call, CallNotation, HermesCalls
from agentgym.tools.limits import CallLimits
from agentgym.tools.tool import Tool, tool

_REFUSALS = (ValueError, LookupError, ArithmeticError)
"""Exceptions of a tool that mean bad arguments."""


class ToolEnv(TextEnv):
    """An environment whose actions are tool calls, one or several per action.

    A subclass implements ``tasks`` and ``open``. A tool that returns an ``Outcome`` acts on the
    environment: it may be one of its methods, and ends the episode with ``done``. Mistakes of the
    model are answered with what was expected. A tool that is unreachable or broken is not the
    model's fault: it raises, so the episode counts as broken.

    ``info["tool_calls"]`` is the number of calls made so far; ``info["last_calls"]`` lists name and
    arguments of the well-formed ones in the last action.
    """

    calls_only = True

    def __init__(
        self,
        *,
        tools: Iterable[Tool | Callable[..., Any]],
        notation: CallNotation | None = None,
        limits: CallLimits | None = None,
        **kwargs: Any,
    ) -> None:
        """Make the environment.

        Args:
            tools: Functions, objects or tools; see ``tool``.
            notation: How calls are written; JSON unless given.
            limits: Bounds on the calls.
            **kwargs: See ``TextEnv``.

        Raises:
            ConfigError: Two tools share a name, or a tool does not fit the notation.
        """
        super().__init__(**kwargs)
        self.notation: CallNotation = notation or HermesCalls()
        self.tools: tuple[Tool, ...] = ()
        self.instructions = ""
        """The description of the tools that the model reads."""
        self.add_tools(tools)
        self.limits = limits or CallLimits()
        self.called: tuple[str, ...] = ()
        """Names of the tools called in this episode, in order."""
        self.last_calls: tuple[Call, ...] = ()
        """Calls of the last action, well formed or not."""
        self.well_formed = True
        """No action of this episode was malformed or without an expected call."""

    def add_tools(self, tools: Iterable[Tool | Callable[..., Any]]) -> None:
        """Offer further tools, from the next task on.

        Raises:
            ConfigError: Two tools share a name, or a tool does not fit the notation.
        """
        self.tools = (*self.tools, *map(tool, tools))
        names = [each.name for each in self.tools]
        if len(set(names)) < len(names):
            raise ConfigError(f"two tools share a name: {', '.join(sorted(names))}")
        self.instructions = self.notation.explain(self.tools)

    def use_notation(self, notation: CallNotation) -> None:
        """Describe, read and write calls in another notation, from the next task on."""
        self.notation = notation
        self.add_tools(())

    @abstractmethod
    def open(self, task: str, rng: np.random.Generator) -> Opening:
        """Start a task: ``TextEnv.start``, before the tool instructions are added to the goal."""

    def act_without_call(self, action: str) -> Outcome:
        """Execute an action without a call; refused here, where every action is a call."""
        self.well_formed = False
        example = self.notation.write(self.tools[0], _blanks(self.tools[0])) if self.tools else ""
        return self._unchanged(
            f"The action has no tool call. Expected one such as {example}", valid=False
        )

    def manual(self) -> str:
        """The tools and how to call them."""
        return self.instructions

    def write(self, name: str, argument: object) -> str:
        """The action that calls a tool with its first parameter only."""
        one = next(each for each in self.tools if each.name == name)
        return self.notation.write(one, {next(iter(one.parameters["properties"])): argument})

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Start a task with reset tools."""
        opening = self.open(task, rng)
        self.called, self.well_formed, self.last_calls = (), True, ()
        self._call_each("reset")
        return opening._replace(goal=f"{opening.goal}\n\n{self.instructions}")

    def act(self, action: str) -> Outcome:
        """Execute the calls of an action in order, until one ends the episode."""
        self.last_calls = ()
        if self._last.done:
            return self._unchanged("The episode is over.", valid=False)
        notation = self._notation_of(action)
        calls = self.last_calls = notation.parse(action, self.tools)
        if not calls:
            return self.act_without_call(action)
        last = self._unchanged("")
        texts, reward, valid = [], 0.0, True
        for number, call in enumerate(calls):
            if number == self.limits.per_turn:
                text = f"Only {number} calls in a turn, got {len(calls)}: the rest were ignored."
                last = last._replace(observation=text, reward=0.0, valid=False)
                self.well_formed = False
            else:
                last = self._execute(call, last)
            texts.append(notation.result(last.observation))
            reward, valid = reward + last.reward, valid and last.valid
            if last.done or number == self.limits.per_turn:
                break
        return last._replace(observation="\n".join(texts), reward=reward, valid=valid)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task.

        For models with native tool calls, ``info["tools"]`` lists the schemas, and
        ``info["tool_instructions"]`` is the text about tools in goal and manual, which they need
        not read.
        """
        observation, info = super().reset(seed=seed, options=options)
        return observation, info | self.tool_info()

    def tool_info(self) -> dict[str, Any]:
        """What ``info`` holds about the tools after a reset."""
        return {"tools": self.schemas(), "tool_instructions": self.instructions}

    def schemas(self) -> list[dict[str, Any]]:
        """The schemas of the tools, as copies."""
        return [copy.deepcopy(each.schema) for each in self.tools]

    def _notation_of(self, action: str) -> CallNotation:
        """The notation of this environment; native calls of a model arrive as Hermes JSON."""
        return HermesCalls() if action.startswith('<tool_call>{"name": ') else self.notation

    def fork(self) -> Self:
        """The same state, with copies of stateful tools."""
        other = self.shallow_copy()
        other.tools = tuple(each.fork(self, other) for each in self.tools)
        return other

    def close(self) -> None:
        """Close the tools."""
        self._call_each("close")
        super().close()

    def _execute(self, call: Call, before: Outcome) -> Outcome:
        """Execute one call; the observation is not yet wrapped."""
        stay = before._replace(reward=0.0)
        try:
            one = self._find_tool(call)
            arguments = one.arguments(call.arguments, texts=call.texts)
            if len(self.called) >= self.limits.calls:
                raise MalformedAction(f"All {self.limits.calls} calls of the episode are used.")
            self.called = (*self.called, one.name)
            found = self.limits.run(one.name, one.call, arguments)
        except MalformedAction as refusal:
            self.well_formed = False
            return stay._replace(observation=self.limits.cut(str(refusal)), valid=False)
        except AgentGymError:
            raise
        except _REFUSALS as refusal:
            text = self.limits.cut(f"{type(refusal).__name__}: {refusal}")
            return stay._replace(observation=text, valid=False)
        except (Exception, SystemExit, KeyboardInterrupt) as broken:
            raise EnvError(
                f"tool {call.name!r} broke: {type(broken).__name__}: {broken}"
            ) from broken
        if isinstance(found, Outcome):
            return found._replace(observation=self.limits.cut(found.observation))
        text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        return stay._replace(observation=self.limits.cut(text), valid=True)

    def _find_tool(self, call: Call) -> Tool:
        """The tool of a call."""
        if call.problem:
            raise MalformedAction(call.problem)
        for each in self.tools:
            if each.name == call.name:
                return each
        names = [each.name for each in self.tools]
        raise MalformedAction(
            f"There is no tool {call.name[:80]!r}.{did_you_mean(call.name[:80], names)} "
            f"Tools: {', '.join(names)}."
        )

    def _unchanged(self, text: str, *, valid: bool = True) -> Outcome:
        """An outcome that does not change the environment."""
        return self._last._replace(observation=text, reward=0.0, valid=valid)

    def _call_each(self, method: str) -> None:
        for each in self.tools:
            found = getattr(each.call, method, None)
            if found is not None:
                found()

    def _info(self) -> dict[str, Any]:
        last = [
            {"name": call.name, "arguments": dict(call.arguments)}
            for call in self.last_calls
            if not call.problem
        ]
        return {**super()._info(), "tool_calls": len(self.called), "last_calls": last}


class WithTools(EnvWrapper, ToolEnv):
    r"""Any environment with tools besides its own actions.

    An action that calls tools is answered by them and does not change the environment; any other
    action goes to it. Models with native tool calls get ``act(action)`` for these. Splits, tasks,
    admissible actions, oracle and forks are those of the wrapped environment.

    Examples:
        >>> from agentgym.env.registry import world
        >>> def double(number: int) -> str:
        ...     '''Twice a number.'''
        ...     return str(2 * number)
        >>> env = WithTools(world("agentgym/Hotter-v0"), [double])
        >>> _ = env.reset(options={"task": "hotter-3"})
        >>> env.step('<tool_call>{"name": "double", "arguments": {"number": 40}}</tool_call>')[0]
        '<tool_response>\n80\n</tool_response>'
        >>> env.step("81")[0]
        'Higher.'
    """

    calls_only = False

    def __init__(
        self,
        world: TextEnv,
        tools: Iterable[Tool | Callable[..., Any]],
        *,
        notation: CallNotation | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        """Wrap an environment; see ``ToolEnv`` for the other arguments."""
        super().__init__(
            tools=tools,
            notation=notation,
            limits=limits,
            split=world.split,
            admissible=world.with_admissible,
            render_mode=world.render_mode,
        )
        self.world = world
        self.observation_space = world.observation_space
        self.action_space = world.action_space

    def open(self, task: str, rng: np.random.Generator) -> Opening:
        """Start a task of the environment, with the same generator."""
        self.world.task_id = task
        return self.world.start(task, rng)

    def act_without_call(self, action: str) -> Outcome:
        """Pass an action to the environment."""
        return self.world.act(action)

    def schemas(self) -> list[dict[str, Any]]:
        """Those of the tools, and ``act``."""
        return [*super().schemas(), copy.deepcopy(ACT)]

    def manual(self) -> str:
        """The environment's, then the tools."""
        return "\n\n".join(filter(None, (self.world.manual(), super().manual())))

    def fork(self) -> Self:
        """Fork the environment with the tools."""
        other = super().fork()
        other.world = self.world.fork()
        return other

    def _info(self) -> dict[str, Any]:
        return {**self.world._info(), **super()._info()}


def _blanks(one: Tool) -> dict[str, object]:
    """Arguments of an example."""
    return dict.fromkeys(list(one.parameters.get("properties", ()))[:1], "...")
