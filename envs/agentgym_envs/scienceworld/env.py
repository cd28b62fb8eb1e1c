"""ScienceWorld as a world: science experiments in a simulated house, in the real simulator."""

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

    The simulators of all worlds in a process share one Java machine. If it dies or hangs, the
    step in progress raises ``EnvError``; every episode then goes on by being replayed on a new
    machine. Nothing in an episode is random, so ``reset``'s seed only picks a task.
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
        patience: float = jvm.PATIENCE,
        **kwargs: Any,
    ) -> None:
        """Make the world; Java is not started before ``reset``.

        Args:
            tasks: ``all``, or names from ``tasks.SIZES`` joined by commas.
            simplify: ``easy`` (every simplification), ``full`` (none), or names from
                ``tasks.SIMPLIFICATIONS`` joined by ``+``.
            partition: ``official`` (``valid`` is its dev set), or EPO's ``epo-l0``, ``epo-l1``,
                ``epo-l2``; see ``tasks.PARTITIONS``.
            observation: The simulator's answer, or the answer, the room and what is carried.
            reward: 1 for winning, or each change of the points as a share of 100; the sum is
                then between -1 (failed) and 1.
            patience: Seconds a call into the simulator may take before it counts as hung.
            **kwargs: See ``TextEnv``.
        """
        super().__init__(**kwargs)
        one_of("observation", observation, ("answer", "full"))
        one_of("reward", reward, ("outcome", "dense"))
        if not patience > 0:
            raise ConfigError(f"patience: got {patience!r}, expected a number of seconds above 0")
        self.names = _tasks.chosen(tasks)
        self.simplify = _tasks.simplified(simplify, self.names)
        _tasks.panel_ids(partition, "train", (), simplify)
        self.partition = partition
        self.full = observation == "full"
        self.dense = reward == "dense"
        self.patience = patience
        self._panels: dict[str, tuple[str, ...]] = {}
        self._episode: Episode | None = None
        self._over = self._won = False

    def missing(self) -> str:
        """How to install the simulator or Java, whichever is not there."""
        return jvm.missing()

    def tasks(self, split: str) -> tuple[str, ...]:
        """One variation of each task in turn; equal with and without Java."""
        if split not in self._panels:
            ids = _tasks.panel_ids(self.partition, split, self.names, self.simplify)
            self._panels[split] = ids
        return self._panels[split]

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Load the task. The simulator has no randomness."""
        spec = _tasks.parse(task)
        self.close()
        self._over = self._won = False
        episode = self._episode = Episode(spec, self.patience)
        first = f"Goal: {episode.goal}\n{episode.now.text}"
        return Opening(self._words(first, "freeActionInventory"), episode.goal, spec.name)

    def act(self, action: str) -> Outcome:
        """Say one line to the simulator."""
        episode = self._playing()
        if self._over:
            return self._outcome("The episode is over.", valid=False)
        line = text.command(action)
        if isinstance(line, text.Refused):
            return self._outcome(line.answer, valid=False)
        before = episode.now.points
        now = episode.say(line)
        self._won = now.completed and now.points == 100
        self._over = now.completed or now.points < 0
        gain = (now.points - before) / 100 if self.dense else float(self._won)
        said = self._words(now.text, "freeActionLook", "freeActionInventory")
        return self._outcome(said, gain, valid=text.understood(now.text))

    def manual(self) -> str:
        """The simulator's commands."""
        return MANUAL

    def admissible(self) -> tuple[str, ...]:
        """Every action that means something now, sorted; asked of the simulator only here."""
        if self._over:
            return ()
        allowed = self._playing().valid()
        return tuple(sorted(line for line in set(allowed) if text.command(line) == line))

    def oracle(self) -> tuple[str, ...] | None:
        """The rest of the simulator's gold actions; None once play has left them."""
        return None if self._over else self._playing().plan()

    def fork(self) -> Self:
        """The same episode at the same point, by a replay that is checked.

        Raises:
            NotReplayable: The simulator answered differently.
            EnvError: The Java machine failed.
        """
        other = self.shallow_copy()
        other._episode = self._episode.fork() if self._episode else None
        return other

    def close(self) -> None:
        """Free the simulator; the Java machine stays for the other worlds of the process."""
        if self._episode is not None:
            self._episode.close()
            self._episode = None

    def _playing(self) -> Episode:
        if self._episode is None:
            raise EnvError("no ScienceWorld task is running; call reset() first")
        return self._episode

    def _words(self, answer: str, *more: str) -> str:
        """What the agent reads: the answer, and what else it is to see after each action."""
        if not self.full:
            return answer
        shown = (self._playing().ask(what).strip() for what in more)
        return "\n".join([answer, *(part for part in shown if part not in answer)])

    def _outcome(self, said: str, reward: float = 0.0, *, valid: bool) -> Outcome:
        # The contract: 1 exactly when won, however the points are rounded.
        points = self._playing().now.points
        score = 1.0 if self._won else min(max(points / 100, 0.0), 0.99)
        return Outcome(said, reward, score, self._won, self._over, valid)
