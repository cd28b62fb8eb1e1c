import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from agentgym.env.executor import fork_env
from agentgym.env.registry import world
from agentgym.errors import ConfigError, UnknownTask
from agentgym.testing import CheckSettings, check_environment
from agentgym_envs.deepsearch import names
from agentgym_envs.deepsearch.pages import open_encyclopaedia
from agentgym_envs.deepsearch.questions import NUMBERS, ask
from agentgym_envs.deepsearch.scoring import exact_match, f1, normalised

SIZE = 400
BRISK = CheckSettings(steps=50, resets=60, seconds=0.3)
"""Every check of the contract, each with a short time limit."""


def make(**kwargs):
    return world("agentgym/DeepSearch-v0", **{"size": SIZE, **kwargs})


def begin(env, number=4500):
    return env.reset(options={"task": f"{env.generator.hops}hop-{SIZE}-0-{number}"})


def questions(hops, split, count=60, **kwargs):
    knowledge = open_encyclopaedia(SIZE, 0).knowledge
    return [ask(knowledge, number, hops, **kwargs) for number in NUMBERS[split][:count]]


# ---- pages and questions ---------------------------------------------------------------------


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_every_supporting_fact_is_on_its_page_and_section(hops):
    book = open_encyclopaedia(SIZE, 0)
    aliases = book.knowledge.aliases
    for question in questions(hops, "train"):
        assert len(question.support) >= hops or question.pattern in ("comparison", "difference")
        texts = [book.pages[page].sections[section - 1] for page, section in question.support]
        if question.pattern.endswith("hop"):
            assert question.answer not in question.text
            for text, after in zip(texts, [*question.support[1:], None], strict=True):
                name = after.page if after else question.answer
                assert name in text or (after and aliases[name] in text)
        first = question.support[0].page
        assert first in question.text
    assert questions(hops, "train") == questions(hops, "train")


def test_comparisons_differences_and_counts_agree_with_the_pages():
    """Read from the text of the pages by a pattern, not from the graph."""
    book = open_encyclopaedia(SIZE, 0)
    seen = set()
    for question in questions(2, "train", 120):
        if question.pattern.endswith("hop"):
            continue
        seen.add(question.pattern)
        years = {}
        for page, section in question.support:
            found = re.findall(r"\b(1[89]\d\d|20[012]\d)\b", book.pages[page].sections[section - 1])
            if found:
                (years[page],) = map(int, found)
        if question.pattern == "count":
            limit = int(re.search(r"before (\d+):", question.text)[1])
            assert question.answer == str(sum(year < limit for year in years.values()))
            assert all(page in question.text for page in years) and len(years) == 3
        elif question.pattern == "difference":
            one, other = years.values()
            assert question.answer == str(abs(one - other))
        else:
            assert question.answer == min(years, key=years.get)
    assert seen == {"comparison", "difference", "count"}
    counts = [q.answer for q in questions(2, "train", 120) if q.pattern == "count"]
    assert set(counts) == {"0", "1", "2"}


def test_aliases_find_their_page_and_count_as_answers():
    book = open_encyclopaedia(SIZE, 0)
    short = {alias: name for name, alias in book.knowledge.aliases.items()}
    assert len(short) == len(book.knowledge.aliases) > 50
    message = [question for question in questions(1, "train", 400) if question.answer in short]
    assert message
    for question in message:
        full = short[question.answer]
        assert (
            question.aliases == (full,)
            and f"often written {question.answer}." in (book.page(full).sections[0])
        )
        assert full in [hit.title for hit in book.search(question.answer, 10)]
    full = [q for q in questions(1, "train", 400) if q.answer in book.knowledge.aliases]  # type: ignore[assignment]
    assert full and all(q.aliases == (book.knowledge.aliases[q.answer],) for q in full)  # type: ignore[attr-defined]


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_splits_by_pattern_ask_for_different_relations(hops):
    """The words of a question without its names show the relation it asks for."""

    def asked(split):
        found = set()
        for question in questions(hops, split, 100, by_pattern=True):
            names = sorted({lookup.page for lookup in question.support}, key=len, reverse=True)
            text = question.text
            for name in names:
                text = text.replace(name, "X")
            found.add(re.sub(r"\d+", "N", text))
        return found

    train, valid, test = map(asked, ("train", "valid", "test"))
    assert len(train) > len(test) > 0 < len(valid)
    assert not train & test and not valid & (train | test)


