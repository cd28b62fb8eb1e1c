"""The arms of `scripts/reproduce`: methods, what they build on, and controls."""

from __future__ import annotations

from typing import Any, NamedTuple

from agentgym_trainers.aepo import AEPO
from agentgym_trainers.arpo import ARPO
from agentgym_trainers.dapo import DAPO
from agentgym_trainers.drbot import DrBoT
from agentgym_trainers.empg import EMPG
from agentgym_trainers.epo import EPO
from agentgym_trainers.gigpo import GiGPO
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.ppo import PPO
from agentgym_trainers.spear import SPEAR


class Arm(NamedTuple):
    """What is trained, and what it is compared with."""

    algorithm: str
    """Registered name."""
    config: Any
    against: tuple[str, ...] = ()
    """Other arms: what it builds on, and controls."""


ARMS: dict[str, Arm] = {
    "grpo": Arm("grpo", GRPO()),
    "epo": Arm("epo", EPO(), ("grpo", "epo: bonus alone")),
    "empg": Arm("empg", EMPG(), ("grpo", "empg: centring alone", "empg: permuted weights")),
    "aepo": Arm("aepo", AEPO(), ("grpo", "arpo", "aepo: random branching")),
    "dr-bot": Arm("dr-bot", DrBoT(), ("grpo",)),
    "spear": Arm("spear", SPEAR(), ("dr-bot", "spear: self-imitation alone")),
    "arpo": Arm("arpo", ARPO(), ("grpo",)),
    "epo: bonus alone": Arm("epo", EPO(smoothing_weight=0.0), ("grpo",)),
    "empg: centring alone": Arm("empg", EMPG.control(), ("grpo",)),
    "empg: permuted weights": Arm("empg", EMPG(scaling_order="permuted"), ("grpo",)),
    "aepo: random branching": Arm(
        "aepo",
        AEPO(root_allocation="fixed", entropy_weight=0.0, branch_penalty=0.0),
        ("grpo", "arpo"),
    ),
    "spear: self-imitation alone": Arm("spear", SPEAR(acting_reward=0.0), ("dr-bot",)),
    "dapo": Arm("dapo", DAPO(), ("grpo",)),
    "ppo": Arm("ppo", PPO(), ("grpo",)),
    "gigpo": Arm("gigpo", GiGPO(), ("grpo",)),
}
"""In the order of their runs. Controls hold back one piece: the corridor of EPO; which step gets
which weight in EMPG, or all but its centring over steps (k = zeta = 0); the reward for acting in
SPEAR; and in AEPO the scout and the look at entropy, so that paths fork by a constant chance."""

PANELS = {
    "EPO": ("epo", "epo: bonus alone", "grpo"),
    "EMPG": ("empg", "empg: centring alone", "empg: permuted weights", "grpo"),
    "SPEAR": ("spear", "spear: self-imitation alone", "dr-bot"),
    "AEPO": ("aepo", "aepo: random branching", "arpo", "grpo"),
    "baselines": ("grpo", "dapo", "ppo", "dr-bot", "gigpo"),
}
"""What is drawn together."""
