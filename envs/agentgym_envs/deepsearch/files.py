"""Questions from files: HotpotQA, 2Wiki, MuSiQue, Bamboogle, SimpleQA, BEIR, FlashRAG, verl.

The format is detected from the fields of a row, so each may come as JSON lines, as one JSON
list, or as Parquet.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym_envs.datafiles import (
    DataFile,
    data_files,
    digest_of,
    last_user_message,
    read_rows,
)
from agentgym_envs.deepsearch.corpora import Corpus, Document, corpus_of, document
from agentgym_envs.deepsearch.questions import Lookup, Question

_QUESTIONS = ("question", "Question", "problem", "query")
_ANSWERS = ("golden_answers", "answer", "answers", "Answer")
_ALIASES = ("answer_aliases", "aliases")
_KINDS = ("type", "data_source", "level")


@dataclass(frozen=True, eq=False)
class QuestionFile:
    """The questions of one file, or of a folder with a file per split, by row."""

    questions: tuple[Question, ...]
    documents: tuple[Document, ...]
    """Pages included in the rows, without duplicates."""
    files: tuple[DataFile, ...]
    named: tuple[str, ...]
    """The split that the file of each row states, or an empty text."""
    digest: str
    """Hash of the content."""

    @cached_property
    def corpus(self) -> Corpus:
        """The pages of the rows, with their index."""
        return corpus_of(self.documents)


def open_questions(data: str) -> QuestionFile:
    """A file of questions, BEIR's folder, or one with a file per split; cached until a change.

    Raises:
        ConfigError: The file is missing, or has another format.
        MissingExtra: It is a Parquet file, and pyarrow is not installed.
    """
    beir = Path(data).expanduser().resolve() / "queries.jsonl"
    files = (DataFile(beir),) if beir.is_file() else data_files(data)
    return _read_cached(files, tuple(file.path.stat().st_mtime_ns for file in files))


@cache
def _read_cached(files: tuple[DataFile, ...], changed: tuple[int, ...]) -> QuestionFile:
    digest = digest_of(files)
    if files[0].path.name == "queries.jsonl":
        judged = tuple(_beir(files[0].path))
        return QuestionFile(judged, (), files, ("",) * len(judged), digest)
    questions: list[Question] = []
    documents: dict[Document, None] = {}
    named: list[str] = []
    for file in files:
        for where, row in read_rows(file.path):
            # Mathematics belongs to PythonMath; MuSiQue has unanswerable questions.
            if row.get("ability") == "math" or row.get("answerable") is False:
                continue
            paragraphs = list(_paragraphs(row, where))
            questions.append(_question(row, where, file.path.stem, paragraphs))
            documents.update(dict.fromkeys(page for page, _ in paragraphs))
            named.append(file.split)
    if not questions:
        paths = ", ".join(str(file.path) for file in files)
        raise ConfigError(f"{paths} holds no questions that a search could answer")
    return QuestionFile(tuple(questions), tuple(documents), files, tuple(named), digest)


def _question(
    row: Mapping[str, Any], where: str, stem: str, paragraphs: list[tuple[Document, bool]]
) -> Question:
    """The question of one row of any format."""
    extra, reward = (
        found if isinstance(found := row.get(name), Mapping) else {}
        for name in ("extra_info", "reward_model")
    )
    text = (
        _first(row, _QUESTIONS) or _first(extra, _QUESTIONS) or last_user_message(row.get("prompt"))
    )
    answers = [
        *_texts(next((row[name] for name in _ANSWERS if row.get(name) is not None), None)),
        *_texts(reward.get("ground_truth")),
        *(alias for name in _ALIASES for alias in _texts(row.get(name))),
    ]
    if not text or not answers:
        raise ConfigError(
            f"{where}: expected texts under 'question' and 'answer' (or 'golden_answers', or "
            f"verl's 'extra_info' and 'reward_model'), got the fields {', '.join(row) or 'none'}"
        )
    first, *others = dict.fromkeys(answers)
    kind = next((str(row[name]) for name in _KINDS if isinstance(row.get(name), str)), stem)
    support = dict.fromkeys(page.title for page, needed in paragraphs if needed)
    return Question(text, first, kind, tuple(Lookup(title, 1) for title in support), tuple(others))


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str:
    return next((row[name].strip() for name in names if isinstance(row.get(name), str)), "")


def _texts(value: object) -> list[str]:
    """Answers: one or a list; a list may be written as a string, and yes or no as a boolean."""
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int | float):
        return [str(value)]
    if isinstance(value, Mapping):
        # Search-R1 and verl keep the answers under `target`.
        return _texts(value.get("target"))
    if isinstance(value, list | tuple):
        return [text for each in value for text in _texts(each)]
    if not isinstance(value, str) or not value.strip():
        return []
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return [text]
        if isinstance(found, list) and found and all(isinstance(each, str) for each in found):
            return _texts(found)
    return [text]


def _paragraphs(row: Mapping[str, Any], where: str) -> Iterator[tuple[Document, bool]]:
    """The pages of a row, and whether they support the answer: HotpotQA, 2Wiki, MuSiQue.

    ``context`` is a list of pairs, or columns as on the Hugging Face hub.
    """
    try:
        facts, context = row.get("supporting_facts") or (), row.get("context") or ()
        if isinstance(facts, Mapping):
            facts = [[title] for title in facts["title"]]
        if isinstance(context, Mapping):
            context = list(zip(context["title"], context["sentences"], strict=True))
        needed = {fact[0] for fact in facts}
        for title, sentences in context if isinstance(context, list) else ():
            text = " ".join(sentence.strip() for sentence in sentences)
            yield Document(title, title, text), title in needed
        for each in row.get("paragraphs") or ():
            title = each["title"]
            yield Document(title, title, each["paragraph_text"]), bool(each.get("is_supporting"))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as problem:
        raise ConfigError(f"{where}: its context cannot be read: {problem!r}"[:300]) from None


def _beir(path: Path) -> Iterator[Question]:
    """BEIR's queries: the title of any relevant document is a right answer."""
    judged = next((path.parent / "qrels" / f"{name}.tsv" for name in ("test", "dev", "train")
                   if (path.parent / "qrels" / f"{name}.tsv").is_file()), None)  # fmt: skip
    if judged is None:
        raise ConfigError(f"{path.parent} lacks qrels/test.tsv, dev.tsv or train.tsv")
    titles = _titles(path.parent / "corpus.jsonl")
    relevant: dict[str, dict[str, None]] = {}
    with judged.open(newline="", encoding="utf-8") as file:
        for number, cells in enumerate(csv.reader(file, delimiter="\t"), start=1):
            if number == 1 and cells[-1:] == ["score"]:
                continue
            if (
                len(cells) != 3
                or cells[1] not in titles
                or not cells[2].removeprefix("-").isdecimal()
            ):
                raise ConfigError(
                    f"{judged}, line {number}: expected query, document, score: {cells}"
                )
            if int(cells[2]) > 0:
                relevant.setdefault(cells[0], {})[titles[cells[1]]] = None
    for where, row in read_rows(path):
        id_, text = row.get("_id"), row.get("text")
        if not isinstance(id_, str) or not isinstance(text, str):
            raise ConfigError(f"{where}: expected the texts '_id' and 'text'")
        if id_ in relevant:
            first, *others = relevant[id_]
            question = f"Which page answers this? Answer with its title. {text.strip()}"
            support = tuple(Lookup(title, 1) for title in (first, *others))
            yield Question(question, first, "retrieval", support, tuple(others))


def _titles(path: Path) -> dict[str, str]:
    """Titles of a corpus by id, read line by line."""
    if not path.is_file():
        raise ConfigError(f"BEIR's folder lacks {path}")
    found = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                one = document(line, f"{path}, line {number}", str(number))
                found[one.id] = one.title
    return found
