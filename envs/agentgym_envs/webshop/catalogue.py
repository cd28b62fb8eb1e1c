"""A catalogue on disk: built once per host, memory-mapped, and shared by all sessions."""

from __future__ import annotations

import hashlib
import json
import mmap
import threading
from array import array
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from agentgym.env.base import Progress
from agentgym.errors import EnvError
from agentgym_envs.bm25 import INDEX_VERSION, Index, IndexWriter, mapped
from agentgym_envs.cache import cache_root, write_folder
from agentgym_envs.webshop import goals
from agentgym_envs.webshop.files import ReadSoFar
from agentgym_envs.webshop.products import Product, identity, pack, unpack

_VERSION = 3
"""Of the files written here; part of every catalogue's folder name."""
_SEPARATOR = "\x1f"
"""Between the fields of a card; several times faster to read than JSON."""
_BUILDING = threading.Lock()
MAX_RESULTS = 50
"""Of a search."""


class Source(Protocol):
    """A source of products."""

    @property
    def size(self) -> int:
        """Total, in the unit that ``read`` reports."""

    @property
    def identity(self) -> str:
        """Sources with the same identity have the same products."""

    def read(self, report: ReadSoFar) -> Iterator[Product]:
        """Every product once, in a fixed order."""


class Card(NamedTuple):
    """A product on a page of results."""

    asin: str
    title: str
    price_tag: str


class Catalogue:
    """Products, search index and goals, read-only; see ``open_catalogue``."""

    def __init__(self, folder: Path, kind: goals.GoalKind) -> None:
        facts = json.loads((folder / "facts.json").read_bytes())
        self.folder = folder
        self.kind = kind
        self.digest: str = facts["digest"]
        """SHA-256 of the products, in hexadecimal."""
        self.size: int = facts["products"]
        # Anserini, the search engine of the original, sorts equal scores by product number.
        self.index = Index(folder, mapped(folder / "asin_ranks.npy"))
        self._products = _Blob(folder, "products")
        self._cards = _Blob(folder, "cards")
        self._asins = mapped(folder / "asins.npy")
        self._rows = mapped(folder / "asin_rows.npy")
        self._goals = mapped(folder / f"goals_{kind}.npy")
        self.product = lru_cache(maxsize=4096)(self._product)
        """``product(row)``: a product by its row in the catalogue."""
        self.card = lru_cache(maxsize=32_768)(self._card)
        """``card(row)``: its short form."""

    @property
    def goal_count(self) -> int:
        """Number of goals."""
        return len(self._goals)

    def goal(self, number: int) -> goals.Goal:
        """A goal by its position in the original's shuffled order."""
        row, choice = self._goals[number].tolist()
        return goals.goal(self.product(row), self.kind, choice)

    def row(self, asin: str) -> int | None:
        """The row of a product, or None."""
        key = np.bytes_(asin.encode())
        at = int(np.searchsorted(self._asins, key))
        return int(self._rows[at]) if at < self.size and self._asins[at] == key else None

    def search(self, query: str) -> tuple[int, ...]:
        """Rows of at most 50 products, best first."""
        return self.index.search(query, MAX_RESULTS)

    def _product(self, row: int) -> Product:
        return unpack(json.loads(self._products[row]))

    def _card(self, row: int) -> Card:
        return Card(*self._cards[row].decode().split(_SEPARATOR))


class _Blob:
    """Concatenated byte strings in a mapped file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._ends = mapped(folder / f"{name}_ends.npy")
        with (folder / f"{name}.bin").open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __getitem__(self, at: int) -> bytes:
        return self._data[int(self._ends[at]) : int(self._ends[at + 1])]


def folder_of(source: Source) -> Path:
    """The folder of the catalogue of a source."""
    name = hashlib.sha256(source.identity.encode()).hexdigest()[:16]
    return cache_root() / f"webshop-{_VERSION}.{INDEX_VERSION}" / name


def open_catalogue(
    source: Source, kind: goals.GoalKind = "synthetic", progress: Progress | None = None
) -> Catalogue:
    """Open the catalogue of a source; build it first if this host has none yet.

    Raises:
        CacheError: It cannot be written.
        EnvError: It, or the source, cannot be read.
    """
    folder = folder_of(source)
    if not folder.is_dir():
        with _BUILDING:
            if not folder.is_dir():
                _build(source, folder, progress or (lambda done, total: None))
    return _opened(folder, kind)


@cache
def _opened(folder: Path, kind: goals.GoalKind) -> Catalogue:
    try:
        return Catalogue(folder, kind)
    except (OSError, ValueError, KeyError) as problem:
        raise EnvError(
            f"the catalogue {folder} is damaged ({problem}); delete it, and it is built again"
        ) from problem


def _build(source: Source, folder: Path, progress: Progress) -> None:
    """Write the files of a catalogue, all or none."""
    write_folder(folder, lambda beside: _write(source, beside, progress))


def _write(source: Source, folder: Path, progress: Progress) -> None:
    index = IndexWriter()
    digest = hashlib.sha256()
    asins: list[bytes] = []
    wanted: dict[goals.GoalKind, array[int]] = {"synthetic": array("I"), "human": array("I")}
    total = source.size
    with _BlobWriter(folder, "products") as products, _BlobWriter(folder, "cards") as cards:
        for product in source.read(lambda done: progress(done, total)):
            digest.update(_json(identity(product)))
            products.add(_json(pack(product)))
            title = product.title.replace(_SEPARATOR, " ")
            cards.add(_SEPARATOR.join((product.asin, title, product.price_tag)).encode())
            index.add(product.document)
            asins.append(product.asin.encode())
            for kind, counts in wanted.items():
                counts.append(goals.count(product, kind))
    if not asins:
        raise EnvError("the catalogue has no products; check the product file")
    index.write(folder)
    order = np.argsort(np.array(asins))
    np.save(folder / "asins.npy", np.array(asins)[order])
    np.save(folder / "asin_rows.npy", order.astype(np.int32))
    np.save(folder / "asin_ranks.npy", np.argsort(order).astype(np.int32))
    for kind, counts in wanted.items():
        np.save(folder / f"goals_{kind}.npy", _goal_table(np.array(counts, np.int64)))
    facts = {"digest": digest.hexdigest(), "products": len(asins)}
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    progress(total, total)


def _goal_table(many: npt.NDArray[np.int64]) -> np.ndarray:
    """(goals, 2): row of the product and number of the goal in it, in the original's order."""
    total = int(many.sum())
    first = np.repeat(np.cumsum(many) - many, many)
    table = np.stack([np.repeat(np.arange(len(many)), many), np.arange(total) - first], axis=1)
    shuffled: np.ndarray = table[goals.shuffled(total)].astype(np.int32)
    return shuffled


class _BlobWriter:
    """Writes the files that ``_Blob`` maps."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = (folder / f"{name}.bin").open("wb")
        self._index = folder / f"{name}_ends.npy"
        self._ends = [0]

    def add(self, line: bytes) -> None:
        """Append a byte string."""
        self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))

    def __enter__(self) -> _BlobWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        np.save(self._index, np.array(self._ends, np.int64))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
