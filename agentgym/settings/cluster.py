"""The settings of a run on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.utils.bounds import above, at_least


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Where the processes of a run are placed; see ``agentgym.cluster``."""

    section: ClassVar[str] = "cluster"

    address: str | None = None
    """Ray cluster: `auto` for the one that runs on this machine or that the job belongs to, its
    HOST:PORT, or `local` to start one of this machine alone. Unset: no cluster."""
    trainers: int = 1
    """Ranks that train the model together; the first one leads the run."""
    engines: int = 0
    """Engines that sample for the players, of the kind that `--engine` names; 0: every player has a
    local engine of its own."""
    players: int = 1
    """Processes that play whole groups: environments, agent and engine client."""
    restarts: int = 3
    """How often in a row the ranks start again from the last checkpoint after one of them died; a
    training step in between resets the count."""
    sync: Literal["store", "broadcast"] = "store"
    """How weights reach the engines: through Ray's object store, or by a broadcast from the first
    trainer to all engines at once, over NCCL between GPUs and Gloo between CPUs."""
    sync_timeout: float = 120.0
    """broadcast: seconds until all engines must have the weights; late ones get them through the
    object store."""
    placement_timeout: float = 300.0
    """Seconds until the cluster must have room."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(1, self, "trainers", "players")
        at_least(0, self, "engines", "restarts")
        above(0, self, "sync_timeout", "placement_timeout")
