"""Generated questions: the encyclopaedia of each, and the ids of tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agentgym.env.base import one_of
from agentgym.errors import ConfigError
from agentgym_envs.deepsearch.knowledge import RELATIONS
from agentgym_envs.deepsearch.names import MOST_COMMON, NAMES, Names
from agentgym_envs.deepsearch.pages import Encyclopaedia, open_encyclopaedia
from agentgym_envs.deepsearch.questions import NUMBERS, Question, ask

SplitBy = Literal["entity", "pattern"]


@dataclass(frozen=True, kw_only=True)
class QuestionGenerator:
    """Generates the questions; the fields are the environment's arguments of the same names.

    Raises:
        ConfigError: A value is out of range.
    """

    hops: int
    size: int
    corpus_seed: int
    corpora: int
    names: Names
    split_by: SplitBy
    relations: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.hops not in range(1, 5):
            raise ConfigError(f"hops: got {self.hops!r}, expected 1 to 4")
        one_of("names", self.names, NAMES)
        one_of("split_by", self.split_by, ("entity", "pattern"))
        for relation in self.relations:
            one_of("relations", relation, tuple(RELATIONS))
        if self.relations and (self.hops > 1 or self.split_by == "pattern"):
            raise ConfigError("relations can be chosen only for hops 1, split by entity")
        if self.size < 200:
            raise ConfigError(f"size: got {self.size!r}, expected at least 200")
        if self.names == "common" and self.size > MOST_COMMON:
            raise ConfigError(
                f"size: got {self.size!r}, expected at most {MOST_COMMON} with common names; "
                f"made-up names work for any size"
            )
        if not 1 <= self.corpora <= 500:
            raise ConfigError(f"corpora: got {self.corpora!r}, expected 1 to 500")

    @property
    def prefix(self) -> str:
        """The prefix of task ids; the number follows."""
        marks = (
            self.names if self.names != "made-up" else "",
            f"{self.corpora}corpora" if self.corpora > 1 else "",
            "pattern" if self.split_by == "pattern" else "",
            *self.relations,
        )
        parts = [f"{self.hops}hop", str(self.size), str(self.corpus_seed)]
        return "-".join([*parts, *filter(None, marks), ""])

    def encyclopaedia(self, number: int) -> Encyclopaedia:
        """The encyclopaedia of a question; with several, each split has its own."""
        seed = self.corpus_seed
        if self.corpora > 1:
            place = next(at for at, numbers in enumerate(NUMBERS.values()) if number in numbers)
            seed += self.corpora * place + number % self.corpora
        return open_encyclopaedia(self.size, seed, self.names)

    def ask(self, number: int) -> Question:
        """A question by its number."""
        return ask(
            self.encyclopaedia(number).knowledge,
            number,
            self.hops,
            by_pattern=self.split_by == "pattern",
            relations=self.relations,
        )
