"""WebShop on a generated catalogue: session, pages, reward and tasks."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agentgym.env.panel import panel
from agentgym.env.registry import make, world
from agentgym.errors import CacheError, ConfigError, EnvError, UnknownTask
from agentgym.testing.environments import findings

pytest.importorskip("Stemmer")
pytest.importorskip("rapidfuzz")
pytest.importorskip("textblob")

from agentgym_envs.bm25 import Analyzer, stored_length
from agentgym_envs.webshop import catalogue, files, goals, pages, synthetic
from agentgym_envs.webshop.products import clean, pack, unpack
from agentgym_envs.webshop.reward import judge
from agentgym_envs.webshop.session import Place, Session, parse

ENV = "agentgym/WebShop-v0"


def shop(**kwargs):
    return world(ENV, **kwargs)


def begin(number=0, **kwargs):
    env = shop(**kwargs)
    env.reset(seed=0, options={"task": env.tasks("verl_train")[number]})
    return env


def with_options(**kwargs):
    """A session on the product page of a goal with options."""
    for number in range(100):
        env = begin(number, **kwargs)
        plan = env.oracle()
        if len(plan) >= 4:
            env.step(plan[0])
            env.step(plan[1])
            return env, plan[2:-1]
    raise AssertionError("no goal has options")


# ---- tasks ---------------------------------------------------------------------------------


def test_the_default_panels_never_change():
    assert len(panel(ENV, split="train")) == 2968
    assert len(panel(ENV, split="valid")) == 1000
    test = panel(ENV, split="test")
    assert len(test) == 500
    assert test.digest == "fd753d5c3933ccc0d51f6e99c801a8ec5911d7b3671c8bf59c99a3e474bc4a94"


def test_a_small_catalogue_keeps_half_of_its_goals_for_training():
    sizes = [len(goals.split_range(name, 13)) for name in ("test", "valid", "train")]
    assert sizes == [3, 3, 7]
    assert goals.split_range("train", 6910) == range(1500, 6910)
    assert goals.split_range("verl_train", 6910) == range(500, 6910)


def test_task_ids_are_a_lazy_sequence():
    names = goals.Names("synthetic-x-", range(500, 1500))
    assert names[0] == "synthetic-x-500" and names[-1] == "synthetic-x-1499"
    assert list(names[::400]) == ["synthetic-x-500", "synthetic-x-900", "synthetic-x-1300"]
    assert "synthetic-x-499" not in names and len(names[10:20]) == 10


@pytest.mark.parametrize("tail", ["", "-1", "01", "4468", "1 ", "x", "\u00b2"])
def test_a_malformed_task_is_rejected(tail):
    env = shop()
    prefix = env.tasks("train")[0].rpartition("-")[0] + "-"
    with pytest.raises(UnknownTask):
        env.reset(options={"task": prefix + tail})


def test_a_task_of_another_catalogue_is_rejected():
    with pytest.raises(UnknownTask):
        shop(catalogue_seed=1).reset(options={"task": shop().tasks("test")[0]})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rules": "papre"}, "Did you mean 'paper'"),
        ({"observation": "txt"}, "expected one of text, text_rich, html, url"),
        ({"goals": "people"}, "expected one of synthetic, human"),
        ({"reward": "sparse"}, "expected one of outcome, dense"),
        ({"products": 3}, "at least 8"),
        ({"per_page": 0}, "at least 1"),
        ({"data": "/nowhere"}, "neither a folder nor a file"),
    ],
)
def test_a_wrong_setting_is_a_one_line_error_with_the_valid_values(settings, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        shop(**settings)
    assert "\n" not in str(caught.value)


# ---- the session ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "name", "argument"),
    [
        ("search[Red  Shoes]", "search", "red  shoes"),
        ("search[a]b]", "search", "a]b"),
        ("search[a[b]", "search[a", "b"),
        ("click[buy now] please", "click", "buy now"),
        ("search[]", "search[]", ""),
        ("[x]", "[x]", ""),
        ("search]x[", "search]x[", ""),
        ("", "", ""),
    ],
)
def test_actions_are_parsed_as_in_the_original(action, name, argument):
    assert parse(action) == (name, argument)


def test_parsing_an_action_takes_linear_time():
    assert parse("[" * 200_000).argument == ""
    assert parse("a" + "[" * 100_000 + "]" * 100_000).argument.startswith("]]")


def test_a_searching_oracle_searches_for_words_of_the_instruction_and_wins():
    env, typed = shop(oracle="searching", products=60), 0
    for task in env.tasks("test")[:30]:
        _, info = env.reset(seed=0, options={"task": task})
        plan = env.oracle()
        words = parse(plan[0]).argument
        typed += words in info["goal"].lower()
        for action in plan:
            *_, info = env.step(action)
        assert info["won"]
    assert typed == 30


def test_the_oracle_wins_from_every_page():
    rng = random.Random(0)
    for number in rng.sample(range(3968), 30):
        env = begin(number)
        for _ in range(rng.randrange(6)):
            choices = [a for a in env.admissible() if a != "click[buy now]"]
            env.step("search[black]" if choices[0].startswith("search") else rng.choice(choices))
        plan = env.oracle()
        assert len(plan) <= 9
        ends = [env.step(action) for action in plan]
        assert ends[-1][1:4] == (1.0, True, False) and ends[-1][4]["won"]
        assert all(info["action_valid"] and not end for _, _, end, _, info in ends[:-1])


def test_a_page_shows_ten_results_and_its_buttons_lead_to_the_others():
    env = begin()
    env.step("search[women's shoes]")
    assert env.session.results and len(env._open().shown(env.session)) == 10
    assert "click[< prev]" not in env.admissible()
    assert not env.step("click[< prev]")[4]["action_valid"]
    for _ in range(5):
        env.step("click[next >]")
    assert env.session.number == 6 and env._open().shown(env.session) == ()
    assert env.step("click[next >]")[4]["action_valid"], "shown even past the end"
    for _ in range(6):
        env.step("click[< prev]")
    assert env.session.number == 1
    env.step("click[back to search]")
    assert env.session == Session()


def test_the_oracle_turns_pages_with_one_result_each():
    env, turned = shop(products=300, per_page=1, oracle="searching"), 0
    for task in env.tasks("test")[:30]:
        env.reset(seed=0, options={"task": task})
        for action in env.oracle():
            *_, info = env.step(action)
            turned += action == "click[next >]"
            assert len(env._open().shown(env.session)) <= 1
        assert info["won"]
    assert turned


def test_only_products_on_the_page_can_be_opened():
    env = begin()
    env.step("search[women's shoes]")
    later = env.catalogue.card(env.session.results[10]).asin
    assert not env.step(f"click[{later}]")[4]["action_valid"]
    env.step("click[next >]")
    assert env.step(f"click[{later}]")[4]["action_valid"]


def test_options_replace_each_other_and_are_cleared_with_the_product():
    env, _ = with_options()
    product = env.catalogue.product(env.session.row)
    name, (first, second, *_) = product.options[0]
    env.step(f"click[{first}]")
    env.step(f"click[{second.upper()}]")
    assert env.session.options == ((name, second),)
    env.step("click[features]")
    assert env.session.place is Place.SUB_PAGE and env.session.options
    env.step("click[< prev]")
    assert env.session.options == ((name, second),)
    env.step("click[< prev]")
    assert env.session.place is Place.RESULTS and env.session.options == ()
    assert env.session.seen == {env.catalogue.row(product.asin)}


def test_search_needs_a_search_bar_unless_search_anywhere_is_set():
    env, original = begin(), begin(search_anywhere=True)
    for each in (env, original):
        each.step("search[sofa]")
    assert not env.step("search[tripod]")[4]["action_valid"]
    assert env.session.query == "sofa"
    assert original.step("search[tripod]")[4]["action_valid"]
    assert original.session.query == "tripod"


def test_actions_after_the_purchase_earn_nothing():
    env = begin()
    for action in env.oracle():
        env.step(action)
    for action in ("click[buy now]", "search[x]", "click[back to search]"):
        _, reward, _, _, info = env.step(action)
        assert reward == 0 and not info["action_valid"] and info["score"] == 1
    assert env.oracle() is None and env.admissible() == ()


def test_an_episode_is_truncated_after_fifteen_turns():
    env = make(ENV)
    env.reset(seed=0)
    assert [env.step("look")[3] for _ in range(15)] == [False] * 14 + [True]


def test_a_fork_shares_only_the_catalogue():
    env, clicks = with_options()
    other = env.fork()
    env.step(clicks[0])
    assert other.session.options == () and other.catalogue is env.catalogue
    other.reset(seed=3, options={"task": other.tasks("test")[3]})
    assert env.task_id != other.task_id and env.session.place is Place.ITEM


# ---- pages ---------------------------------------------------------------------------------


def test_text_pages_have_the_original_layout():
    env, _ = with_options()
    goal = env.oracle() and env._wanted()
    item = env.catalogue.product(env.session.row)
    page = pages.text(pages.nodes(env._open(), env.session, goal.instruction)).split(" [SEP] ")
    head = ["Instruction:", goal.instruction, "Back to Search", "< Prev"]
    options = [text for name, values in item.options for text in (name, *values)]
    tail = [item.title, f"Price: {item.price_tag}", "Rating: N.A."]
    assert page == [*head, *options, *tail, "Description", "Features", "Reviews", "Buy Now"]
    env.step("click[features]")
    assert env.render() is None
    page = env.step("click[nothing]")[0].split(" [SEP] ")
    assert page == [*head, *item.bullets]
    env.step("click[< prev]")
    found = env.step("click[< prev]")[0].split(" [SEP] ")
    cards = [text for row in env._open().shown(env.session) for text in env.catalogue.card(row)]
    assert found == [*head[:3], "Page 1 (Total results: 50)", "Next >", *cards]
    assert env.step("click[back to search]")[0].split(" [SEP] ") == ["WebShop", *head[:2], "Search"]


def test_rich_pages_mark_what_was_clicked():
    env, clicks = with_options(observation="text_rich")
    first = env.step(clicks[0])[0]
    value = clicks[0][len("click[") : -1]
    assert first.startswith(f"You have clicked {value}.\nInstruction:\n")
    assert f"\n  [clicked button] {value} [clicked button_]\n" in first
    assert "\n[button] Buy Now [button_]\n" in first
    asin = env.catalogue.card(env.session.row).asin
    assert f"\n\n[clicked button] {asin} [clicked button_]\n" in env.step("click[< prev]")[0]


def test_addresses_contain_the_whole_session():
    env, clicks = with_options(observation="url")
    asin, value = env.catalogue.card(env.session.row).asin, clicks[0][len("click[") : -1]
    at = env.step(clicks[0])[0]
    words = env.session.query.replace(" ", "+")
    option = env.session.options[0][0]
    assert at == (
        f"http://127.0.0.1:3000/item_page/{env.task_id}/{asin}/{words}/1/"
        + json.dumps({option: value})
    )
    assert f"/{asin}/{words}/1/Description/" in env.step("click[description]")[0]


def test_html_pages_escape_texts():
    shown = pages.html((pages.Node(pages.Kind.OPTION, '<b>"1|2"</b>'),))
    assert "<b>" not in shown and 'value="click[&lt;b&gt;&quot;1|2&quot;&lt;/b&gt;]"' in shown


def text_nodes(*texts):
    return tuple(pages.Node(pages.Kind.TEXT, text) for text in texts)


def test_blank_texts_are_parsed_as_by_beautiful_soup():
    page = text_nodes("a", "", "  ", " \n ", "\u00a0", " b ")
    assert pages._as_parsed(page) == text_nodes("a", " ", "\u00a0", " b ")


def sub_page(env, name):
    """The session on a sub-page of the first product."""
    return env.session._replace(place=Place.SUB_PAGE, row=0, sub=name)


@pytest.fixture
def odd_shop(monkeypatch):
    """A shop of one product with an empty title, an empty bullet and unusual options."""
    env = begin(products=40)
    odd = product(
        name="",
        small_description=["Water proof", "", "Warm"],
        customization_options={
            "Size": [{"value": '28" x 28"'}, {"value": "\u00fc"}, {"value": "m"}]
        },
    )
    monkeypatch.setattr(env.catalogue, "product", lambda row: odd)
    monkeypatch.setattr(env.catalogue, "card", lambda row: catalogue.Card("B000000001", "", "$5.0"))
    return env


def test_text_pages_of_unusual_products_equal_the_released_environment(odd_shop):
    env, shown = odd_shop, odd_shop._open()
    results = Session(Place.RESULTS, "x", (0,))
    page = pages.render(shown, results, "Buy", "text", "s")
    assert page.endswith("Next > [SEP] B000000001 [SEP] $5.0")
    page = pages.render(shown, sub_page(env, "Features"), "Buy", "text", "s")
    assert page.endswith("< Prev [SEP] Water proof [SEP]  [SEP] Warm")
    item = Session(Place.ITEM, "x", (0,), row=0)
    page = pages.render(shown, item, "Buy", "text", "s")
    assert ' [SEP] size [SEP] 28" x 28" [SEP] \u00fc [SEP] m [SEP] Price: $50.0' in page


def test_rich_pages_of_unusual_products_equal_the_released_environment(odd_shop):
    env, shown = odd_shop, odd_shop._open()
    page = pages.render(shown, sub_page(env, "Features"), "Buy", "text_rich", "s")
    assert page.endswith("[button] < Prev [button_]\n Water proof\n \n Warm\n")
    assert pages.render(shown, Session(), "Buy", "text_rich", "s").startswith(
        "WebShop\nInstruction: \nBuy\n"
    )
    for value, marked in (('28" x 28"', False), ("\u00fc", False), ("m", True)):
        item = Session(Place.ITEM, "x", (0,), row=0, options=(("size", value),))
        page = pages.render(shown, item, "Buy", "text_rich", "s")
        assert (f"You have clicked {value}." in page) == marked
        assert (f"  [clicked button] {value} [clicked button_]" in page) == marked


def test_an_empty_list_of_attributes_stays_empty():
    record = {"asin": "B000000001"}
    assert clean(record, {"attributes": []}).attributes == ()
    assert clean(record, None).attributes == clean(record, {}).attributes == ("DUMMY_ATTR",)


def test_clickables_are_buttons_then_products_then_options():
    env, _ = with_options()
    shown = pages.clickables(pages.nodes(env._open(), env.session, ""))
    item = env.catalogue.product(env.session.row)
    buttons = ("back to search", "< prev", "description", "features", "reviews", "buy now")
    assert shown == (*buttons, *(value for _, values in item.options for value in values))
    assert {f"click[{text}]" for text in shown} == set(env.admissible())


def test_every_admissible_action_is_accepted():
    rng = random.Random(1)
    env = begin(show_attributes=True)
    for _ in range(300):
        if env.session.place is Place.DONE:
            env.reset(seed=0)
        action = rng.choice(env.admissible())
        assert env.step(action)[4]["action_valid"], action


@pytest.mark.parametrize("mode", pages.MODES)
def test_the_page_after_a_purchase_depends_on_the_product_and_not_on_the_goal(mode):
    pages_read, scores = set(), set()
    right = begin(1, observation=mode, reward="dense")
    for number in (1, 40):
        env = begin(number, observation=mode, reward="dense")
        for action in right.oracle():
            page, _, _, _, info = env.step(action)
        pages_read.add(page.replace(env.task_id, ""))
        scores.add(info["score"])
    assert len(pages_read) == 1 and len(scores) == 2
    assert "score" not in pages_read.pop().lower()


# ---- reward --------------------------------------------------------------------------------


def product(**changes):
    record = {
        "asin": "B000000001",
        "name": "Acme Leather Boot",
        "full_description": "A boot that lasts.",
        "small_description": ["Water proof", "Warm lining"],
        "pricing": "$50.00",
        "product_category": "Shoes \u203a Men \u203a Boots",
        "query": "Boots ",
        "category": "fashion",
        "customization_options": {
            "Color": [{"value": "1877Black"}, {"value": " Blue/Grey"}],
            "Size": [{"value": "10"}, {"value": "11"}],
        },
        **changes,
    }
    known = {
        "attributes": ["rubber sole", "arch support"],
        "instruction": "Find me boots",
        "instruction_attributes": ["rubber sole", "arch support"],
    }
    return clean(record, known)


BOOT = product()
ALL = {"color": "1877black", "size": "10"}


def test_a_record_is_cleaned_as_in_the_original():
    assert BOOT.options == (("color", ("1877black", "blue | grey")), ("size", ("10", "11")))
    assert (BOOT.query, BOOT.price_tag, BOOT.price) == ("boots", "$50.0", 50.0)
    ranged = product(pricing="$19.99$27.99")
    assert ranged.price_tag == "$19.99 to $27.99" and 19.99 <= ranged.price < 27.99
    assert product(pricing="").prices == product(pricing=None).prices == (100.0,)
    assert product(pricing="ask us").prices == (100.0,)
    assert unpack(json.loads(json.dumps(pack(BOOT)))) == BOOT


def test_a_goal_names_options_and_a_round_price_bound():
    assert goals.count(BOOT, "synthetic") == 4
    made = [goals.goal(BOOT, "synthetic", choice) for choice in range(4)]
    assert [dict(goal.options)["size"] for goal in made] == ["10", "11", "10", "11"]
    assert made[2].options == (("color", "blue | grey"), ("size", "10"))
    bound = made[0].bound
    assert bound in (70.0, 80.0, 90.0), "the larger of two of 60, 70, 80, 90"
    assert made[0].instruction == (
        "Find me boots with color: 1877black, and size: 10, "
        f"and price lower than {bound:.2f} dollars"
    )
    dear = goals.goal(product(pricing="$985"), "synthetic", 0)
    assert dear.bound == goals.NO_BOUND and dear.instruction.endswith("size: 10")


def test_each_part_of_a_purchase_counts_once():
    goal = goals.goal(BOOT, "synthetic", 0)
    assert judge(BOOT, goal, ALL).total == 1
    assert judge(BOOT, goal, {}).total == pytest.approx(3 / 5)
    assert judge(BOOT, goal, {"size": "10"}).total == pytest.approx(4 / 5)
    assert judge(product(pricing="$500"), goal, ALL).total == pytest.approx(4 / 5)
    parts = judge(BOOT, goal, {"size": "10"})
    assert (parts.r_att, parts.r_option, parts.r_price) == (1.0, 0.5, 1.0)
    assert (parts.w_att, parts.w_option, parts.w_price) == (2 / 5, 2 / 5, 1 / 5)


def test_attributes_count_where_a_text_of_the_product_contains_them():
    goal = goals.goal(BOOT, "synthetic", 0)
    plain = clean({"asin": "B2", "name": "Leather Boot", "query": "boots"}, None)
    assert judge(plain, goal, ALL).r_att == 0
    described = clean(
        {"asin": "B2", "name": "Boot", "query": "boots", "full_description": "Has Arch Support!"}
    )
    assert judge(described, goal, ALL).r_att == 0.5


def test_the_type_reward_compares_query_path_and_title():
    goal = goals.goal(BOOT, "synthetic", 0)

    def factor(**changes):
        return judge(product(**changes), goal, ALL).r_type

    away = {"query": "tea", "product_category": "Food \u203a Tea"}
    assert factor() == factor(name="Acme Boot", **away) == 1.0
    assert factor(name="Leather") == 1.0, "a third of the title's nouns"
    assert factor(name="Herbal Tea") == 0.0, "no noun shared, whatever else is"
    long = goals.goal(product(name="A1 B1 C1 D1 E1 Leather Boot"), "synthetic", 0)
    half = judge(product(name="Wool Boot", **away), long, ALL)
    assert 0.1 <= half.title_score <= 0.2 and half.r_type == 0.5


def test_paper_rules_cannot_match_shortened_colours_and_fixed_rules_can():
    goal = goals.goal(BOOT, "synthetic", 0)
    assert judge(BOOT, goal, ALL, rules="paper").total == pytest.approx(4 / 5)
    assert judge(BOOT, goal, ALL, rules="fixed").total == 1
    plain = goals.goal(
        product(customization_options={"Color": [{"value": "black"}]}), "synthetic", 0
    )
    for rules in ("paper", "fixed"):
        assert judge(BOOT, plain, {"color": "black"}, rules=rules).r_option == 1


def test_paper_rules_count_repeated_nouns_of_the_goals_title_and_fixed_rules_do_not():
    goal = goals.goal(product(name="Boot Boot Boot Wool Boot"), "synthetic", 0)
    scores = {
        rules: judge(product(name="Acme Boot"), goal, ALL, rules=rules).title_score
        for rules in ("paper", "fixed")
    }
    assert scores == {"paper": 1 / 5, "fixed": 1 / 2}


def test_dense_reward_is_the_score_and_outcome_reward_is_1_for_a_win():
    for how, expected in (("dense", True), ("outcome", False)):
        env, _ = with_options(reward=how)
        _, reward, done, _, info = env.step("click[buy now]")
        assert done and 0 < info["score"] < 1 and not info["won"]
        assert reward == (info["score"] if expected else 0)
        assert info["purchase"]["r_option"] == 0 and info["purchase"]["total"] == info["score"]


# ---- catalogue and search ------------------------------------------------------------------


def test_a_smaller_catalogue_is_a_prefix_of_a_larger_one():
    small, large = shop(products=40).catalogue, shop(products=80).catalogue
    assert [small.product(row) for row in range(40)] == [large.product(row) for row in range(40)]
    assert small.digest != large.digest
    assert len({large.card(row).asin for row in range(80)}) == 80


def test_every_product_is_found_by_its_number_and_by_its_title():
    sold = shop(products=80).catalogue
    for row in range(80):
        card = sold.card(row)
        assert sold.row(card.asin) == row and sold.search(card.title)[0] == row
    assert sold.row("B000000000") is None and sold.row("") is None


def test_search_equals_the_bm25_formula():
    sold = shop(products=200).catalogue
    reader = Analyzer()
    docs = [
        [reader.stem(word) for word in reader.words(sold.product(row).document)]
        for row in range(200)
    ]
    length = np.array([len(doc) for doc in docs])
    norm = 0.9 * (0.6 + 0.4 * stored_length(length) / length.mean())

    def score(query):
        total = np.zeros(200)
        for word in reader.words(query):
            tf = np.array([doc.count(reader.stem(word)) for doc in docs])
            n = (tf > 0).sum()
            total += np.log(1 + (200 - n + 0.5) / (n + 0.5)) * tf / (tf + norm)
        return total

    for query in ("black leather boots", "face cream face", "the men's slim fit shirt, 2 pack"):
        expected, found = score(query), sold.search(query)
        assert len(found) == min(50, (expected > 0).sum())
        best = np.sort(expected)[::-1][: len(found)]
        np.testing.assert_allclose(expected[list(found)], best, rtol=1e-5)
        assert sold.search(query) == found, "scores are cleared after a search"


def test_document_lengths_are_rounded_as_in_lucene():
    lengths = np.array([0, 1, 39, 40, 41, 55, 56, 58, 59, 100, 1000])
    assert stored_length(lengths).tolist() == [0, 1, 39, 40, 40, 54, 56, 56, 56, 96, 984]


def test_words_are_split_as_in_lucene():
    words = list(
        Analyzer().words("the Men's 10.5 u.s.a x-ray 3,000 size:M it\u2019s \u2764 \u7ea2\u8272")
    )
    assert words == [
        "men",
        "10.5",
        "u.s.a",
        "x",
        "ray",
        "3,000",
        "size:m",
        "\u2764",
        "\u7ea2",
        "\u8272",
    ]


@pytest.mark.parametrize(
    ("word", "stem"),
    [
        ("us", "us"),
        ("7s", "7s"),
        ("possibly", "possibl"),
        ("assemblies", "assembl"),
        ("compatibly", "compat"),
        ("notably", "notabl"),
        ("bly", "bly"),
        ("technologies", "technolog"),
        ("ecology", "ecolog"),
        ("geology", "geologi"),
        ("logic", "logic"),
    ],
)
def test_stems_are_those_of_lucenes_porter_stemmer(word, stem):
    assert Analyzer().stem(word) == stem


def test_an_unwritable_cache_is_one_error_of_the_check(monkeypatch):
    monkeypatch.setenv("AGENTGYM_CACHE", "/dev/null/cache")
    with pytest.raises(CacheError, match="set AGENTGYM_CACHE to another folder") as caught:
        list(findings(ENV, products=31))
    assert "\n" not in str(caught.value)


def test_a_catalogue_is_built_once_and_a_failure_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path))
    reports = []
    source = synthetic.SyntheticCatalogue(30, 5)
    made = catalogue.open_catalogue(source, "synthetic", lambda *step: reports.append(step))
    assert reports[-1] == (30, 30) and len(reports) >= 30
    reports.clear()
    assert catalogue.open_catalogue(source, "synthetic", lambda *step: reports.append(step)) is made
    assert reports == []

    class Broken(synthetic.SyntheticCatalogue):
        @property
        def identity(self):
            return "broken"

        def read(self, report):
            yield from list(super().read(report))[:3]
            raise OSError("the disk is gone")

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EnvError, match="the disk is gone"):
        catalogue.open_catalogue(Broken(30, 6))
    assert sorted(tmp_path.rglob("*")) == before


def official(folder, records, attributes):
    (folder / "items_shuffle_9.json").write_text(json.dumps(records, indent=1))
    (folder / "items_ins_v2_9.json").write_text(json.dumps(attributes))
    return files.find(str(folder))


def test_official_files_are_read_as_a_stream_and_bad_entries_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_CHUNK", 100)
    made = [synthetic.records(row, 3) for row in range(20)]
    records = [record for record, _ in made]
    extra = [{**records[0], "name": "again"}, {"asin": "nan"}, {"asin": "B12345678901"}, {}]
    source = official(tmp_path, records + extra, {r["asin"]: known for (r, known) in made})
    read = []
    found = list(source.read(read.append))
    assert found == [synthetic.product(row, 3) for row in range(20)]
    assert read == sorted(read) and read[-1] == source.size


@pytest.mark.parametrize(
    ("content", "reason"), [("{}", "JSON array"), ('[{"asin"', "not a WebShop"), ("[1]", "int")]
)
def test_a_damaged_file_is_reported_by_name(tmp_path, content, reason):
    path = tmp_path / "items_shuffle.json"
    path.write_text(content)
    with pytest.raises(EnvError, match=reason) as caught:
        list(files.find(str(path)).read(lambda done: None))
    assert str(path) in str(caught.value)


def test_two_product_files_in_a_folder_are_ambiguous(tmp_path):
    for name in ("items_shuffle.json", "items_shuffle_1000.json"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(ConfigError, match=r"items_shuffle\.json, items_shuffle_1000\.json"):
        files.find(str(tmp_path))
    assert files.find(str(tmp_path / "items_shuffle.json")).attributes is None


def test_a_catalogue_is_the_same_in_every_process():
    code = (
        "from agentgym.env.registry import world; w = world('agentgym/WebShop-v0', products=50);"
        "w.reset(options={'task': w.tasks('test')[3]}); print(w.oracle(), w.catalogue.digest)"
    )
    described = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(described) == 1
