"""Search as Lucene ranks it: BM25 over an inverted index that is memory-mapped from a folder."""

from __future__ import annotations

import re
import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

K1, B = 0.9, 0.4
"""BM25's parameters in the original's search engine (Pyserini's defaults)."""

INDEX_VERSION = 2
"""Of the arrays and of the analysis of texts; part of the name of every folder with an index."""

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for if in into is it no not of on or such that the their "
        "then there these they this to was will with",
    )
)
_PICTURE = (
    r"\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u2328\u23cf-\u23fa\u25aa\u25ab\u25b6"
    r"\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714"
    r"\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757"
    r"\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50"
    r"\u2b55\U0001f000-\U0001faff"
)
"""Emoji: each is a word, with the emoji joined to it."""
_IDEOGRAPH = r"\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Each is a word."""
_NO_LETTER = (
    r"\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u215f\u2460-\u24ff\u2776-\u2793"
    r"\uff9e\uff9f"
)
"""Letters and digits of Python that are neither in Unicode's word breaking."""
_LETTER = rf"[^\W\d_{_NO_LETTER}{_IDEOGRAPH}]"
_SIGN = rf"[^\W{_NO_LETTER}{_IDEOGRAPH}]"
_IN_WORDS = r"[:.'\u2018\u2019\u2024\u00b7\u2027\uff1a\uff0e\uff07]"
"""Joins letters (MidLetter, MidNumLet)."""
_IN_NUMBERS = r"[.,;'\u2018\u2019\u2024\u2044\uff0c\uff0e\uff1b\uff07]"
"""Joins digits (MidNum, MidNumLet)."""
_TOKEN = re.compile(
    rf"[{_PICTURE}]\ufe0f?(?:\u200d[{_PICTURE}]\ufe0f?)*|[{_IDEOGRAPH}]|(?=_*[^\W_]){_SIGN}"
    rf"(?:{_SIGN}|(?<={_LETTER}){_IN_WORDS}(?={_LETTER})|(?<=\d){_IN_NUMBERS}(?=\d))*"
)
"""A word by Unicode's rules (UAX 29), to the extent that product texts need."""
_POSSESSIVE = re.compile(r"['\u2019]s$")


_STEP_2 = re.compile(r"^(.*(?:[aeiou]|[^aeiou]y)[^aeiou].*)(bl|log)(?:y|i|ies)$", re.S)
"""An ending of Porter's step 2 after a stem of positive measure: a vowel, then a consonant.

``y`` counts as a vowel after a consonant.
"""
_REPLACED = {"bl": "ble", "log": "log"}


def mapped(path: Path) -> npt.NDArray:
    """A memory-mapped array, as a plain view: ``np.memmap`` is slow to index."""
    return np.asarray(np.load(path, mmap_mode="r"))


class Analyzer:
    """Text to stems: word breaks, possessives, lower case, stop words, Porter's stemmer."""

    def __init__(self) -> None:
        from Stemmer import Stemmer

        self._stem = Stemmer("porter").stemWord

    def words(self, text: str) -> Iterator[str]:
        """The words of a text before stemming, stop words left out."""
        for token in _TOKEN.findall(text.lower()):
            word = _POSSESSIVE.sub("", token)
            if word not in STOP_WORDS:
                yield word

    def stem(self, word: str) -> str:
        """The stem of a lower-case word, as Lucene's ``PorterStemFilter`` gives it.

        Lucene follows Martin Porter's own program, which differs from his paper, and so from
        Snowball's ``porter``, in three points: words of one or two letters stay as they are, and
        step 2 turns ``bli`` into ``ble`` and ``logi`` into ``log``. The last two are applied here
        before stemming, to the endings that step 1 turns into these.

        Examples:
            >>> Analyzer().stem("technologies"), Analyzer().stem("possibly"), Analyzer().stem("us")
            ('technolog', 'possibl', 'us')
        """
        if len(word) <= 2:
            return word
        return str(self._stem(_STEP_2.sub(lambda found: found[1] + _REPLACED[found[2]], word)))


def term_key(term: str) -> int:
    """A 64-bit number for a term; two of a million terms share one with probability 1e-8."""
    return int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "big")


