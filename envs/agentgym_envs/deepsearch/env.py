"""The DeepSearch environment: questions answered by searching and reading pages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from agentgym.env.base import SPLITS, AnyText, Opening, Outcome, one_of, unknown_split, unknown_task
from agentgym.errors import ConfigError, EnvError, MissingExtra
from agentgym.tools import HermesCalls, PythonTool, TagCalls, ToolEnv
from agentgym_envs.datafiles import DATA_SPLITS, DataSplit, split_rows
from agentgym_envs.deepsearch.corpora import open_corpus
from agentgym_envs.deepsearch.files import QuestionFile, open_questions
from agentgym_envs.deepsearch.generated import QuestionGenerator, SplitBy
from agentgym_envs.deepsearch.names import Names
from agentgym_envs.deepsearch.pages import Encyclopaedia
from agentgym_envs.deepsearch.questions import NUMBERS, Lookup, Question
from agentgym_envs.deepsearch.remote import open_remote
from agentgym_envs.deepsearch.scoring import aepo, exact_match, f1
from agentgym_envs.deepsearch.sources import Page, Source, nfc

ENV = "agentgym/DeepSearch-v0"
_NEEDS = ("Stemmer", "docstring_parser", "pydantic")
_EXAMPLES = {
    "search": "capital of France",
    "visit": "Paris",
    "find_in_page": "population",
    "python": "1987 - 1865",
    "answer": "Paris",
}
"""An argument for each tool, shown in the manual."""
_LOOKUPS = 7
"""Most facts that the oracle looks up, so that turns remain for the answer."""


class DeepSearch(ToolEnv):
    """Answer a question by search, page visits and, optionally, Python.

    Without a question file the facts are generated, so they can only be found on the pages; some
    are in the second section of a page, which search results do not show. The first answer
    counts: 1 for an exact match, else 0; with ``reward="f1"`` the reward is the token F1, with
    ``reward="aepo"`` that of ``scoring.aepo``, and -1 for an episode without an answer.
    ``info["support_recall"]`` is the fraction of the supporting pages that were visited, in
    [0, 1]; 0 where the file does not name them.
    """

    def __init__(
        self,
        *,
        hops: int = 2,
        size: int = 2000,
        corpus_seed: int = 0,
        corpora: int = 1,
        names: Names = "made-up",
        split_by: SplitBy = "entity",
        relations: str = "",
        data: str = "",
        corpus: str = "",
        data_split: DataSplit = "auto",
        reward: Literal["exact", "f1", "aepo"] = "exact",
        notation: Literal["tags", "json"] = "tags",
        python: bool = False,
        **kwargs: Any,
    ) -> None:
        """Make the environment; the encyclopaedia is generated on first use.

        Args:
            hops: Number of facts that an answer needs, 1 to 4.
            size: Number of pages, at least 200.
            corpus_seed: Seed of all facts.
            corpora: Number of encyclopaedias, each with its own facts. With more than one, each
                split has that many of its own, so that facts cannot be memorised.
            names: ``made-up`` from syllables; or ``common`` words, for at most 1,000 pages.
            split_by: ``entity``: questions of two splits start from different entities.
                ``pattern``: they also ask for different relations.
            relations: Relations of one-hop questions, such as ``author,mayor``; see
                ``knowledge.py``. All if empty.
            data: A file of questions instead, such as HotpotQA, MuSiQue or BEIR's folder, or a
                folder with a file per split; see ``files.py``.
            corpus: The pages for it: a file, see ``corpora.py``, or the address of a server, see
                ``remote.py``. Unless given, the pages that the questions bring with them.
            data_split: How a file is split: ``hash``, or all of it ``train``, ``valid`` or
                ``test``; see ``datafiles.DataSplit``.
            reward: Reward of the answer.
            notation: Calls as ``<search>...</search>`` or as JSON.
            python: Add a Python interpreter; see ``PythonTool``.
            **kwargs: See ``TextEnv``.

        Raises:
            ConfigError: A value is out of range.
            MissingExtra: A library is not installed.
        """
        one_of("data_split", data_split, DATA_SPLITS)
        if not all(map(find_spec, _NEEDS)):
            raise MissingExtra(f'{ENV} needs more libraries: pip install "agentic-gym[deepsearch]"')
        one_of("reward", reward, ("exact", "f1", "aepo"))
        one_of("notation", notation, ("tags", "json"))
        self.generator = QuestionGenerator(
            hops=hops,
            size=size,
            corpus_seed=corpus_seed,
            corpora=corpora,
            names=names,
            split_by=split_by,
            relations=tuple(filter(None, map(str.strip, relations.split(",")))),
        )
        super().__init__(
            tools=(
                self.search,
                self.visit,
                self.find_in_page,
                *((PythonTool(),) if python else ()),
                self.answer,
            ),
            notation=TagCalls("information") if notation == "tags" else HermesCalls(),
            **kwargs,
        )
        self.reward = reward
        self.file: QuestionFile | None = open_questions(data) if data else None
        self._rows: dict[str, tuple[int, ...]] = {}
        if self.file:
            texts = [question.text for question in self.file.questions]
            self._rows = split_rows(texts, self.file.files, self.file.named, data_split)
        self._source = _source(self.file, corpus) if self.file else None
        if corpus and not data:
            raise ConfigError(f"corpus {corpus} needs questions: name a file of them as data, too")
        self._number = 0
        self._question: Question | None = None
        self._here: Lookup | None = None
        self._seen: frozenset[str] = frozenset()
        self._penalised = False
        self.action_space = AnyText(
            (self.write("search", "town"), self.write("visit", "x"), self.write("answer", "x"))
        )

    @property
    def encyclopaedia(self) -> Encyclopaedia:
        """All pages of the task; shared by all environments of this process."""
        return self.generator.encyclopaedia(self._number)

    @property
    def source(self) -> Source:
        """The source of pages."""
        return self._source or self.encyclopaedia

    def tasks(self, split: str) -> Sequence[str]:
        """Hops and number; or the rows of the file."""
        if split not in SPLITS:
            raise unknown_split(ENV, split, SPLITS)
        if self.file is not None:
            return [f"{self._prefix()}{row}" for row in self._rows[split]]
        return [f"{self._prefix()}{number}" for number in NUMBERS[split]]

    def open(self, task: str, rng: np.random.Generator) -> Opening:
        """Ask the question of the task."""
        self._number = self._find(task)
        self._question = (
            self.file.questions[self._number] if self.file else self.generator.ask(self._number)
        )
        self._here, self._seen, self._penalised = None, frozenset(), False
        goal = (
            f"Answer this question from the {'pages' if self.file else 'encyclopaedia'}. Answer "
            f"once, with the name or number alone.\n\n{self._question.text}"
        )
        return Opening("The encyclopaedia is open.", goal, self._question.pattern)

    def act(self, action: str) -> Outcome:
        """Execute the calls; with AEPO's reward the first action costs 1, which the answer refunds.

        So an episode that ends without an answer has return -1, for any limit that ends it.
        """
        outcome = super().act(action)
        if self.reward != "aepo" or self._penalised:
            return outcome
        self._penalised = True
        return outcome._replace(reward=outcome.reward - 1)

    def search(self, query: str, k: int = 3) -> str:
        """Find pages; shows the beginning of the best ones.

        Args:
            query: Words to look for.
            k: Number of pages, 1 to 10.
        """
        if not 1 <= k <= 10:
            raise ValueError(f"k is {k}, expected 1 to 10")
        lines = [
            f"Doc {place}(Title: {hit.title}) {hit.text[: self.source.snippet]}"
            for place, hit in enumerate(self.source.search(query, k), start=1)
        ]
        return "\n".join(lines) or "No page has any of these words."

    def visit(self, title: str, section: int = 0) -> str:
        """Read a page.

        Args:
            title: Its title; in tags, a section may follow after ``#``.
            section: Which section; the first unless given.
        """
        title, number = title.strip(), section or 1
        name, _, after = title.rpartition("#")
        if name and after.strip().isdecimal() and self.source.page(title) is None:
            title, number = name.strip(), section or int(after)
        page = self._page(title)
        if not 1 <= number <= len(page.sections):
            raise ValueError(f"{page.title} has sections 1 to {len(page.sections)}, got {number}")
        self._here, self._seen = Lookup(page.title, number), self._seen | {page.title}
        return (
            f"{page.title}, section {number} of {len(page.sections)}\n{page.sections[number - 1]}"
        )

    def find_in_page(self, text: str) -> str:
        """Find a text on the page visited last; shows the sentences that hold it.

        Args:
            text: Text to find, ignoring case.
        """
        if self._here is None:
            raise ValueError("no page was visited yet")
        page = self._page(self._here.page)
        found = [
            f"[section {number}] {sentence.strip('.')}."
            for number, section in enumerate(page.sections, start=1)
            for sentence in section.split(". ")
            if nfc(text).lower() in nfc(sentence).lower()
        ]
        return "\n".join(found) or f"{page.title} does not hold {text!r}."

    def answer(self, result: str) -> Outcome:
        """Give the answer, which ends the episode.

        Args:
            result: A name or a number.
        """
        right = exact_match(result, self._current().answers)
        text = "That is right." if right else "That is wrong."
        return Outcome(text, self._worth(result, right), float(right), right, done=True)

    def manual(self) -> str:
        """The task, the tools with an example each, and how it ends."""
        examples = ", ".join(f"`{self.write(one.name, _EXAMPLES[one.name])}`" for one in self.tools)
        return (
            f"You find the answer to a question by searching and reading pages.\n"
            f"Each action is one or more tool calls, written exactly as in these examples: "
            f"{examples}.\n{super().manual()}\n"
            f"Each turn answers with what the calls found. The first answer ends the episode, and "
            f"so does the turn limit. Only a right answer wins: give the name or number alone."
        )

    def oracle(self) -> tuple[str, ...]:
        """Look up each supporting fact, then answer."""
        question = self._current()
        steps = []
        for page, section in question.support[:_LOOKUPS]:
            steps.append(self.write("search", page))
            steps.append(self.write("visit", page if section == 1 else f"{page}#{section}"))
        return (*steps, self.write("answer", question.answer))

    def _worth(self, result: str, right: bool) -> float:
        if self.reward == "exact":
            return float(right)
        score = f1(result, self._current().answers)
        if self.reward == "f1":
            return score
        return 1 + aepo(score, well_formed=self.well_formed, called=self.called)

    def _find(self, task: str) -> int:
        """The number of a task."""
        number = task.removeprefix(self._prefix())
        end = len(self.file.questions) if self.file else NUMBERS["test"].stop
        plain = number.isascii() and number.isdecimal() and len(number) < 9
        if number != task and plain and str(int(number)) == number and int(number) < end:
            return int(number)
        raise unknown_task(ENV, task, [id_ for split in SPLITS for id_ in self.tasks(split)[:1]])

    def _prefix(self) -> str:
        return f"file-{self.file.digest}-" if self.file else self.generator.prefix

    def _current(self) -> Question:
        if self._question is None:
            raise EnvError("no question is set; call reset() first")
        return self._question

    def _page(self, title: str) -> Page:
        found = self.source.page(title)
        if found is None:
            raise ValueError(f"there is no page {title[:80]!r}; search for its title first")
        return found

    def _info(self) -> dict[str, Any]:
        support = {lookup.page for lookup in self._question.support} if self._question else set()
        recall = len(support & self._seen) / len(support) if support else 0.0
        return {**super()._info(), "support_recall": recall}


def _source(file: QuestionFile, corpus: str) -> Source:
    """The pages for a file of questions."""
    if corpus.startswith(("http://", "https://")):
        return open_remote(corpus)
    if corpus:
        return open_corpus(corpus)
    if not file.documents:
        raise ConfigError("the questions bring no pages with them: name a corpus, too")
    return file.corpus
