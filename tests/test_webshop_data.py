"""WebShop on the real 1,000 products: figures and rankings of the original.

Runs only if AGENTGYM_DATA is set to the folder that contains ``webshop_1k``.
"""

import hashlib
import json
import os
import random
from pathlib import Path

import pytest

from agentgym.env.panel import panel
from agentgym.env.registry import world

pytest.importorskip("Stemmer")
pytest.importorskip("rapidfuzz")
pytest.importorskip("textblob")

from agentgym_envs.webshop.goals import goal as goal_of
from agentgym_envs.webshop.reward import judge

DATA = str(Path(os.environ.get("AGENTGYM_DATA", "/nowhere")) / "webshop_1k")
ENV = "agentgym/WebShop-v0"

pytestmark = pytest.mark.skipif(not Path(DATA).is_dir(), reason="AGENTGYM_DATA has no webshop_1k")


def shop(**kwargs):
    return world(ENV, data=DATA, **kwargs)


def begin(number, **kwargs):
    env = shop(**kwargs)
    first = env.tasks("test")[0]
    env.reset(seed=0, options={"task": f"{first.rpartition('-')[0]}-{number}"})
    return env


def test_the_official_files_give_the_published_counts():
    sold = shop().catalogue
    products = [sold.product(row) for row in range(sold.size)]
    assert len(products) == 1000
    assert sum(bool(product.options) for product in products) == 423
    assert sum(bool(product.instruction) for product in products) == 415
    assert sum(len(product.prices) == 2 for product in products) == 93
    assert len({product.query for product in products}) == 246
    count = {name: [p.category for p in products].count(name) for name in ("beauty", "grocery")}
    assert count == {"beauty": 238, "grocery": 117}
    assert sold.goal_count == 6910 and shop(goals="human").catalogue.goal_count == 13


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("synthetic", "54409eeb6015f3870591cedc65d4e8746027dbfd82f4e0781b6ea7475b70a93d"),
        ("human", "e0acbde03fcc52937a126e3e83989454363b3272a20d69db091f9e58944f5894"),
    ],
)
def test_the_official_panels_never_change(kind, digest):
    assert panel(ENV, split="test", data=DATA, goals=kind).digest == digest


def test_goals_are_in_the_order_of_the_original():
    goal = shop().catalogue.goal(0)
    assert goal.asin == "B0743JKHBV" and goal.options == (("size", '28" x 28"'),)
    assert goal.instruction.startswith(
        "Find me double sided, machine washable decorative pillows with printing technology with "
        'size: 28" x 28", and price lower than '
    )


def test_pages_have_the_texts_of_the_original():
    env = begin(17)
    env.step("search[expression tees pug life funny thug life unisex adult hoodie]")
    assert env.step("click[zzz]")[0].split(" [SEP] ")[2:8] == [
        "Back to Search",
        "Page 1 (Total results: 50)",
        "Next >",
        "B01HQTWL6S",
        "Expression Tees Pug Life Funny Thug Life Unisex Adult Hoodie",
        "$36.99 to $48.99",
    ]
    item = env.step("click[b01hqtwl6s]")[0].split(" [SEP] ")
    assert item[2:6] == ["Back to Search", "< Prev", "size", "small"]
    assert item[-6:] == [
        "Price: $36.99 to $48.99",
        "Rating: N.A.",
        "Description",
        "Features",
        "Reviews",
        "Buy Now",
    ]
    features = env.step("click[features]")[0].split(" [SEP] ")
    assert features[:4] == [item[0], item[1], "Back to Search", "< Prev"] and len(features) > 6


def test_every_goal_is_winnable_except_one_in_twenty_under_paper_rules():
    numbers = random.Random(0).sample(range(6910), 300)
    won = {}
    for rules in ("fixed", "paper"):
        won[rules] = 0
        for number in numbers:
            env = begin(number, rules=rules)
            for action in env.oracle() or ():
                won[rules] += env.step(action)[1] == 1.0
    assert won == {"fixed": 300, "paper": 279}