def test_with_several_corpora_each_split_has_its_own_facts():
    env = make(hops=1, size=200, corpora=3)
    books = {}
    for split, numbers in NUMBERS.items():
        for number in list(numbers)[:4]:
            env.reset(options={"task": f"1hop-200-0-3corpora-{number}"})
            books.setdefault(split, []).append(env.encyclopaedia)
            for action in env.oracle():
                *_, info = env.step(action)
            assert info["won"]
    assert all(first is fourth for first, *_, fourth in books.values())
    texts = {repr(book.pages) for found in books.values() for book in found}
    assert len(texts) == 9


def test_relations_of_one_hop_questions_can_be_chosen():
    env = make(hops=1, relations="mayor, author")
    for task in env.tasks("train")[:40]:
        goal = env.reset(options={"task": task})[1]["goal"]
        assert "Who wrote" in goal or "Who is the mayor" in goal
    assert task.startswith("1hop-400-0-mayor-author-")


def test_splits_start_from_different_entities():
    starts = {
        split: {q.support[0].page for q in questions(2, split, 200)}
        for split in ("train", "valid", "test")
    }
    assert not starts["train"] & starts["test"]
    assert not starts["valid"] & (starts["train"] | starts["test"])


def test_a_title_finds_its_page():
    book = open_encyclopaedia(SIZE, 0)
    places = [
        [page.title for page in book.search(title, 3)].index(title)
        for title in book.pages
        if title in [page.title for page in book.search(title, 3)]
    ]
    assert len(places) == len(book.pages)
    assert places.count(0) > 0.95 * len(places)


def test_pages_do_not_depend_on_the_hash_seed_of_the_process():
    code = (
        "import hashlib; from agentgym_envs.deepsearch.pages import open_encyclopaedia as o; "
        "print(hashlib.sha256(repr(o(200, 3).pages).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1 and digests != {""}


def test_common_names_use_few_words_and_are_disjoint_between_splits():
    env = make(hops=1, size=1000, names="common")
    book = env.encyclopaedia
    assert len(book.pages) == 1000
    words = {word for title in book.pages for word in title.split()}
    assert len(words) < 170
    asked = {split: ask(book.knowledge, NUMBERS[split][0], 1) for split in ("train", "test")}
    assert asked["train"].support[0].page != asked["test"].support[0].page
    env.reset(options={"task": env.tasks("test")[0]})
    for action in env.oracle():
        *_, info = env.step(action)
    assert info["won"] and info["task_id"].startswith("1hop-1000-0-common-")
    with pytest.raises(UnknownTask):
        make(hops=1, size=1000).reset(options={"task": env.tasks("test")[0]})


def test_names_suffice_for_any_number_of_pages():
    few, many = (
        names.make_names("made-up", "company", count, np.random.default_rng(0))
        for count in (500, 60_000)
    )
    assert len(set(many)) == 60_000
    assert max(map(len, few)) < max(map(len, many))  # three syllables where two are not enough


# ---- scoring ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "gold", "exact", "score"),
    [
        ("The Silent River", "silent river.", True, 1.0),
        ("silent   RIVER", "The Silent River", True, 1.0),
        ("River", "The Silent River", False, 2 / 3),
        ("a b c d", "c d e", False, 4 / 6),
        ("x x x", "x", False, 0.5),
        ("yes", "yes it is", False, 0.0),
        ("yes it is", "yes", False, 0.0),
        ("yes", "Yes.", True, 1.0),
        ("", "x", False, 0.0),
        ("19", "91", False, 0.0),
        ("The The", "The The", True, 1.0),
        ("!!!", "!!!", True, 1.0),
        ("A", "A", True, 1.0),
        ("", "The The", False, 0.0),
        ("", "!!!", False, 0.0),
        ("the", "The The", False, 2 / 3),
        (" ", "A", False, 0.0),
        ("", "", False, 0.0),
        ("Be\u0301atrice", "B\u00e9atrice", True, 1.0),
        ("Beatrice", "B\u00e9atrice", False, 0.0),
    ],
)
def test_answers_are_scored_as_in_squad(given, gold, exact, score):
    assert exact_match(given, ["nothing", gold]) is exact
    assert f1(given, ["nothing", gold]) == pytest.approx(score)
    assert normalised("An apple, a day") == "apple day"


