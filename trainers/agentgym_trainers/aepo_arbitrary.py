"""AEPO of the arbitrary entropy: wins at another temperature join the batch (arXiv:2510.08141).

Not the agentic AEPO of ``aepo.py``. Some tasks are played again, warmer (1.2) where entropy is at
most the target and cooler (0.8) where it is above; episodes of the second play that were won
replace some of the first, with the advantage 1 on all their tokens. Raising what a warmer policy
would write raises entropy, and the other way round.

Differs from the code: the entropy is that of the task's own first play, where the code has the
batch's of the step before, so that no step lags; tasks are drawn, where the code takes the first
quarter; wins count, where the code wants an advantage above 0.05, so that tasks always solved never
count; random episodes of the batch are replaced, where the code replaces the first; none won is no
error. The share that may be replaced is a tenth, where the code has 60 of 2,560. ``paper()`` and
``released()`` are the code's choices in credit. As in the code there is no importance correction
between temperatures: old log-probabilities are the trainer's at temperature 1, so the engine's and
the trainer's numbers differ on purpose on what was played again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.batch.batch import Batch
from agentgym.credit.transforms import State, Transform, chain
from agentgym.errors import ImpossibleValue
from agentgym.rollout.branching import mean_entropy
from agentgym.rollout.collect import Collect, EpisodePlayer
from agentgym.types import Completion, Task, Trajectory
from agentgym.utils.bounds import above, at_least, within
from agentgym.utils.concurrency import gather
from agentgym.utils.seeds import derive
from agentgym_trainers.grpo import GRPO


def entropy_of(group: list[Trajectory]) -> float:
    """Mean over the tokens written in some episodes, by the engine, in nats."""
    completions = [turn.completion for episode in group for turn in episode.turns]
    entropies = tuple(h for completion in completions for h in completion.entropies)
    zeros = (0.0,) * len(entropies)
    return mean_entropy(Completion((0,) * len(entropies), zeros, entropies))


def temperature(entropy: float, target: float, *, warm: float, cool: float) -> float:
    """Warm up to the target, cool above it."""
    return warm if entropy <= target else cool


def play_again(n: int, share: float, target: float, *, warm: float, cool: float) -> Collect:
    """``n`` episodes; for a ``share`` of the tasks ``n`` more, numbered from ``n``, tempered."""

    async def collect(task: Task, play: EpisodePlayer) -> list[Trajectory]:
        group = await gather(play(task, sample) for sample in range(n))
        if play.rng(task, "again").random() >= share:
            return group
        factor = temperature(entropy_of(group), target, warm=warm, cool=cool)
        tempered = play.with_temperature_factor(factor)
        return group + await gather(tempered(task, sample) for sample in range(n, 2 * n))

    return collect


def room(good: int, most: int, entropy: float, target: float) -> int:
    """Episodes that join: at most ``most``, and half as many where entropy is above the target."""
    count = min(good, most)
    return count if entropy <= target else count // 2


def apart(n: int) -> Transform:
    """Give the episodes of a second play a group of their own, so that each has its statistics."""

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        shift = int(batch.group.max()) + 1 if len(batch.group) else 0
        return batch.with_(group=batch.group + shift * (batch.sample >= n)), state

    return Transform(tuple, apply)


def inject(
    n: int,
    most: float,
    target: float,
    *,
    good: Literal["won", "better"],
    first: bool,
    seed: int = 0,
) -> Transform:
    """Put good episodes of the second play in the place of some of the first.

    Args:
        n: Episodes of a first play; those numbered from here on are of a second.
        most: Part of the first plays that may be replaced.
        target: Entropy above which half as many are.
        good: Those that were won, or that did better than their group by 0.05.
        first: Replace the first episodes of the batch; otherwise random ones.
        seed: Of the run; which are random depends on it and on the step.
    """

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        again = batch.sample >= n
        fresh = (~again).nonzero().squeeze(-1)
        chosen = (again & _good(batch, good)).nonzero().squeeze(-1)
        entropy = batch.entropy[batch.mask & ~again[batch.episode_of_token]]
        now = float(entropy.mean()) if len(entropy) else 0.0
        count = room(len(chosen), int(most * len(fresh)), now, target)
        generator = torch.Generator().manual_seed(derive("aepo-arbitrary", seed, step))
        order = (
            torch.arange(len(fresh)) if first else torch.randperm(len(fresh), generator=generator)
        )
        stays = ~again
        stays = stays.index_fill(0, fresh[order[:count]], False)
        stays = stays.index_fill(0, chosen[:count], True)
        advantage = torch.where(
            again[batch.episode_of_token], batch.mask.to(batch.advantage), batch.advantage
        )
        return batch.with_(advantage=advantage).only(stays), state

    return Transform(tuple, apply)


def _good(batch: Batch, good: Literal["won", "better"]) -> Bool[Tensor, " E"]:
    if good == "won":
        return batch.won
    zeros = torch.zeros(len(batch.group), dtype=torch.long)
    return zeros.index_add(0, batch.episode_of_token, (batch.advantage > 0.05).long()) > 0


@dataclass(frozen=True, kw_only=True)
class AEPOArbitrary:
    """Arbitrary entropy policy optimisation: GRPO with wins from another temperature."""

    about: ClassVar[About] = About(
        "2510.08141",
        "n episodes side by side; for some tasks n more, warmer or cooler",
        "return, centred and scaled within the task; 1 for wins at the other temperature",
        "clipped surrogate",
    )

    base: GRPO = field(default_factory=lambda: GRPO(dual_clip=3.0))
    """Method that gives credit and loss."""
    target_entropy: float = 0.5
    """Entropy to hold, in nats per token."""
    replayed_task_ratio: float = 0.25
    """Part of the tasks that is played again."""
    max_replaced_ratio: float = 0.1
    """Part of the episodes that may be replaced."""
    high_temperature: float = 1.2
    """Factor on the temperature where entropy is at most the target."""
    low_temperature: float = 0.8
    """Factor where it is above."""
    replacement_criterion: Literal["won", "better"] = "won"
    """Which episodes of a second play count."""
    replaced_episodes: Literal["random", "first"] = "random"
    """Which episodes of the first plays make room."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "target_entropy")
        within(0, 1, self, "replayed_task_ratio", "max_replaced_ratio")
        above(0, self, "low_temperature")
        at_least(1, self, "high_temperature")
        if self.low_temperature > 1:
            raise ImpossibleValue(
                f"AEPOArbitrary.low_temperature is {self.low_temperature}, expected at most 1"
            )

    @classmethod
    def paper(cls) -> AEPOArbitrary:
        """The paper's setting, as far as it is known: the code's."""
        base = GRPO(group_size=5, clip_ratio_high=0.2, dual_clip=3.0, loss_aggregation="token-mean")
        return cls(
            base=base,
            max_replaced_ratio=60 / 2560,
            replacement_criterion="better",
            replaced_episodes="first",
        )

    @classmethod
    def released(cls) -> AEPOArbitrary:
        """The authors' code."""
        return cls.paper()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        n = self.base.group_size
        joining = inject(
            n,
            self.max_replaced_ratio,
            self.target_entropy,
            good=self.replacement_criterion,
            first=self.replaced_episodes == "first",
            seed=run.seed,
        )
        collect = play_again(
            n,
            self.replayed_task_ratio,
            self.target_entropy,
            warm=self.high_temperature,
            cool=self.low_temperature,
        )
        credit = chain(apart(n), self.base.credit(), joining, self.base.weighting())
        return replace(self.base.build(run), collect=collect, credit=credit)