def test_paper_rules_divide_by_all_nouns_of_the_goals_title():
    sold = shop().catalogue
    wanted, bought = (sold.product(sold.row(asin)) for asin in ("B08XQRDDT1", "B08CV24121"))
    goal = goal_of(wanted, "synthetic", 0)
    parts = {rules: judge(bought, goal, {}, rules=rules) for rules in ("paper", "fixed")}
    assert (parts["paper"].title_score, parts["paper"].r_type) == (2 / 21, 0.1)
    assert (parts["fixed"].title_score, parts["fixed"].r_type) == (2 / 19, 1.0)


def test_all_results_of_2134_queries_equal_those_of_lucene():
    """The digest is that of Anserini 0.22.1 over the same documents, up to 50 results each."""
    sold = shop().catalogue
    table = json.loads((Path(DATA) / "goal_query_map.json").read_text())
    queries = dict.fromkeys(" ".join(q.lower().split()) for qs in table.values() for q in qs)
    lines = [
        f"{query}\t{' '.join(sold.card(row).asin for row in sold.search(query))}"
        for query in queries
    ]
    assert len(lines) == 2134
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == "c97ef5d0fba289c8a57e9a512c0d38ab3c310115b97dcf7aaf2b43efbe87a947"


def test_the_first_results_of_eight_queries_are_those_of_lucene():
    """Answers of Anserini 0.22.1 (BM25, k1 0.9, b 0.4) over the same documents."""
    sold = shop().catalogue
    for query, asins in LUCENE.items():
        assert " ".join(sold.card(row).asin for row in sold.search(query)[:10]) == asins, query


LUCENE = {
    "chocolate coated wafers 4.41 ounce": "B079Z5V2WK B0916MNM1W B09K4S16YT B09LM3H2F5 B0017WNF34 "
    "B0015DH8AQ B07CBFM96F B09RLQR5NP B07F1JDWJP B004L4D6FW",
    "9x6ft polyester background": "B006G5CYAM B07X9623L4 B092QQBW4Y B09QRV4YLR B00O19GGSG "
    "B07TB37SG5 B09682D2T6 B07F6MN8RH B09P7H5YK7 B07JVVDJ6L",
    "synthetic black gray 101 color hair extensions wig hairpiece": "B09QMJ5KQH B0816QM13S "
    "B09MM9NCQQ B09G2F3HQ2 B07BB1FJV8 B096MM7XM4 B08PFRP4RN B08X4YD5WH B08ZKDQPZ3 B093HFSQ3B",
    "universal remote control with batteries included": "B09H6G6PT9 B075ZH94L7 B089R7JZHK "
    "B07W92ZTVW B01LYSBBX5 B08R8K8H6S B07RKLL1ZK B08GZ88BLT B08HWG1NFW B095C2ZMTX",
    "red bull sugar free": "B095TRCDXW B08LQZ5BRC B09RLQR5NP B07HYF111T B001EHF3KK B00RIK1LI0 "
    "B017MOAUGA B08D4MH7XQ B09M4C31FL B094JTNPWK",
    "gold plated stereo sound cable input usb port": "B014C9KQLM B07H179NY3 B095C2ZMTX B09PZZJ2XG "
    "B074PBDJG9 B096L3FNMR B01MQH5VGR B09RF2DLZX B09QQWRW2M B09D42HCTN",
    "black rubber sole sneakers size 5.5": "B09RPRRNVP B002RRT0NM B01LXTLLVG B07JZ5HVN6 "
    "B07RPMCNKD B09QRV4YLR B07XDRVVYM B09F2MFG1Q B09QXF3V3X B00I3O3BSS",
    "wallet case with tempered glass protection": "B0982W8RKZ B095PF5BXT B083HXHG75 B083ZK4NRS "
    "B09HPMWHM4 B07GZLDJMC B07ZYVWCZ7 B08WYZWYN1 B07JMXLXNY B07YCGBPRD",
}