# ---- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"hops": 1, "notation": "json"}, {"hops": 4, "reward": "f1"}, {"hops": 3, "python": True}],
    ids=str,
)
def test_every_configuration_passes_the_checker(settings, request):
    if settings.get("python"):
        request.getfixturevalue("confined")
    check_environment("agentgym/DeepSearch-v0", BRISK, size=200, **settings)


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_oracle_wins_within_the_turn_limit(hops):
    env = make(hops=hops)
    for number in (0, 1, 2, 4000, 4500, 4999):
        begin(env, number)
        plan = env.oracle()
        assert len(plan) <= 16
        for action in plan:
            *_, info = env.step(action)
            assert info["action_valid"]
        assert info["won"] and info["support_recall"] == 1.0


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_guessing_without_reading_pages_rarely_wins(hops):
    """The guesser knows the pattern of a question and the answers to training questions."""
    seen = {}
    for question in questions(hops, "train", 2000):
        seen.setdefault(question.pattern, Counter())[question.answer] += 1
    won = [
        seen[question.pattern].most_common(1)[0][0] in question.answers
        for question in questions(hops, "test", 300)
    ]
    assert sum(won) / len(won) < 0.15


def test_pages_can_be_searched_for_and_visited():
    env = make()
    begin(env)
    title = env._question.support[0].page
    found = env.step(f"<search>{title}</search>")[0]
    assert found.startswith(f"<information>\nDoc 1(Title: {title}) {title} is ")
    assert found.count("(Title: ") == 3
    assert "no page was visited yet" in env.step("<find_in_page>x</find_in_page>")[0]
    *_, info = env.step(f"<visit>{title}</visit>")
    assert 0 < info["support_recall"] <= 1
    first, second = env.encyclopaedia.pages[title].sections
    assert second in env.step(f"<visit>{title} # 2</visit>")[0]
    sentence = first.split(". ")[0]
    assert (
        f"[section 1] {sentence}."
        in env.step(f"<find_in_page>{sentence.upper()}</find_in_page>")[0]
    )
    assert "does not hold 'zzz'" in env.step("<find_in_page>zzz</find_in_page>")[0]
    for action, message in [
        (f"<visit>{title}#3</visit>", f"ValueError: {title} has sections 1 to 2, got 3"),
        ("<visit>Nowhere</visit>", "ValueError: there is no page 'Nowhere'"),
        ("<search>zzz</search>", "No page has any of these words."),
    ]:
        assert message in env.step(action)[0]


def test_json_calls_accept_all_arguments():
    env = make(notation="json")
    begin(env)
    title = env._question.support[0].page
    for name, arguments, message in [
        ("search", {"query": title, "k": 7}, "Doc 7("),
        ("search", {"query": title, "k": 11}, "k is 11, expected 1 to 10"),
        ("visit", {"title": title, "section": 2}, f"{title}, section 2 of 2"),
    ]:
        call = json.dumps({"name": name, "arguments": arguments})
        assert message in env.step(f"<tool_call>{call}</tool_call>")[0]


