"""Assigns prompts to cache rows by the longest cached prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agentgym.engines.local.decoder import Prefix

_WORTH_COPYING = 16
"""Shortest shared prefix, in tokens, for which copying a row beats computing it."""

_WORTH_SHARING = 64
"""Shortest opening, in tokens, that is read once for several slots."""

_MUCH_LONGER = 1.5
"""How many times longer an opening must be for two slots to leave a group for it."""

_FORGOTTEN = 4
"""Prompts per slot after which an idle slot without ``finish`` counts as abandoned."""


@dataclass(slots=True, eq=False)
class Slot:
    """One row of the KV cache and its state."""

    index: int
    tokens: list[int] = field(default_factory=list)
    """Token ids that are cached, or will be after the next call while ``pending``."""
    cached: int = 0
    """How many of them are valid now; the next model call computes the others."""
    busy: bool = False
    finished: bool = True
    """No further prompt is expected to extend it."""
    used: int = 0
    """Number of prompts placed before its last use."""
    prefix: Prefix | None = None
    """An opening that it has in common with other slots."""

    @property
    def pending(self) -> bool:
        """The next model call computes some of its tokens."""
        return self.cached < len(self.tokens)


class Place(NamedTuple):
    """The slot for a prompt."""

    slot: Slot
    start: int
    """Prompt tokens that are cached."""
    source: Slot | None
    """Slot to copy these tokens from first; None if the slot holds them itself."""


def common_prefix(a: list[int], b: list[int]) -> int:
    """Length of the longest common prefix.

    Examples:
        >>> common_prefix([1, 2, 3, 4], [1, 2, 5])
        2
    """
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    # Slices compare in C; halving costs about two passes and no Python per token.
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


class SlotPool:
    """Assigns prompts to slots; keeps tokens and states, no tensors."""

    def __init__(self, slots: int) -> None:
        self._slots = [Slot(i) for i in range(slots)]
        self._clock = 0

    def __len__(self) -> int:
        """Number of slots."""
        return len(self._slots)

    def place(self, prompt: list[int], *, displace: bool) -> Place | None:
        """Take a slot for a prompt.

        In this order: the idle slot whose whole content is a prefix of the prompt; else a free slot
        (never used, finished or abandoned), into which the longest prefix cached anywhere is
        copied; else, with ``displace``, the least recently used one.

        Args:
            prompt: Token ids.
            displace: Take the slot of a running episode. With more episodes than slots this costs
                the displaced one its whole cache, so use it only if nothing else can run.

        Returns:
            None if no slot may be taken, or if the next model call will compute a prefix that is
            worth waiting for.
        """
        idle = [slot for slot in self._slots if not slot.busy]
        if not idle:
            return None
        limit = len(prompt) - 1  # One token must be fed to get logits.
        size = len(prompt)
        # The last token first, without a call: most slots hold another context.
        near = [
            s for s in idle if 0 < (n := len(s.tokens)) <= size and s.tokens[-1] == prompt[n - 1]
        ]
        whole = max((s for s in near if _continues(prompt, s.tokens)), key=_size, default=None)
        if whole is not None:
            return self._take(whole, min(len(whole.tokens), limit), None)
        slot = min(idle, key=lambda s: (not s.finished, s.used, s.index))
        forgotten = self._clock - slot.used > _FORGOTTEN * len(self._slots)
        if not (slot.finished or displace or forgotten):
            return None
        shared = {s.index: min(common_prefix(prompt, s.tokens), limit) for s in self._slots}
        # Ties: prefer a slot that may be overwritten, then one whose entries are valid.
        best = max(
            self._slots,
            key=lambda s: (shared[s.index], not s.busy and s.finished, shared[s.index] <= s.cached),
        )
        if shared[best.index] < _WORTH_COPYING:
            place = self._take(slot, shared[slot.index], None)
        elif shared[best.index] > best.cached:
            return None
        elif best is slot or (best.finished and not best.busy):
            place = self._take(best, shared[best.index], None)
        else:
            place = self._take(slot, shared[best.index], best)
        self._join(place.slot, shared)
        return place

    def _take(self, slot: Slot, start: int, source: Slot | None) -> Place:
        self._clock += 1
        slot.used, slot.busy, slot.finished = self._clock, True, False
        if slot.prefix is not None and slot.prefix.length > start:
            slot.prefix = None
        return Place(slot, start, source)

    def _join(self, slot: Slot, shared: Mapping[int, int]) -> None:
        """Find the opening that a slot with a new prompt shares with others.

        Args:
            slot: Whose prompt it is.
            shared: The number of tokens that each slot has in common with the prompt, by index.
        """
        slot.prefix = None
        others = [other for other in self._slots if other is not slot]
        near = max(others, key=lambda other: shared[other.index], default=None)
        if near is None or shared[near.index] < _WORTH_SHARING:
            return
        longest = shared[near.index]
        groups = {
            other.prefix
            for other in others
            if other.prefix is not None and other.prefix.length <= shared[other.index]
        }
        group = max(groups, key=lambda group: group.length, default=None)
        if group is not None and longest < _MUCH_LONGER * group.length:
            slot.prefix = group
        elif near.prefix is None or near.prefix.length < longest:
            slot.prefix = near.prefix = Prefix(longest)

    def finish(self, context: Sequence[int]) -> None:
        """Mark the slot that holds the longest prefix of a context as finished."""
        tokens = list(context)
        held = [s for s in self._slots if s.tokens and _continues(tokens, s.tokens)]
        if held:
            # The last token of a completion is not cached, so siblings may hold the same.
            max(held, key=lambda s: (len(s.tokens), not s.finished, not s.busy)).finished = True

    def forget(self) -> None:
        """Invalidate all cached tokens."""
        for slot in self._slots:
            slot.tokens, slot.cached = [], 0
            slot.finished = slot.finished or not slot.busy


def _size(slot: Slot) -> int:
    return len(slot.tokens)


def _continues(prompt: list[int], tokens: list[int]) -> bool:
    """Whether one or more tokens are a prefix of the prompt."""
    n = len(tokens)
    # The last token first: it rejects most candidates without comparing lists.
    return 0 < n <= len(prompt) and prompt[n - 1] == tokens[-1] and prompt[:n] == tokens
