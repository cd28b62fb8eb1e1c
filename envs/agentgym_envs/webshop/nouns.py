"""The nouns of a title, which decide whether two products are of one kind."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from agentgym.errors import ConfigError

LEXICON = "textblob"
"""The tagger that comes with a lexicon of its own; any other name is a spaCy model."""

_LOADING = threading.Lock()


@lru_cache(maxsize=65_536)
def nouns(title: str, tagger: str = LEXICON) -> frozenset[str]:
    """Lower-cased common and proper nouns.

    Differs: the original tags with spaCy's ``en_core_web_lg``. Name an installed spaCy model as
    ``tagger`` to do the same.

    Raises:
        ConfigError: No such model is installed.
    """
    with _LOADING:
        tag = _tagger(tagger)
    return frozenset(tag(title))


@cache
def _tagger(name: str) -> Callable[[str], list[str]]:
    return _textblob() if name == LEXICON else _spacy(name)


def _textblob() -> Callable[[str], list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it leaves the file of its lexicon open
        from textblob import en

        en.tag("warm up")

    def tag(text: str) -> list[str]:
        return [word.lower() for word, kind in en.tag(text) if kind.startswith("NN")]

    return tag


def _spacy(name: str) -> Callable[[str], list[str]]:
    try:
        import spacy

        model: Any = spacy.load(name)
    except (ModuleNotFoundError, OSError):
        raise ConfigError(
            f"no spaCy model {name!r} is installed; install it, or use tagger={LEXICON!r}"
        ) from None

    def tag(text: str) -> list[str]:
        return [word.text.lower() for word in model(text) if word.pos_ in ("NOUN", "PROPN")]

    return tag
