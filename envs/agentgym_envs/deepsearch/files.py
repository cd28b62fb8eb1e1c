"""Questions from files: HotpotQA, 2Wiki, MuSiQue, Bamboogle, SimpleQA, BEIR, FlashRAG, verl.

The format is detected from the fields of a row, so each may come as JSON lines, as one JSON
list, or as Parquet.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError, MissingExtra
from agentgym_envs.deepsearch.corpora import Corpus, Document, corpus_of, document
from agentgym_envs.deepsearch.questions import Lookup, Question

_QUESTIONS = ("question", "Question", "problem", "query")
_ANSWERS = ("golden_answers", "answer", "answers", "Answer")
_ALIASES = ("answer_aliases", "aliases")
_KINDS = ("type", "data_source", "level")


@dataclass(frozen=True, eq=False)
class QuestionFile:
    """The questions of one file, by row."""

    questions: tuple[Question, ...]
    documents: tuple[Document, ...]
    """Pages included in the rows, without duplicates."""
    digest: str
    """Hash of the content."""

    @cached_property
    def corpus(self) -> Corpus:
        """The pages of the rows, with their index."""
        return corpus_of(self.documents)


def open_questions(path: str) -> QuestionFile:
    """A file of questions, or BEIR's folder; read once per process and change.

    Raises:
        ConfigError: The file is missing, or has another format.
        MissingExtra: It is a Parquet file, and pyarrow is not installed.
    """
    whole = Path(path).expanduser().resolve()
    if whole.is_dir():
        whole = whole / "queries.jsonl"
    if not whole.is_file():
        raise ConfigError(f"questions: there is no file {whole}")
    return _read_cached(whole, whole.stat().st_mtime_ns)


@cache
def _read_cached(path: Path, changed: int) -> QuestionFile:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    if path.name == "queries.jsonl":
        return QuestionFile(tuple(_beir(path)), (), digest)
    questions: list[Question] = []
    documents: dict[Document, None] = {}
    for where, row in _rows(path):
        # Mathematics belongs to PythonMath; MuSiQue has unanswerable questions.
        if row.get("ability") == "math" or row.get("answerable") is False:
            continue
        paragraphs = list(_paragraphs(row, where))
        questions.append(_question(row, where, path.stem, paragraphs))
        documents.update(dict.fromkeys(page for page, _ in paragraphs))
    if not questions:
        raise ConfigError(f"{path} holds no questions that a search could answer")
    return QuestionFile(tuple(questions), tuple(documents), digest)


def _question(
    row: Mapping[str, Any], where: str, stem: str, paragraphs: list[tuple[Document, bool]]
) -> Question:
    """The question of one row of any format."""
    extra, reward = (
        found if isinstance(found := row.get(name), Mapping) else {}
        for name in ("extra_info", "reward_model")
    )
    text = (
        _first(row, _QUESTIONS)
        or _first(extra, _QUESTIONS)
        or _last_user_message(row.get("prompt"))
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


def _last_user_message(prompt: object) -> str:
    """The last user message of a chat prompt."""
    messages = prompt if isinstance(prompt, list) else []
    texts = [each.get("content") for each in messages if isinstance(each, Mapping)]
    return next((text.strip() for text in reversed(texts) if isinstance(text, str)), "")


def _texts(value: object) -> list[str]:
    """Answers: one or a list; a list may be written as a string, and yes or no as a boolean."""
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int | float):
        return [str(value)]
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
    with judged.open(newline="") as file:
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
    for where, row in _rows(path):
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


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of a file, each with its position."""
    if path.suffix == ".parquet":
        found: Iterable[tuple[str, Any]] = _parquet(path)
    else:
        found = _json(path)
    for where, row in found:
        if not isinstance(row, Mapping):
            raise ConfigError(f"{where}: got a JSON {type(row).__name__}, expected an object")
        yield where, row


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"cannot read the questions in {path}: {problem}") from None
    if text.lstrip().startswith("["):
        rows = _parsed(text, str(path))
        yield from ((f"{path}, entry {number}", row) for number, row in enumerate(rows, start=1))
        return
    # Not `splitlines`: texts may hold other marks that it takes for the end of a line.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parsed(line, where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{where}: not JSON: {str(problem)[:100]}") from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow.parquet as parquet
        from pyarrow.lib import ArrowException
    except ImportError:
        raise MissingExtra('Parquet needs pyarrow: pip install "agentic-gym[parquet]"') from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ArrowException) as problem:
        raise ConfigError(f"cannot read {path}: {str(problem)[:150]}") from None
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))
