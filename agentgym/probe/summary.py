"""What turn values show about episodes, in a table."""

from __future__ import annotations

from collections.abc import Sequence

from agentgym.evaluation.tables import Grid
from agentgym.probe.continuations import widest
from agentgym.probe.files import ValuedEpisode

SHOWN = 40
"""Episodes in the table; the file has all."""
LONGEST = 40
"""Characters of an action in the table."""


def summary(
    found: Sequence[ValuedEpisode], *, states: int, continuations: int, policy: str, note: str
) -> Grid:
    """A row per episode: the value at its start, and the turn that changed it most.

    Args:
        found: The episodes.
        states: Different states in them.
        continuations: Played from these states.
        policy: Who continued them.
        note: How the states were reached.
    """
    widths = sorted(widest(episode.values) for episode in found)
    notes = (
        f"Value: success of a continuation by {policy}, with its 95 % interval.",
        f"{continuations} continuations from {states} states; {note}",
        f"Half width of the widest interval: {widths[-1]:.3f}; of half the episodes at most "
        f"{widths[len(widths) // 2]:.3f}.",
    )
    return Grid(
        title=f"{len(found)} episodes, continued by {policy}",
        columns=("task", "sample", "won", "value at the start", "decisive turn", "from", "to"),
        rows=tuple(_row(episode) for episode in found[:SHOWN]),
        notes=notes,
    )


def _row(episode: ValuedEpisode) -> tuple[str, ...]:
    start, turn = episode.values[0], episode.decisive
    head = (
        episode.task.id[-32:],
        str(episode.sample),
        "yes" if episode.won else "no",
        f"{start.value:.2f} [{start.low:.2f}, {start.high:.2f}]",
    )
    if turn is None:
        return *head, "none is clear", "", ""
    before, after = episode.values[turn], episode.values[turn + 1]
    action = episode.actions[turn][:LONGEST] or "(no action)"
    return *head, f"{turn + 1}: {action}", f"{before.value:.2f}", f"{after.value:.2f}"