def stored_length(length: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Document lengths as Lucene stores them in one byte: exact below 40, then 4 bits of it."""
    rest = np.maximum(length - 24, 1)
    shift = np.maximum(np.floor(np.log2(rest)).astype(np.int64) - 3, 0)
    return np.where(length < 40, length, 24 + ((rest >> shift) << shift))


class IndexWriter:
    """Collects documents in order; ``write`` saves the arrays that ``Index`` maps."""

    def __init__(self) -> None:
        self.analyzer = Analyzer()
        self._words: dict[str, int] = {}
        self._stems: dict[str, int] = {}
        self._terms, self._counts = array("I"), array("I")
        self._sizes, self._lengths = array("I"), array("I")

    def add(self, text: str) -> None:
        """Add a document."""
        known = self._words
        ids: list[int] = []
        for word in self.analyzer.words(text):
            id_ = known.get(word)
            if id_ is None:
                id_ = self._stems.setdefault(self.analyzer.stem(word), len(self._stems))
                known[word] = id_
            ids.append(id_)
        counts = Counter(ids)
        self._terms.extend(counts)
        self._counts.extend(counts.values())
        self._sizes.append(len(counts))
        self._lengths.append(len(ids))

    def write(self, folder: Path) -> None:
        """Save the postings by term, documents ascending, each with its share of the score."""
        total = len(self._sizes)
        keys = np.array([term_key(stem) for stem in self._stems], np.uint64)
        by_key = np.argsort(keys)
        rank = np.empty(len(keys), np.uint32)
        rank[by_key] = np.arange(len(keys), dtype=np.uint32)
        terms = rank[np.frombuffer(self._terms, np.uint32)]
        order = np.argsort(terms, kind="stable")
        docs = np.repeat(np.arange(total, dtype=np.int32), np.frombuffer(self._sizes, np.uint32))
        docs, counts = docs[order], np.frombuffer(self._counts, np.uint32)[order]
        lengths = np.frombuffer(self._lengths, np.uint32).astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(np.bincount(terms, minlength=len(keys)))])
        mean = np.float32(lengths.sum() / max(1, total))
        # In 32 bits and in Lucene's order of operations, so that equal scores are equal here too.
        k1, b, one = np.float32(K1), np.float32(B), np.float32(1)
        norm = one / (k1 * ((one - b) + b * stored_length(lengths).astype(np.float32) / mean))
        sizes = np.diff(starts)
        idf = np.log(1 + (total - sizes + 0.5) / (sizes + 0.5)).astype(np.float32)
        weight = np.repeat(idf, sizes)
        impact = weight - weight / (one + counts.astype(np.float32) * norm[docs])
        np.save(folder / "term_keys.npy", keys[by_key])
        np.save(folder / "term_starts.npy", starts.astype(np.int64))
        np.save(folder / "posting_docs.npy", docs)
        np.save(folder / "posting_impacts.npy", impact.astype(np.float32))


class Index:
    """Ranks documents for a query; safe to use from many threads."""

    def __init__(self, folder: Path, order: npt.NDArray) -> None:
        """Open an index; ``order`` ranks documents of equal score."""
        self.order = order
        self._analyzer = Analyzer()
        self._keys, self._starts, self._docs, self._impacts = (
            mapped(folder / f"{name}.npy")
            for name in ("term_keys", "term_starts", "posting_docs", "posting_impacts")
        )
        self._local = threading.local()
        self._span = lru_cache(maxsize=65_536)(self._find)
        self.search = lru_cache(maxsize=4096)(self._search)
        """``search(query, count)``: rows of the best documents, best first."""

    def _search(self, query: str, count: int) -> tuple[int, ...]:
        """At most ``count`` documents that contain a word of the query."""
        postings = list(self._postings(query))
        if not postings:
            return ()
        scores = self._scores()
        for docs, impacts in postings:
            # In these types it is twice as fast as `scores[docs] += impacts`.
            np.add.at(scores, docs.astype(np.intp), impacts.astype(np.float64))
        docs = self._contenders(scores, [docs for docs, _ in postings], count)
        # 32 bits at the end, as in Lucene, so that scores that are equal there are equal here.
        values = scores[docs].astype(np.float32)
        best = np.lexsort((self.order[docs], -values))[:count]
        ranked = tuple(docs[best].tolist())
        scores.fill(0.0)
        return ranked

    def _postings(self, query: str) -> Iterable[tuple[npt.NDArray, npt.NDArray]]:
        """Documents and impacts of each distinct term; a repeated term counts as often."""
        spans = Counter(filter(None, map(self._span, self._analyzer.words(query))))
        for (start, end), times in spans.items():
            yield self._docs[start:end], self._impacts[start:end] * np.float32(times)

    def _find(self, word: str) -> tuple[int, int] | None:
        """The range of the postings of a word."""
        key = np.uint64(term_key(self._analyzer.stem(word)))
        at = int(np.searchsorted(self._keys, key))
        if at == len(self._keys) or self._keys[at] != key:
            return None
        return int(self._starts[at]), int(self._starts[at + 1])

    def _scores(self) -> npt.NDArray[np.float64]:
        """An array of zeros per thread: clearing it after use is cheaper than a new one."""
        scores: npt.NDArray[np.float64] | None = getattr(self._local, "scores", None)
        if scores is None:
            scores = self._local.scores = np.zeros(len(self.order))
        return scores

    def _contenders(
        self, scores: npt.NDArray[np.float64], lists: list[npt.NDArray], count: int
    ) -> npt.NDArray:
        """Every document that can be among the best ``count``, in ascending order.

        The ``count``-th best among the documents of one term is a lower bound of the ``count``-th
        best of all, so only one short list is partitioned and the rest is one comparison.
        """
        long_enough = [docs for docs in lists if len(docs) >= count]
        if not long_enough:
            return np.flatnonzero(scores)
        some = scores[min(long_enough, key=len)]
        bound = np.partition(some, len(some) - count)[len(some) - count]
        # Slightly lower, because the ranking rounds to 32 bits.
        return np.flatnonzero(scores >= bound * (1 - 1e-6))
