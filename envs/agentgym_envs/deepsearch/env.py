"""DeepSearch as a world: questions over an encyclopaedia, by searching and reading."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from agentgym.env.base import SPLITS, AnyText, Opening, Outcome, one_of, unknown_split, unknown_task
from agentgym.errors import ConfigError, EnvError, MissingExtra
from agentgym.tools import HermesCalls, PythonTool, TagCalls, ToolWorld
from agentgym_envs.deepsearch.corpora import open_corpus
from agentgym_envs.deepsearch.files import QuestionFile, find
from agentgym_envs.deepsearch.made import Made, SplitBy
from agentgym_envs.deepsearch.names import Names
from agentgym_envs.deepsearch.pages import Encyclopaedia
from agentgym_envs.deepsearch.questions import NUMBERS, Lookup, Question
from agentgym_envs.deepsearch.remote import open_remote
from agentgym_envs.deepsearch.scoring import aepo, exact_match, f1
from agentgym_envs.deepsearch.sources import Page, Source

ENV = "agentgym/DeepSearch-v0"
_NEEDS = ("Stemmer", "docstring_parser", "pydantic")
_LOOKUPS = 7
"""Facts that the oracle looks up at most, so that turns are left for the answer."""


class DeepSearch(ToolWorld):
    """Find the answer to a question by search, visits and, where wanted, Python.

    Unless a file of questions is given, facts are made up, so nothing but the pages tells them;
    some stand in a page's second section, which a search shows nothing of. The first answer
    counts: 1 where it matches exactly, else 0; with ``reward="f1"`` the reward is the token F1, and
    with ``reward="aepo"`` that of ``scoring.aepo``, and -1 for an episode without an answer.
    ``info`` tells ``support_recall``, the share of the pages the answer rests on that were
    visited, in [0, 1]; 0 where the file does not name them.
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
        questions: str = "",
        corpus: str = "",
        data_split: str = "test",
        reward: Literal["exact", "f1", "aepo"] = "exact",
        notation: Literal["tags", "json"] = "tags",
        python: bool = False,
        **kwargs: Any,
    ) -> None:
        """Make the world; the encyclopaedia is written when it is needed.

        Args:
            hops: Facts that an answer takes, 1 to 4.
            size: Pages, at least 200.
            corpus_seed: Decides all facts.
            corpora: Encyclopaedias, each with facts of its own. Of more than one every split has as
                many for itself, and no facts can be learned by heart.
            names: Of syllables; or of a few common words, in at most 1,000 pages.
            split_by: Questions of two splits start from different entities; or they ask for
                different relations, too.
            relations: What questions of one hop ask for, such as ``author,mayor``; see
                ``knowledge.py``. Anything unless given.
            questions: A file of questions instead, such as HotpotQA, MuSiQue or BEIR's folder; see
                ``files.py``.
            corpus: The pages for it: a file, see ``corpora.py``, or the address of a server, see
                ``remote.py``. Unless given, the pages that the questions bring with them.
            data_split: The split that the file is; the others are empty.
            reward: Of the answer.
            notation: Calls as ``<search>...</search>`` or as JSON.
            python: There is an interpreter, too; see ``PythonTool``.
            **kwargs: See ``TextEnv``.

        Raises:
            ConfigError: A value is not one of those.
            MissingExtra: A library is not installed.
        """
        one_of("data_split", data_split, SPLITS)
        if not all(map(find_spec, _NEEDS)):
            raise MissingExtra(f'{ENV} needs more libraries: pip install "agentic-gym[deepsearch]"')
        one_of("reward", reward, ("exact", "f1", "aepo"))
        one_of("notation", notation, ("tags", "json"))
        self.made = Made(
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
        self.reward, self.data_split = reward, data_split
        self.file: QuestionFile | None = find(questions) if questions else None
        self._source = _source(self.file, corpus) if self.file else None
        if corpus and not questions:
            raise ConfigError(f"corpus {corpus} needs questions: name a file of them, too")
        self._number = 0
        self._question: Question | None = None
        self._here: Lookup | None = None
        self._seen: frozenset[str] = frozenset()
        self._staked = False
        self.action_space = AnyText(
            (self.write("search", "town"), self.write("visit", "x"), self.write("answer", "x"))
        )

    @property
    def encyclopaedia(self) -> Encyclopaedia:
        """All pages of the task; the same object for every world of this process."""
        return self.made.book(self._number)

    @property
    def source(self) -> Source:
        """What is searched."""
        return self._source or self.encyclopaedia

    def tasks(self, split: str) -> Sequence[str]:
        """Hops and number; or the rows of the file."""
        if split not in SPLITS:
            raise unknown_split(ENV, split, SPLITS)
        if self.file is not None:
            rows = range(len(self.file.questions)) if split == self.data_split else range(0)
            return [f"{self._prefix()}{row}" for row in rows]
        return [f"{self._prefix()}{number}" for number in NUMBERS[split]]

    def open(self, task: str, rng: np.random.Generator) -> Opening:
        """Ask; the task alone decides what."""
        self._number = self._find(task)
        self._question = (
            self.file.questions[self._number] if self.file else self.made.ask(self._number)
        )
        self._here, self._seen, self._staked = None, frozenset(), False
        goal = (
            f"Answer this question from the {'pages' if self.file else 'encyclopaedia'}. Answer "
            f"once, with the name or number alone.\n\n{self._question.text}"
        )
        return Opening("The encyclopaedia is open.", goal, self._question.pattern)

    def act(self, action: str) -> Outcome:
        """Make the calls; by AEPO's reward the first action costs 1, which the answer brings back.

        So an episode that ends without an answer has -1, whichever limit ends it.
        """
        outcome = super().act(action)
        if self.reward != "aepo" or self._staked:
            return outcome
        self._staked = True
        return outcome._replace(reward=outcome.reward - 1)

    def search(self, query: str, k: int = 3) -> str:
        """Find pages; shows how the best ones begin.

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
            text: What to find, whatever its case.
        """
        if self._here is None:
            raise ValueError("no page was visited yet")
        page = self._page(self._here.page)
        found = [
            f"[section {number}] {sentence.strip('.')}."
            for number, section in enumerate(page.sections, start=1)
            for sentence in section.split(". ")
            if text.lower() in sentence.lower()
        ]
        return "\n".join(found) or f"{page.title} does not hold {text!r}."

    def answer(self, result: str) -> Outcome:
        """Give the answer, which ends the episode.

        Args:
            result: A name or a number.
        """
        right = exact_match(result, self._asked().answers)
        text = "That is right." if right else "That is wrong."
        return Outcome(text, self._worth(result, right), float(right), right, done=True)

    def oracle(self) -> tuple[str, ...]:
        """Look up each fact the answer rests on, then answer."""
        question = self._asked()
        steps = []
        for page, section in question.support[:_LOOKUPS]:
            steps.append(self.write("search", page))
            steps.append(self.write("visit", page if section == 1 else f"{page}#{section}"))
        return (*steps, self.write("answer", question.answer))

    def _worth(self, result: str, right: bool) -> float:
        if self.reward == "exact":
            return float(right)
        score = f1(result, self._asked().answers)
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
        raise unknown_task(ENV, task, self.tasks(self.data_split)[:1])

    def _prefix(self) -> str:
        return f"file-{self.file.digest}-" if self.file else self.made.prefix

    def _asked(self) -> Question:
        if self._question is None:
            raise EnvError("nothing was asked; call reset() first")
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
