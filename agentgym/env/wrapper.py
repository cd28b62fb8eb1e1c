"""A text environment around another one."""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.env.base import Progress, TextEnv


class EnvWrapper(TextEnv):
    """Has the splits, tasks, admissible actions and oracle of the environment inside.

    A subclass starts it, acts in it, and forks it (``TextEnv.fork``).
    """

    world: TextEnv
    """The environment inside."""

    def tasks(self, split: str) -> Sequence[str]:
        """Those of the environment."""
        return self.world.tasks(split)

    def admissible(self) -> tuple[str, ...]:
        """Those of the environment."""
        return self.world.admissible()

    def oracle(self) -> tuple[str, ...] | None:
        """That of the environment, which needs nothing of what is added."""
        return self.world.oracle()

    def missing(self) -> str:
        """What the environment lacks."""
        return self.world.missing()

    def prepare(self, tasks: Sequence[str], progress: Progress | None = None) -> None:
        """Prepare the environment."""
        self.world.prepare(tasks, progress)

    def close(self) -> None:
        """Close both."""
        super().close()
        self.world.close()
