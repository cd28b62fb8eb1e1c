"""WebShop on a catalogue made here: the visit, its pages, its reward and its tasks."""

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
from agentgym.errors import ConfigError, EnvError, UnknownTask

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
    """A visit whose goal has options, on the page of the goal's product."""
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


def test_a_split_of_few_goals_keeps_most_of_them_for_training():
    sizes = [len(goals.split_range(name, 13)) for name in ("test", "valid", "train")]
    assert sizes == [3, 3, 7]
    assert goals.split_range("train", 6910) == range(1500, 6910)
    assert goals.split_range("verl_train", 6910) == range(500, 6910)


def test_task_ids_are_a_sequence_that_is_made_when_asked_for():
    names = goals.Names("synthetic-x-", range(500, 1500))
    assert names[0] == "synthetic-x-500" and names[-1] == "synthetic-x-1499"
    assert list(names[::400]) == ["synthetic-x-500", "synthetic-x-900", "synthetic-x-1300"]
    assert "synthetic-x-499" not in names and len(names[10:20]) == 10


@pytest.mark.parametrize("tail", ["", "-1", "01", "4468", "1 ", "x", "\u00b2"])
def test_a_malformed_task_is_refused(tail):
    env = shop()
    prefix = env.tasks("train")[0].rpartition("-")[0] + "-"
    with pytest.raises(UnknownTask):
        env.reset(options={"task": prefix + tail})


def test_the_same_task_of_another_catalogue_is_refused():
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
def test_a_wrong_setting_is_one_line_that_says_what_is_right(settings, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        shop(**settings)
    assert "\n" not in str(caught.value)


# ---- the visit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "name", "argument"),
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
def test_actions_are_read_as_the_original_reads_them(said, name, argument):
    assert parse(said) == (name, argument)


def test_reading_an_action_takes_time_in_proportion_to_its_length():
    assert parse("[" * 200_000).argument == ""
    assert parse("a" + "[" * 100_000 + "]" * 100_000).argument.startswith("]]")


def test_a_searching_oracle_types_what_the_instruction_says_and_buys_the_same():
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


def test_the_oracle_buys_what_is_asked_for_wherever_it_is_asked():
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


def test_results_come_ten_to_a_page_and_can_be_left_in_every_direction():
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


def test_pages_of_results_can_be_shorter_and_the_oracle_turns_them():
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


def test_options_replace_each_other_and_are_forgotten_with_the_product():
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


def test_searching_needs_a_search_bar_unless_the_original_is_asked_for():
    env, original = begin(), begin(search_anywhere=True)
    for each in (env, original):
        each.step("search[sofa]")
    assert not env.step("search[tripod]")[4]["action_valid"]
    assert env.session.query == "sofa"
    assert original.step("search[tripod]")[4]["action_valid"]
    assert original.session.query == "tripod"


def test_a_closed_shop_answers_and_pays_nothing():
    env = begin()
    for action in env.oracle():
        env.step(action)
    for action in ("click[buy now]", "search[x]", "click[back to search]"):
        _, reward, _, _, info = env.step(action)
        assert reward == 0 and not info["action_valid"] and info["score"] == 1
    assert env.oracle() is None and env.admissible() == ()


def test_an_episode_is_cut_after_fifteen_turns():
    env = make(ENV)
    env.reset(seed=0)
    assert [env.step("look")[3] for _ in range(15)] == [False] * 14 + [True]


def test_a_fork_shares_the_catalogue_and_nothing_else():
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


def test_addresses_tell_the_whole_session():
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


def test_html_pages_escape_what_they_show():
    shown = pages.html((pages.Node(pages.Kind.OPTION, '<b>"1|2"</b>'),))
    assert "<b>" not in shown and 'value="click[&lt;b&gt;&quot;1|2&quot;&lt;/b&gt;]"' in shown


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
def test_the_page_after_a_purchase_depends_on_what_was_bought_and_not_on_the_goal(mode):
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


def test_a_record_is_cleaned_as_the_original_cleans_it():
    assert BOOT.options == (("color", ("1877black", "blue | grey")), ("size", ("10", "11")))
    assert (BOOT.query, BOOT.price_tag, BOOT.price) == ("boots", "$50.0", 50.0)
    ranged = product(pricing="$19.99$27.99")
    assert ranged.price_tag == "$19.99 to $27.99" and 19.99 <= ranged.price < 27.99
    assert product(pricing="").prices == product(pricing=None).prices == (100.0,)
    assert product(pricing="ask us").prices == (100.0,)
    assert unpack(json.loads(json.dumps(pack(BOOT)))) == BOOT


def test_a_goal_names_options_and_a_round_price_above_the_products():
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


def test_attributes_count_where_the_product_says_them_itself():
    goal = goals.goal(BOOT, "synthetic", 0)
    plain = clean({"asin": "B2", "name": "Leather Boot", "query": "boots"}, None)
    assert judge(plain, goal, ALL).r_att == 0
    said = clean(
        {"asin": "B2", "name": "Boot", "query": "boots", "full_description": "Has Arch Support!"}
    )
    assert judge(said, goal, ALL).r_att == 0.5


def test_the_kind_of_product_is_judged_by_query_path_and_title():
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


def test_paper_rules_keep_the_originals_blind_spot_and_fixed_rules_do_not():
    goal = goals.goal(BOOT, "synthetic", 0)
    assert judge(BOOT, goal, ALL, rules="paper").total == pytest.approx(4 / 5)
    assert judge(BOOT, goal, ALL, rules="fixed").total == 1
    plain = goals.goal(
        product(customization_options={"Color": [{"value": "black"}]}), "synthetic", 0
    )
    for rules in ("paper", "fixed"):
        assert judge(BOOT, plain, {"color": "black"}, rules=rules).r_option == 1


def test_dense_reward_is_the_score_and_outcome_reward_is_winning():
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


def test_search_agrees_with_the_formula_computed_naively():
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


def test_lengths_are_stored_as_lossily_as_lucene_stores_them():
    lengths = np.array([0, 1, 39, 40, 41, 55, 56, 58, 59, 100, 1000])
    assert stored_length(lengths).tolist() == [0, 1, 39, 40, 40, 54, 56, 56, 56, 96, 984]


def test_words_break_as_lucene_breaks_them():
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


def test_a_catalogue_is_made_once_and_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path))
    told = []
    source = synthetic.SyntheticCatalogue(30, 5)
    made = catalogue.open_catalogue(source, "synthetic", lambda *step: told.append(step))
    assert told[-1] == (30, 30) and len(told) >= 30
    told.clear()
    assert catalogue.open_catalogue(source, "synthetic", lambda *step: told.append(step)) is made
    assert told == []

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
def test_a_damaged_file_is_named(tmp_path, content, reason):
    path = tmp_path / "items_shuffle.json"
    path.write_text(content)
    with pytest.raises(EnvError, match=reason) as caught:
        list(files.find(str(path)).read(lambda done: None))
    assert str(path) in str(caught.value)


def test_two_product_files_in_a_folder_are_a_question(tmp_path):
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
    said = {
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
    assert len(said) == 1
