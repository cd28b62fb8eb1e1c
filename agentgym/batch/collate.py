"""From trajectories to a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from agentgym.batch.batch import Batch, token_mean
from agentgym.types import Stop, Trajectory, Turn


def collate(groups: Sequence[Sequence[Trajectory]]) -> Batch:
    """Lay trajectories end to end; advantages start at zero, weights at the token mean.

    An episode that failed for technical reasons (not ``Stop.scored``) carries no signal: it is left
    out here, so it enters neither a group's statistics nor the loss.
    """
    episodes = [
        (number, trajectory)
        for number, trajectories in enumerate(groups)
        for trajectory in trajectories
        if trajectory.stop.scored
    ]
    columns: dict[str, list[Any]] = {name: [] for name in (*_COLLATED, "row", "episode")}
    for index, (_, trajectory) in enumerate(episodes):
        done = 0
        for turns in trajectory.rows():
            for turn in turns:
                before = trajectory.turns[done - 1].observation if done else trajectory.opening
                _lay(columns, turn, done, before, shared=done < trajectory.shared_turns)
                done += 1
            columns["row"] += [len(columns["episode"])] * (
                len(columns["tokens"]) - len(columns["row"])
            )
            columns["episode"].append(index)
    turn_ = torch.tensor(columns["turn"], dtype=torch.long)
    mask = turn_ >= 0
    zeros = torch.zeros(len(mask))
    return Batch(
        tokens=torch.tensor(columns["tokens"], dtype=torch.long),
        mask=mask,
        row=torch.tensor(columns["row"], dtype=torch.long),
        turn=turn_,
        # Types are named, for a batch without turns: of nothing torch would guess another.
        logprob_sampled=torch.tensor(columns["logprob_sampled"], dtype=torch.float32) * mask,
        logprob=zeros,
        entropy=zeros,
        advantage=zeros,
        weight=token_mean(mask),
        turn_reward=torch.tensor(columns["turn_reward"], dtype=torch.float32) * mask,
        observation_hash=torch.tensor(columns["observation_hash"], dtype=torch.long) * mask,
        parsed=torch.tensor(columns["parsed"], dtype=torch.bool) & mask,
        shared=torch.tensor(columns["shared"], dtype=torch.bool) & mask,
        thought=torch.tensor(columns["thought"], dtype=torch.bool) & mask,
        episode=torch.tensor(columns["episode"], dtype=torch.long),
        group=torch.tensor([number for number, _ in episodes], dtype=torch.long),
        reward=torch.tensor([t.reward for _, t in episodes], dtype=torch.float32),
        truncated=torch.tensor(
            [t.stop is not Stop.TERMINATED for _, t in episodes], dtype=torch.bool
        ),
        won=torch.tensor([t.won for _, t in episodes], dtype=torch.bool),
        sample=torch.tensor([t.sample for _, t in episodes], dtype=torch.long),
        ending_hash=torch.tensor([_ending(t) for _, t in episodes], dtype=torch.long),
    )


def returns_differ(group: Sequence[Trajectory]) -> bool:
    """Whether the scored episodes have different returns in the precision that a batch holds.

    Sums of the same rewards in another order differ in double precision, and teach nothing.
    """
    scored = [trajectory.reward for trajectory in group if trajectory.stop.scored]
    return len(set(torch.tensor(scored, dtype=torch.float32).tolist())) > 1


def _ending(trajectory: Trajectory) -> int:
    last = trajectory.turns[-1:]
    return text_hash("".join(f"{turn.action}\n{turn.observation}" for turn in last))


_COLLATED = (
    "tokens",
    "turn",
    "logprob_sampled",
    "turn_reward",
    "observation_hash",
    "parsed",
    "shared",
    "thought",
)


def _lay(
    columns: dict[str, list[Any]], turn: Turn, number: int, before: str, *, shared: bool
) -> None:
    """Append one turn: what was read, off the mask, then what was written."""
    read, written = len(turn.prompt), len(turn.completion.tokens)
    columns["tokens"] += [*turn.prompt, *turn.completion.tokens]
    columns["logprob_sampled"] += [0.0] * read + list(turn.completion.logprobs)
    chosen = {
        "turn": number if turn.learn else -1,
        "turn_reward": turn.reward,
        "observation_hash": text_hash(before),
        "parsed": turn.parsed,
        "shared": shared,
    }
    columns["thought"] += [False] * read + [place < turn.thought_tokens for place in range(written)]
    for name, value in chosen.items():
        columns[name] += [-1 if name == "turn" else 0] * read + [value] * written
    start, stop = turn.forced
    first = len(columns["turn"]) - written
    columns["turn"][first + start : first + stop] = [-1] * (stop - start)


def text_hash(text: str) -> int:
    """A text as a whole number of 63 bits, equal on every machine."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
