"""Settings of another scorer than the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from agentgym.errors import ImpossibleValue
from agentgym.utils.bounds import above, at_least


@dataclass(frozen=True, kw_only=True)
class ScoringSettings:
    """A scorer instead of the environment: a Python function, or a language model as a judge."""

    section: ClassVar[str] = "scoring"

    scorer: str | None = None
    """Function of an episode that returns a number from 0 to 1, as `file.py:function` or
    `module:function`."""
    judge: str | None = None
    """Address of an OpenAI-compatible service that judges episodes, without /v1. The key is
    read from OPENAI_API_KEY."""
    model: str | None = None
    """Name of the judge's model at the service."""
    rubric: Path | None = None
    """YAML file with the criteria of the judge and their weights."""
    concurrency: int = 8
    """Episodes that are scored at once."""
    max_tokens: int = 1024
    """Longest answer of the judge, in tokens."""
    deadline: float = 600.0
    """Seconds until a request must be answered, retries and rate limits included."""

    def __post_init__(self) -> None:
        """Refuse impossible values, and half a scorer."""
        at_least(1, self, "concurrency", "max_tokens")
        above(0, self, "deadline")
        if self.scorer is not None and self.judge is not None:
            raise ImpossibleValue("a scorer and a judge are both given, expected one of them")
        given = {"judge": self.judge, "model": self.model, "rubric": self.rubric}
        missing = [name for name, value in given.items() if value is None]
        if missing and len(missing) < len(given):
            raise ImpossibleValue(
                f"a judge is its address, its model and a rubric: {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing"
            )

    @property
    def given(self) -> bool:
        """Whether there is a scorer at all."""
        return self.scorer is not None or self.judge is not None
