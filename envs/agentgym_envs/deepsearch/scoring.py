"""How answers are scored: exact match and token F1 after SQuAD's normalisation."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and double blanks.

    Source:
        Rajpurkar et al. 2016 (arXiv:1606.05250), the evaluation script.

    Examples:
        >>> normalised("The  Silent River!")
        'silent river'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(given: str, golds: Iterable[str]) -> bool:
    """The answer is one of the known ones."""
    return normalised(given) in map(normalised, golds)


def f1(given: str, golds: Iterable[str]) -> float:
    """Largest harmonic mean of precision and recall of words, over the known answers, in [0, 1].

    A bare yes, no or "noanswer" is right or wrong: sharing the word with a longer text is nothing.

    Source:
        The HotpotQA evaluation (Yang et al. 2018, arXiv:1809.09600).

    Examples:
        >>> f1("River Silent Road", ["The Silent River"])
        0.8
    """
    return max((_f1(normalised(given), normalised(gold)) for gold in golds), default=0.0)


def _f1(given: str, gold: str) -> float:
    closed = {"yes", "no", "noanswer"}
    if given != gold and (given in closed or gold in closed):
        return 0.0
    ours, theirs = given.split(), gold.split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0
