"""ScienceWorld as an environment: science experiments in a simulated house."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np

from agentgym.env.base import Opening, Outcome, TextEnv, one_of
from agentgym.errors import ConfigError, EnvError
from agentgym_envs.scienceworld import jvm, text
from agentgym_envs.scienceworld import tasks as _tasks
from agentgym_envs.scienceworld.episode import Episode
from agentgym_envs.scienceworld.manual import MANUAL


class ScienceWorld(TextEnv):
    """Boil, grow, mix, measure and classify things in the rooms around a house.

    A task id is a name, how it is simplified, and a variation: ``boil-easy-v3``,
    ``find-plant-full-v120``, ``melt-openDoors+teleportAction-v0``. A task is won with 100 points
    and lost by acting on the wrong thing; points on the way count as progress, never as success.

    The simulators of all environments in a process share one Java process. If it dies or hangs,
    the step in progress raises ``EnvError``; every episode is then replayed on a new one.

    The task and the actions determine an episode, so the seed of ``reset`` only picks a task.
    Where the simulator draws at random (where bees and other animals wander, which of several
    equal things is listed under a longer name) it draws from a seed made of the task and the
    number of actions; see ``shared_state``.
    """

    # The parser refuses about one in ten of the actions that the simulator itself lists.
    admissible_exact = False

    def __init__(
        self,
        *,
        tasks: str = "all",
        simplify: str = "easy",
        partition: str = "official",
        observation: Literal["answer", "full"] = "answer",
        reward: Literal["outcome", "dense"] = "outcome",
        timeout: float = jvm.TIMEOUT,
        **kwargs: Any,
    ) -> None:
        """Create the environment; Java is not started before ``reset``.

        Args:
            tasks: ``all``, or names from ``tasks.SIZES`` joined by commas.
            simplify: ``easy`` (every simplification), ``full`` (none), or names from
                ``tasks.SIMPLIFICATIONS`` joined by ``+``.
            partition: ``official`` (``valid`` is its dev set), or EPO's ``epo-l0``, ``epo-l1``,
                ``epo-l2``; see ``tasks.PARTITIONS``.
            observation: The simulator's answer (``answer``), or the answer, the room and what is
                carried (``full``).
            reward: 1 for winning (``outcome``), or each change of the points divided by 100
                (``dense``); the sum is then between -1 (failed) and 1.
            timeout: Seconds a call into the simulator may take before it counts as hung.
            **kwargs: See ``TextEnv``.
        """
        super().__init__(**kwargs)
        one_of("observation", observation, ("answer", "full"))
        one_of("reward", reward, ("outcome", "dense"))
        if not timeout > 0:
            raise ConfigError(f"timeout: got {timeout!r}, expected a number of seconds above 0")
        self.names = _tasks.select(tasks)
        self.simplify = _tasks.check_mode(simplify, self.names)
        _tasks.panel_ids(partition, "train", (), simplify)
        self.partition = partition
        self.full = observation == "full"
        self.dense = reward == "dense"
        self.timeout = timeout
        self._panels: dict[str, tuple[str, ...]] = {}
        self._episode: Episode | None = None
        self._over = self._won = False

    def missing(self) -> str:
        """How to install the simulator or Java, if one is missing."""
        return jvm.missing()

    def tasks(self, split: str) -> tuple[str, ...]:
        """One variation of each task in turn; equal with and without Java."""
        if split not in self._panels:
            ids = _tasks.panel_ids(self.partition, split, self.names, self.simplify)
            self._panels[split] = ids
        return self._panels[split]

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Load the task; ``rng`` is not used."""
        spec = _tasks.parse(task)
        self.close()
        self._over = self._won = False
        episode = self._episode = Episode(spec, self.timeout)
        first = f"Goal: {episode.goal}\n{episode.last.text}"
        return Opening(self._observation(first, "freeActionInventory"), episode.goal, spec.name)

    def act(self, action: str) -> Outcome:
        """Send one command to the simulator."""
        episode = self._playing()
        if self._over:
            return self._outcome("The episode is over.", valid=False)
        command = text.command(action)
        if isinstance(command, text.Refused):
            return self._outcome(command.answer, valid=False)
        before = episode.last.points
        reply = episode.step(command)
        self._won = reply.completed and reply.points == 100
        self._over = reply.completed or reply.points < 0
        reward = (reply.points - before) / 100 if self.dense else float(self._won)
        observation = self._observation(reply.text, "freeActionLook", "freeActionInventory")
        return self._outcome(observation, reward, valid=text.understood(reply.text))

    def manual(self) -> str:
        """The simulator's commands."""
        return MANUAL

    def admissible(self) -> tuple[str, ...]:
        """Every action that means something now, sorted; computed only when asked for."""
        if self._over:
            return ()
        allowed = self._playing().valid_actions()
        return tuple(sorted(action for action in set(allowed) if text.command(action) == action))

    def oracle(self) -> tuple[str, ...] | None:
        """The rest of the simulator's gold actions; None once play has left them."""
        return None if self._over else self._playing().remaining_gold_actions()

    def fork(self) -> Self:
        """The same episode at the same point, by a replay whose answers are checked.

        Raises:
            NotReplayable: The simulator answered differently.
            EnvError: The Java process failed.
        """
        other = self.shallow_copy()
        other._episode = self._episode.fork() if self._episode else None
        return other

    def close(self) -> None:
        """Release the simulator; the Java process stays for other environments."""
        if self._episode is not None:
            self._episode.close()
            self._episode = None

    def _playing(self) -> Episode:
        if self._episode is None:
            raise EnvError("no ScienceWorld task is running; call reset() first")
        return self._episode

    def _observation(self, answer: str, *queries: str) -> str:
        """The answer, followed by the results of free actions when observations are full."""
        if not self.full:
            return answer
        shown = (self._playing().query(method).strip() for method in queries)
        return "\n".join([answer, *(part for part in shown if part not in answer)])

    def _outcome(self, observation: str, reward: float = 0.0, *, valid: bool) -> Outcome:
        # The contract: 1 exactly when won, also where the points are rounded.
        points = self._playing().last.points
        score = 1.0 if self._won else min(max(points / 100, 0.0), 0.99)
        return Outcome(observation, reward, score, self._won, self._over, valid)