def test_first_answer_counts_and_f1_gives_partial_reward():
    env, partial = make(hops=1), make(hops=1, reward="f1")
    number = next(
        n for n, q in zip(NUMBERS["train"], questions(1, "train"), strict=False) if " " in q.answer
    )
    for one, expected in [(env, 0.0), (partial, 2 / 3)]:
        begin(one, number)
        answer = one._question.answer.split()[-1]
        _, reward, done, _, info = one.step(f"<answer>{answer}</answer>")
        assert reward == pytest.approx(expected, abs=0.2) and (reward > 0) is (expected > 0)
        assert done and not info["won"] and info["score"] == 0


SEARCH, PYTHON = "<search>x</search>", "<python>1</python>"


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([SEARCH, PYTHON, "<answer>{}</answer>"], 1.1),
        ([SEARCH + PYTHON + "<answer>{}</answer>"], 1.1),
        ([SEARCH, SEARCH, "<answer>{}</answer>"], 1.0),
        ([PYTHON, "<answer>{}</answer>"], 1.0),
        ([SEARCH, PYTHON, "<answer>{} x</answer>"], None),
        ([SEARCH, PYTHON, "<answer>zzz</answer>"], 0.0),
        # A missing page is a valid result; a malformed call is not.
        ([SEARCH, "<visit>Nowhere</visit>", PYTHON, "<answer>{}</answer>"], 1.1),
        ([SEARCH, "Let me think.", PYTHON, "<answer>{}</answer>"], -1.0),
        ([SEARCH, "<python>1", PYTHON, "<answer>{}</answer>"], -1.0),
        ([5 * SEARCH, PYTHON, "<answer>{}</answer>"], -1.0),
        ([SEARCH, PYTHON], -1.0),
        (["<answer>{}"], -1.0),
    ],
)
def test_aepo_reward_is_minus_one_if_malformed_else_f1_with_a_bonus_for_both_tools(
    actions, expected, confined
):
    env = make(hops=1, reward="aepo", python=True)
    begin(env)
    answer = env._question.answer
    if expected is None:
        expected = f1(f"{answer} x", [answer]) + 0.1
    first, *others = (action.format(answer) for action in actions)
    paid = env.step(first)[1]
    for one in (env, fork_env(env)):
        assert paid + sum(one.step(action)[1] for action in others) == pytest.approx(expected)
    begin(env)
    assert env.step(f"<answer>{answer}</answer>")[1] == 1.0


def test_fork_is_independent():
    env = make()
    begin(env)
    title = env._question.support[0].page
    env.step(f"<visit>{title}</visit>")
    twin = fork_env(env)
    other = next(name for name in env.encyclopaedia.pages if name != title)
    env.step(f"<visit>{other}</visit>")
    assert "[section 1]" in twin.step(f"<find_in_page>{title}</find_in_page>")[0]
    assert twin._here.page == title and env._here.page == other  # type: ignore[attr-defined]


def test_invalid_setting_states_what_was_expected():
    for settings, message in [
        ({"hops": 5}, "hops: got 5, expected 1 to 4"),
        ({"size": 10}, "size: got 10, expected at least 200"),
        ({"size": 2000, "names": "common"}, "size: got 2000, expected at most 1000 with common"),
        ({"names": "rare"}, "expected one of made-up, common"),
        ({"corpora": 0}, "corpora: got 0, expected 1 to 500"),
        ({"hops": 1, "relations": "mayr"}, "Did you mean 'mayor'"),
        ({"hops": 2, "relations": "mayor"}, "relations can be chosen only for hops 1"),
        ({"reward": "em"}, "expected one of exact, f1, aepo"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make(**settings)
    for name in (
        "2hop-400-0-5000",
        "2hop-400-0-01",
        "2hop-400-1-0",
        "2hop-400-0-²",
        "3hop-400-0-1",
    ):
        with pytest.raises(UnknownTask):
            make().reset(options={"task": name})
