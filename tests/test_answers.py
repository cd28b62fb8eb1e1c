import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from answer_pairs import RIGHT, WRONG

from agentgym_envs.pythonmath.answers import same

DATA = os.environ.get("AGENTGYM_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="AGENTGYM_DATA is not set")
EQUAL = [pair for pairs in RIGHT.values() for pair in pairs]
DIFFERENT = [pair for pairs in WRONG.values() for pair in pairs]


def test_the_pair_set_is_large_and_half_of_it_is_wrong():
    assert len(EQUAL) + len(DIFFERENT) >= 400
    assert len(DIFFERENT) >= len(EQUAL)
    assert RIGHT.keys() == WRONG.keys()


@pytest.mark.parametrize(("given", "expected"), EQUAL)
def test_equal_answers_are_accepted_in_both_directions(given, expected):
    assert same(given, expected)
    assert same(expected, given)


@pytest.mark.parametrize(("given", "expected"), DIFFERENT)
def test_different_answers_are_refused(given, expected):
    assert not same(given, expected)


BOMBS = [
    "9^9^9^9^9",
    "10^(10^10)",
    "99999999!",
    "((9!)!)!",
    "10000!" + "*10000!" * 150,
    "10000!/9999!" * 80,
    r"\sqrt[99999999]{2}",
    r"\binom{99999999}{4999999}",
    r"\exp(\exp(\exp(\exp(9))))",
    "1e999999999",
    "(x+y)^{500}" * 40,
    "1.5^{9999}" * 50,
    r"(1+10^{-5000})^{29}\sqrt2",
    "e^{9999}" * 100,
    "(" * 900,
    "[1," * 200 + "1" + "]" * 200,
    "-" * 900 + "1",
    "2^" * 400 + "2",
    "1," * 450 + "1",
    "1:" * 300,
    "1<" * 400 + "1",
    "x=1 or " * 120 + "x=1",
    r"\frac" * 150,
    r"\frac{1}{" * 90 + "2" + "}" * 90,
    "sin " * 240 + "1",
    "9" * 1_000_000,
    r"\boxed{" * 100_000,
    "\x00\ud800",
    r"1\pm" * 200,
    "f(" + "1" * 60 + "x!=3",
    r"f(\abc" * 60 + "!)=3",
    r"\sin{" + "a_b" * 60 + "! = 2",
    "1 cm cm cm " * 80,
    r"\begin{pmatrix}" + "1&" * 300 + r"\end{pmatrix}",
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_adversarial_answers_are_refused_in_bounded_time(bomb):
    start = time.process_time()
    for expected in ("7", "1, 2", "x + 1", r"(-\infty,2) \cup (3,4)"):
        assert not same(bomb, expected)
    assert not same(f"{bomb[:900]}+1", bomb[:900]) or "x" in bomb
    assert time.process_time() - start < 2


def test_comparison_is_thread_safe():
    pairs = [(*pair, True) for pair in EQUAL] + [(*pair, False) for pair in DIFFERENT]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: same(pair[0], pair[1]), pairs))
    assert found == [pair[2] for pair in pairs]


def plainest(gold: str) -> str:
    """A known answer as a person or Python would write it: no markup, units or LaTeX."""
    if "\\begin" in gold or "\\text {" in gold:
        return gold
    text = gold.strip().strip("$").strip()
    if box := re.search(r"\\boxed\{(.*)\}", text):
        text = box[1]
    text = re.sub(r",\\!\s*|\\!|\\\$\s*", "", text)
    text = re.sub(r"(?<=\d)\s*\\(?:text|mbox|mathrm)\s*\{\s*[a-zA-Z ]+\}(?:\^2)?$", "", text)
    text = re.sub(r"\^\s*\{?\\circ\}?$|°$|\\+%$", "", text)
    if not re.search(r"[(\[{]", text):
        text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\\(?:left|right)\b\s*", "", text)
    text = re.sub(r"\\[,;:]|\\ ", "", re.sub(r"\\[dt]frac", r"\\frac", text))
    if not re.search(r"\d\s*\\frac", text):
        text = re.sub(r"\\frac\s*\{(-?\d+)\}\s*\{(\d+)\}", r"(\1/\2)", text)
    text = re.sub(r"(?<![a-z])\\sqrt\s*\{(\d+)\}", r" sqrt(\1)", text)
    for latex, plain in (
        (r"\\pi(?![a-z])", "pi"),
        (r"\\cdot(?![a-z])|\\times(?![a-z])", "*"),
        (r"\\infty", "oo"),
        (r"\\([{}])", r"\1"),
        (r"\\leqslant|\\leq", "<="),
        (r"\\geqslant|\\geq", ">="),
        (r"\\pm(?=\s*sqrt)", "± "),
        (r"\\text\s*\{([^{}]*)\}", r"\1"),
    ):
        text = re.sub(latex, plain, text)
    return text.strip()


def published() -> list[str]:
    """The answers of all published mathematics sets that are available."""
    import pyarrow.parquet as parquet

    folder = Path(DATA) / "arpo"
    golds = [
        str(row["reward_model"]["ground_truth"])
        for row in parquet.read_table(folder / "train_10k.parquet").to_pylist()
        if row["ability"] == "math"
    ]
    for name in ("math500", "aime24", "aime25", "gsm8k"):
        for line in (folder / f"eval_{name}.jsonl").read_text(encoding="utf-8").split("\n"):
            if line.strip():
                golds.append(str(json.loads(line)["answer"]).rpartition("####")[2].strip())
    return [gold for gold in dict.fromkeys(golds) if gold.strip()]


@needs_data
def test_every_published_answer_is_accepted_as_it_is_and_in_its_plainest_form():
    pytest.importorskip("pyarrow")
    golds = published()
    assert len(golds) > 2800
    assert [gold for gold in golds if not same(gold, gold)] == []
    assert [(plainest(gold), gold) for gold in golds if not same(plainest(gold), gold)] == []


@needs_data
def test_published_answers_are_accepted_in_a_box_and_refused_after_adding_one():
    pytest.importorskip("pyarrow")
    whole = [
        g for g in published() if g.count("{") == g.count("}") and not re.search("box|[.*$]", g)
    ]
    whole = [gold for gold in whole if not re.search(r"\\\}", gold) or "\\{" in gold]
    assert [gold for gold in whole if not same(rf"$\boxed{{{gold}}}$", gold)] == []
    numbers = [gold for gold in whole if re.fullmatch(r"[-\d/.\\a-z{}^]+", gold)]
    assert len(numbers) > 900
    assert [gold for gold in numbers if same(f"{plainest(gold)} + 1", gold)] == []
