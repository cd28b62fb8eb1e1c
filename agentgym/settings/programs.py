"""The settings of an agent program that plays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.errors import ImpossibleValue
from agentgym.utils.bounds import above, at_least


@dataclass(frozen=True, kw_only=True)
class ProgramSettings:
    """How an agent program (`--agent-program`) is run and rewarded."""

    section: ClassVar[str] = "program"

    agents: tuple[str, ...] = ("agent",)
    """Names of the agents in the program. Each has an API key of its own, in the variable
    AGENTGYM_KEY_NAME; the first one's is also OPENAI_API_KEY."""
    untrained: tuple[str, ...] = ()
    """Those of them that are not trained: the policy plays them, and learns nothing from it."""
    reward: Literal["world", "program"] = "world"
    """Where the reward comes from: the environment, or the program, which posts its score or
    returns it. `--scoring.scorer` and `--scoring.judge` replace either."""
    timeout: float = 600.0
    """Seconds that the program has for an episode. A later one is ended, and the episode is played
    again."""
    max_calls: int | None = None
    """Calls of the model after which an episode is truncated; unset: rollout.max_turns."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        above(0, self, "timeout")
        at_least(1, self, "max_calls")
        if len(set(self.agents)) < max(1, len(self.agents)):
            raise ImpossibleValue(
                f"program.agents is {' '.join(self.agents)!r}, expected different names, one at "
                f"least"
            )
        if bad := [name for name in self.agents if not name.isidentifier()]:
            raise ImpossibleValue(
                f"program.agents has {bad[0]!r}, expected letters, digits and underscores"
            )
        if unknown := [name for name in self.untrained if name not in self.agents]:
            raise ImpossibleValue(
                f"program.untrained has {unknown[0]!r}, expected one of program.agents: "
                f"{', '.join(self.agents)}"
            )
        if set(self.untrained) == set(self.agents):
            raise ImpossibleValue(
                "program.untrained names every agent, expected one at least that is trained"
            )

    @property
    def trained(self) -> frozenset[str]:
        """Names of the agents that are trained."""
        return frozenset(self.agents) - frozenset(self.untrained)
