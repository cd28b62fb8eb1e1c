"""Pages from files: BEIR, wiki-18 and FlashRAG as JSON lines, ARPO's search cache.

A file of JSON lines stays in place: its index and the offset of each line are written to the
cache once and mapped into memory, so that environments of many processes share them.
"""

from __future__ import annotations

import json
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agentgym.errors import ConfigError
from agentgym_envs.bm25 import INDEX_VERSION, Index, IndexWriter, mapped, term_key
from agentgym_envs.cache import cache_root, write_folder
from agentgym_envs.deepsearch.sources import Hit, Page, nfc, split

_FORMAT = 2
"""Version of the cache files; a new number rebuilds them."""


class Document(NamedTuple):
    """One entry of a corpus."""

    id: str
    title: str
    text: str


class Corpus:
    """Documents with their index; documents of one title form one page, in order."""

    snippet = 500

    def __init__(self, documents: Sequence[Document], folder: Path) -> None:
        """Open an index written by ``write_index``."""
        self.documents = documents
        self._index = ScoredIndex(folder, np.arange(len(documents)))
        self._titles, self._rows = (mapped(folder / f"{name}.npy") for name in ("titles", "rows"))

    def __len__(self) -> int:
        return len(self.documents)

    def search(self, query: str, count: int) -> list[Hit]:
        """The best documents by BM25, best first."""
        query = nfc(query)
        rows = self._index.search(query, count)
        scores = self._index.scores(query, rows)
        return [
            Hit(*self.documents[row], score=score) for row, score in zip(rows, scores, strict=True)
        ]

    def page(self, title: str) -> Page | None:
        """All documents with this title."""
        title = nfc(title)
        key = np.uint64(term_key(title))
        start, end = (int(np.searchsorted(self._titles, key, side)) for side in ("left", "right"))
        found = [self.documents[int(row)] for row in self._rows[start:end]]
        texts = [document.text for document in found if nfc(document.title) == title]
        sections = tuple(section for text in texts for section in split(text))
        return Page(title, sections) if texts else None


class ScoredIndex(Index):
    """An index that also returns scores."""

    def scores(self, query: str, rows: Sequence[int]) -> list[float]:
        """BM25 scores of the given rows."""
        wanted, total = np.array(rows, np.int64), np.zeros(len(rows))
        for docs, impacts in self._postings(query):
            at = np.minimum(np.searchsorted(docs, wanted), len(docs) - 1)
            total += np.where(docs[at] == wanted, impacts[at], 0.0)
        return [round(float(score), 4) for score in total]


class LineDocuments(Sequence[Document]):
    """The documents of a file of JSON lines, read on access."""

    def __init__(self, path: Path, starts: npt.NDArray[np.int64]) -> None:
        self.path, self._starts = path, starts
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, row: Any) -> Any:
        """The document of a row."""
        start, end = int(self._starts[row]), int(self._starts[row + 1])
        return document(self._data[start:end], f"{self.path}, byte {start}", str(row))


def document(line: bytes, where: str, number: str) -> Document:
    """One line: ``title`` and ``text``, or ``contents`` that begins with the title.

    Raises:
        ConfigError: The line has another format.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{where}: not JSON: {str(problem)[:100]}") from None
    if isinstance(found, dict):
        id_ = str(found.get("_id", found.get("id", number)))
        contents, text = found.get("contents"), found.get("text")
        if isinstance(contents, str):
            return Document(id_, *split_title(contents))
        if isinstance(text, str):
            return Document(id_, str(found.get("title") or id_), text)
    raise ConfigError(
        f"{where}: expected an object with the text 'contents', or with 'title' and 'text'"
    )


def split_title(contents: str) -> tuple[str, str]:
    r"""Title and text of a document in one string, the format of Search-R1 and FlashRAG.

    Examples:
        >>> split_title('"Evan Morris"\nHe was a lobbyist.')
        ('Evan Morris', 'He was a lobbyist.')
    """
    title, _, text = contents.partition("\n")
    return title.strip().removeprefix('"').removesuffix('"'), text


def write_index(documents: Iterator[Document], folder: Path) -> int:
    """Write the index files of ``Corpus``; returns the number of documents."""
    writer, titles = IndexWriter(), []
    for one in documents:
        # The title counts twice, as in an index of both titles and texts.
        writer.add(nfc(f"{one.title} {one.title} {one.text}"))
        titles.append(term_key(nfc(one.title)))
    if not titles:
        return 0
    writer.write(folder)
    keys = np.array(titles, np.uint64)
    order = np.argsort(keys, kind="stable")
    np.save(folder / "titles.npy", keys[order])
    np.save(folder / "rows.npy", order)
    return len(titles)


def corpus_of(documents: Sequence[Document]) -> Corpus:
    """A corpus in memory."""
    with tempfile.TemporaryDirectory() as folder:
        write_index(iter(documents), Path(folder))
        # Mapped files stay readable after the folder is deleted.
        return Corpus(documents, Path(folder))


def open_corpus(path: str) -> Corpus:
    """The corpus of a file or of BEIR's folder; opened once per process and change.

    Raises:
        ConfigError: The file is missing, or has another format.
    """
    whole = Path(path).expanduser().resolve()
    if whole.is_dir():
        whole = whole / "corpus.jsonl"
    if not whole.is_file():
        raise ConfigError(f"corpus: there is no file {whole}")
    return _read_cached(whole, whole.stat().st_size, whole.stat().st_mtime_ns)


@cache
def _read_cached(path: Path, size: int, changed: int) -> Corpus:
    if path.suffix == ".json":
        return corpus_of(_snippets(path))
    identity = f"{_FORMAT}.{INDEX_VERSION} {path} {size} {changed}"
    key = blake2b(identity.encode(), digest_size=12).hexdigest()
    folder = cache_root() / "deepsearch" / key
    if not folder.exists():
        _build(path, folder)
    try:
        return Corpus(LineDocuments(path, mapped(folder / "starts.npy")), folder)
    except (OSError, ValueError, EOFError) as problem:
        raise ConfigError(f"the index in {folder} is damaged, remove it: {problem}") from None


def _build(path: Path, folder: Path) -> None:
    """Index a file atomically."""

    def write(beside: Path) -> None:
        starts: list[int] = []
        if not write_index(_documents(path, starts), beside):
            raise ConfigError(f"{path} holds no documents, expected a JSON object per line")
        np.save(beside / "starts.npy", np.array(starts, np.int64))

    write_folder(folder, write)


def _documents(path: Path, starts: list[int]) -> Iterator[Document]:
    """The documents of a file; appends the offset of each, and of the end, to ``starts``."""
    at = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                starts.append(at)
                yield document(line, f"{path}, line {number}", str(len(starts) - 1))
            at += len(line)
    starts.append(at)


def _snippets(path: Path) -> list[Document]:
    """ARPO's search cache: from queries to ``Page 1: ... Page 2: ...``; each text once."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as problem:
        raise ConfigError(f"cannot read the corpus {path}: {str(problem)[:100]}") from None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ConfigError(f"{path} is no search cache, expected an object from queries to texts")
    texts: dict[str, None] = {}
    for results in found.values():
        for line in results.split("\n"):
            head, _, text = line.partition(": ")
            if head.startswith("Page ") and text.strip():
                texts[text.strip()] = None
    if not texts:
        raise ConfigError(f"{path} holds no search results such as 'Page 1: ...'")
    return [Document(str(n), f"snippet {n}", text) for n, text in enumerate(texts)]
