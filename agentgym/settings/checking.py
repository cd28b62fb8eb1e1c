"""How thoroughly an environment is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """How much work the environment checker does; slow environments get less.

    Every check has a smallest number of repetitions, which finds all faults that the checker is
    tried on; the times below are for repeating it further.
    """

    section: ClassVar[str] = "effort"

    steps: int = 200
    """Random steps that are repeated in this environment, in another one, in threads and in a
    second process."""
    resets: int = 1000
    """Resets of one environment over which memory must stay level."""
    budget: float = 25.0
    """Seconds that all checks may take together, without those in which the checker waits for a
    core. Each check takes a share, and says what it left out. 0: no limit."""
    seconds: float = 10.0
    """Time after which a repeating check stops with what it has seen, whatever the budget."""
    call_timeout: float = 60.0
    """Seconds after which a call into the environment that has not returned counts as hanging."""
    episodes: int = 4
    """Smallest number of episodes or tasks of such a check, however long they take."""
