"""Scores of answers: exact match, token F1 after SQuAD's normalisation, and AEPO's reward."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Iterable

from agentgym_envs.deepsearch.sources import nfc

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and double blanks.

    Source:
        Rajpurkar et al. 2016 (arXiv:1606.05250), the evaluation script. Differs: a text that it
        would empty keeps its articles, or its punctuation; Unicode is composed first.

    Examples:
        >>> normalised("The  Silent River!")
        'silent river'
    """
    lower = " ".join(nfc(text).lower().split())
    bare = lower.translate(_NO_PUNCTUATION)
    # Names such as "The The" and "!!!" would be empty, and so equal to any empty answer.
    kept = (_ARTICLES.sub(" ", bare), bare, lower)
    return next((" ".join(each.split()) for each in kept if each.strip()), "")


def exact_match(given: str, golds: Iterable[str]) -> bool:
    """The answer equals one of the golds after normalisation."""
    answer = normalised(given)
    return answer != "" and answer in map(normalised, golds)


def f1(given: str, golds: Iterable[str]) -> float:
    """Largest harmonic mean of precision and recall of words, over the golds, in [0, 1].

    A bare yes, no or "noanswer" scores 0 or 1 only.

    Source:
        The HotpotQA evaluation (Yang et al. 2018, arXiv:1809.09600).

    Examples:
        >>> f1("River Silent Road", ["The Silent River"])
        0.8
    """
    return max((_f1(normalised(given), normalised(gold)) for gold in golds), default=0.0)


def aepo(score: float, *, well_formed: bool, called: Collection[str]) -> float:
    """AEPO's reward of an answer, in [-1, 1.1]; -1 for a malformed episode.

    Args:
        score: F1 of the answer.
        well_formed: All calls of the episode are well formed.
        called: Names of the tools used.

    Source:
        The released code of AEPO (arXiv:2510.14545): -1 for a broken format, else F1, plus 0.1
        for an answer with F1 above 0 that used both search and Python. Differs: the answer is a
        call, so it needs no box; closed thoughts are checked by the agent's
        action format.

    Examples:
        >>> aepo(0.5, well_formed=True, called=["search", "visit", "python"])
        0.6
    """
    if not well_formed:
        return -1.0
    return score + (0.1 if score > 0 and {"search", "python"} <= set(called) else 0.0)


def _f1(given: str, gold: str) -> float:
    closed = {"yes", "no", "noanswer"}
    if given != gold and (given in closed or gold in closed):
        return 0.0
    ours, theirs = given.split(), gold.split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0
