"""Questions and pages from files: published formats, real files if available, and bad ones."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

from agentgym.env.registry import world
from agentgym.errors import ConfigError, UnknownTask
from agentgym.testing import CheckSettings, check_environment
from agentgym_envs.deepsearch.corpora import open_corpus
from agentgym_envs.deepsearch.files import open_questions
from agentgym_envs.deepsearch.questions import Lookup
from agentgym_envs.deepsearch.sources import Page, split

pytest.importorskip("Stemmer")

DATA = os.environ.get("AGENTGYM_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="AGENTGYM_DATA is not set")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for every test."""
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make(**kwargs):
    return world("agentgym/DeepSearch-v0", **kwargs)


HOTPOT = {
    "_id": "5a8",
    "question": "Were Ada Byron and Max Newman of the same nationality?",
    "answer": "yes",
    "type": "comparison",
    "level": "hard",
    "supporting_facts": [["Ada Byron", 0], ["Max Newman", 0], ["Max Newman", 2]],
    "context": [
        ["Ada Byron", ["Ada Byron was English. ", " She wrote programs."]],
        ["Max Newman", ["Max Newman was an English mathematician.", "He taught."]],
        ["Alan Turing", ["Alan Turing was a student of Newman."]],
    ],
}
WIKI2 = {**HOTPOT, "evidences": [["Ada Byron", "nationality", "English"]], "type": "compositional"}
MUSIQUE = {
    "id": "2hop__1_2",
    "question": "Where was the author of Emma born?",
    "answer": "Steventon",
    "answer_aliases": ["Steventon, Hampshire"],
    "answerable": True,
    "question_decomposition": [],
    "paragraphs": [
        {"idx": 0, "title": "Emma", "paragraph_text": "By Jane Austen.", "is_supporting": True},
        {"idx": 1, "title": "Bath", "paragraph_text": "A town.", "is_supporting": False},
        {
            "idx": 2,
            "title": "Austen",
            "paragraph_text": "Born in Steventon.",
            "is_supporting": True,
        },
    ],
}
VERL = {
    "data_source": "nq",
    "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "Who? "}],
    "ability": "qa",
    "reward_model": {"ground_truth": "['E. H. Shepard', \"Ernest\"]", "style": "rule"},
    "extra_info": {"index": 0, "split": "train"},
}
FORMS = {
    "HotpotQA": (HOTPOT, ("yes",), "comparison", ["Ada Byron", "Max Newman"]),
    "HotpotQA, simplified": (
        {"question": "Who?", "answer": "Ada", "type": "bridge"},
        ("Ada",),
        "bridge",
        [],
    ),
    "HotpotQA, of the hub": (
        {
            **HOTPOT,
            "supporting_facts": {"title": ["Max Newman"], "sent_id": [0]},
            "context": {"title": ["Max Newman"], "sentences": [["Max", "Newman"]]},
        },
        ("yes",),
        "comparison",
        ["Max Newman"],
    ),
    "2Wiki": (WIKI2, ("yes",), "compositional", ["Ada Byron", "Max Newman"]),
    "MuSiQue": (MUSIQUE, ("Steventon", "Steventon, Hampshire"), "rows", ["Emma", "Austen"]),
    "Bamboogle": ({"Question": "Who?", "Answer": "james madison"}, ("james madison",), "rows", []),
    "SimpleQA": (
        {"problem": "Who?", "answer": "Michio Sugeno", "metadata": "{'topic': 'Science'}"},
        ("Michio Sugeno",),
        "rows",
        [],
    ),
    "answers as a list": ({"question": "Who?", "answer": ["A", "B", "A"]}, ("A", "B"), "rows", []),
    "FlashRAG": (
        {"id": "train_0", "question": "Who?", "golden_answers": ["A"], "metadata": {}},
        ("A",),
        "rows",
        [],
    ),
    "verl": (VERL, ("E. H. Shepard", "Ernest"), "nq", []),
    "ARPO": (
        {
            **VERL,
            "extra_info": {"question": "Who drew it?"},
            "reward_model": {"ground_truth": "He"},
        },
        ("He",),
        "nq",
        [],
    ),
    "Search-R1": (
        {**VERL, "reward_model": {"ground_truth": {"target": ["Paris", "City of Paris"]}}},
        ("Paris", "City of Paris"),
        "nq",
        [],
    ),
    "a truth value": ({"question": "Is it?", "answer": False}, ("no",), "rows", []),
    "a number": ({"question": "When?", "answer": 1999}, ("1999",), "rows", []),
    "an answer in brackets": ({"question": "Which?", "answer": "[sic]"}, ("[sic]",), "rows", []),
}


@pytest.mark.parametrize(("row", "answers", "kind", "support"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_published_formats_are_read(tmp_path, row, answers, kind, support, ending):
    path = tmp_path / f"rows.{ending}"
    if ending == "jsonl":
        lines(path, row, {**row, "extra": "\u2028"})
    elif ending == "json":
        path.write_text(json.dumps([row, row]))
    else:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        if "evidences" in row or row.get("metadata") == {} or not _columns(row):
            pytest.skip("this form has no columns")
        parquet.write_table(arrow.Table.from_pylist([row, row]), path)
    file = open_questions(str(path))
    assert len(file.questions) == 2
    question = file.questions[1]
    assert (question.answers, question.pattern) == (answers, kind)
    assert [lookup.page for lookup in question.support] == support
    assert question.text and question.text == question.text.strip()


def _columns(row):
    """A list of pairs of a text and a list has none."""
    return not isinstance(row.get("context"), list)


def test_mathematics_and_unanswerable_questions_are_skipped(tmp_path):
    path = lines(
        tmp_path / "rows.jsonl",
        {**VERL, "ability": "math"},
        {**MUSIQUE, "answerable": False},
        VERL,
    )
    assert [question.answer for question in open_questions(path).questions] == ["E. H. Shepard"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no questions"),
        ('{"question": "a", "answer": "1"}\n{', "line 2: not JSON"),
        ("[1]", "entry 1: got a JSON int, expected an object"),
        ("[" * 100_000, "not JSON"),
        ('{"question": "a"}', "expected texts under 'question' .* got the fields question"),
        ('{"question": " ", "answer": "1"}', "expected texts under"),
        ('{"question": "a", "answer": []}', "expected texts under"),
        ('{"question": "a", "answer": "b", "context": [["t"]]}', "its context cannot be read"),
        ('{"question": "a", "answer": "b", "paragraphs": [{}]}', "its context cannot be read"),
        ("\udcff", "cannot read the questions"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=message) as error:
        make(data=str(path))
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_damaged_parquet_file_is_refused_in_one_line(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ConfigError, match=r"cannot read .*x\.parquet"):
        open_questions(str(path))


# ---- pages -----------------------------------------------------------------------------------

PAGES = [
    {"_id": "d1", "title": "Emma", "text": "A novel by Jane Austen.", "metadata": {}},
    {"_id": "d2", "title": "Jane Austen", "text": "She was born in Steventon."},
    {"_id": "d3", "title": "", "text": "Nobody knows who wrote this."},
]
PASSAGES = [
    {"id": "0", "contents": '"Jane Austen"\nShe was born in Steventon.'},
    {"id": "1", "contents": '"Emma"\nA novel of 1815.'},
    {"id": "2", "contents": '"Jane Austen"\nShe died in Winchester.'},
]


def test_beir_and_wiki18_documents_are_found_and_read(tmp_path):
    beir = open_corpus(lines(tmp_path / "corpus.jsonl", *PAGES))
    assert open_corpus(str(tmp_path)) is beir and len(beir) == 3
    assert [hit.id for hit in beir.search("where was Jane born", 5)] == ["d2", "d1"]
    assert beir.page("d3") == Page("d3", ("Nobody knows who wrote this.",))
    assert beir.page("Emma ") is None
    wiki = open_corpus(lines(tmp_path / "wiki.jsonl", *PASSAGES))
    hit = wiki.search("Austen Winchester", 1)[0]
    assert (hit.id, hit.title, hit.text) == ("2", "Jane Austen", "She died in Winchester.")
    scores = [hit.score for hit in wiki.search("Jane Austen novel", 3)]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True) and scores[-1] > 0
    # A document scores only for the words it contains.
    (emma,) = (hit for hit in wiki.search("Jane Austen novel", 3) if hit.title == "Emma")
    assert emma == wiki.search("novel", 1)[0]
    # Passages of one title are the sections of one page.
    assert wiki.page("Jane Austen").sections == (
        "She was born in Steventon.",
        "She died in Winchester.",
    )


def test_index_is_rebuilt_when_the_file_changes(tmp_path, cache):
    from agentgym_envs.deepsearch import corpora

    path = lines(tmp_path / "wiki.jsonl", *PASSAGES)
    open_corpus(path)
    (built,) = (cache / "deepsearch").iterdir()
    stamp = (built / "rows.npy").stat().st_mtime_ns
    corpora._read_cached.cache_clear()
    assert open_corpus(path).page("Emma").sections == ("A novel of 1815.",)
    assert (built / "rows.npy").stat().st_mtime_ns == stamp
    lines(tmp_path / "wiki.jsonl", *PASSAGES[:1])
    assert open_corpus(path).page("Emma") is None
    # A damaged index is not searched.
    corpora._read_cached.cache_clear()
    for folder in (cache / "deepsearch").iterdir():
        (folder / "starts.npy").write_bytes(b"")
    with pytest.raises(ConfigError, match="is damaged, remove it"):
        open_corpus(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "", "holds no documents"),
        ("x.jsonl", '{"id": 1, "contents": "a"}\nnonsense\n', "line 2: not JSON"),
        ("x.jsonl", '{"id": 1}', "line 1: expected an object with the text 'contents'"),
        ("x.jsonl", "[1]", "line 1: expected an object"),
        ("x.jsonl", '{"contents": ' + "[" * 100_000, "line 1: not JSON"),
        ("x.jsonl", "\udcff\udcfe", "line 1: not JSON"),
        ("x.json", "[]", "is no search cache"),
        ("x.json", '{"a": 3}', "is no search cache"),
        ("x.json", '{"a": "nothing"}', "holds no search results"),
        ("x.json", "{", "cannot read the corpus"),
    ],
)
def test_other_corpus_files_are_refused_and_leave_no_cache(tmp_path, cache, name, content, message):
    path = tmp_path / name
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=message) as error:
        open_corpus(str(path))
    assert "\n" not in str(error.value)
    assert not (cache / "deepsearch").exists() or not list((cache / "deepsearch").iterdir())


def test_long_texts_are_split_between_paragraphs():
    paragraphs = ["a" * 900, "b" * 900, "c" * 900, "d" * 5000]
    sections = split("\n\n".join(paragraphs))
    assert sections == ("\n\n".join(paragraphs[:2]), *paragraphs[2:])
    assert split("") == ("",) and "\n\n".join(sections) == "\n\n".join(paragraphs)


def test_ten_thousand_pages_are_searched_in_place(tmp_path):
    rows = (
        {"id": n, "contents": f'"Page {n}"\nword{n % 97} word{n % 89} about {n}.'}
        for n in range(10_000)
    )
    corpus = open_corpus(lines(tmp_path / "wiki.jsonl", *rows))
    assert [hit.title for hit in corpus.search("word5 word7 Page 5438", 1)] == ["Page 5438"]
    assert corpus.page("Page 9999").sections == ("word8 word31 about 9999.",)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_queries_and_titles_match_in_any_unicode_form(tmp_path, form):
    """macOS and some models write accents as separate combining characters."""
    title = unicodedata.normalize(form, "B\u00e9atrice Poe\u0308l")
    page = {"_id": "1", "title": title, "text": unicodedata.normalize(form, "R\u00eaverie")}
    corpus = open_corpus(lines(tmp_path / f"{form}.jsonl", page, *PAGES))
    for query in ("NFC", "NFD"):
        assert corpus.search(unicodedata.normalize(query, "r\u00eaverie"), 3)[0].title == title
        found = corpus.page(unicodedata.normalize(query, title))
        assert found is not None and found.sections == (page["text"],)


# ---- the environment -----------------------------------------------------------------------------


def test_questions_with_pages_need_no_corpus(tmp_path):
    path = lines(tmp_path / "musique.jsonl", MUSIQUE, {**MUSIQUE, "question": "And again?"})
    env = make(data=path, data_split="test")
    tasks = env.tasks("test")
    assert len(tasks) == 2 and not env.tasks("train")
    _, info = env.reset(options={"task": tasks[0]})
    assert info["goal"].startswith("Answer this question from the pages.")
    assert "Where was the author of Emma born?" in info["goal"]
    found = env.step("<search>author of Emma</search>")[0]
    assert found.startswith("<information>\nDoc 1(Title: Emma) By Jane Austen.")
    for action in env.oracle()[:-1]:
        *_, info = env.step(action)
    assert info["support_recall"] == 1.0
    assert env.step("<answer>Steventon, Hampshire</answer>")[4]["won"]
    assert len(make(data=path, data_split="train").tasks("train")) == 2
    for name in ("2hop-2000-0-1", tasks[0][:-1] + "2", tasks[0] + "0"):
        with pytest.raises(UnknownTask):
            env.reset(options={"task": name})


def test_question_files_pass_the_checker(tmp_path):
    rows = [
        {**MUSIQUE, "question": f"Where was author {n} born?", "answer": f"Steventon {n}"}
        for n in range(60)
    ]
    path = lines(tmp_path / "musique.jsonl", *rows)
    settings = CheckSettings(steps=60, resets=60, seconds=0.5)
    check_environment("agentgym/DeepSearch-v0", settings, data=path)


def test_beir_queries_ask_for_pages(tmp_path):
    lines(tmp_path / "corpus.jsonl", *PAGES)
    lines(
        tmp_path / "queries.jsonl",
        {"_id": "q1", "text": "Who wrote Emma?"},
        {"_id": "q2", "text": "?"},
    )
    (tmp_path / "qrels").mkdir()
    judged = tmp_path / "qrels" / "test.tsv"
    judged.write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t2\nq2\td3\t0\n")
    (question,) = open_questions(str(tmp_path)).questions
    assert question.answers == ("Emma", "Jane Austen")
    assert question.support == (Lookup("Emma", 1), Lookup("Jane Austen", 1))
    env = make(data=str(tmp_path), corpus=str(tmp_path), data_split="test")
    env.reset(options={"task": env.tasks("test")[0]})
    for action in env.oracle():
        *_, info = env.step(action)
    assert info["won"] and info["support_recall"] == 1.0
    for content in ("q1\td9\t1\n", "q1\td1\n", "q1\td1\tmuch\n"):
        judged.write_text(content)
        (tmp_path / "queries.jsonl").touch()
        with pytest.raises(
            ConfigError, match=r"test\.tsv, line 1: expected query, document, score"
        ):
            open_questions(str(tmp_path))


def test_invalid_setting_states_what_was_expected(tmp_path):
    bare = lines(tmp_path / "bare.jsonl", {"question": "Who?", "answer": "Ada"})
    for settings, message in [
        ({"data": "/no/such.jsonl"}, "there is no file /no/such.jsonl"),
        ({"data": bare}, "bring no pages with them: name a corpus, too"),
        ({"data": bare, "corpus": "/no/such.jsonl"}, "corpus: there is no file"),
        ({"corpus": bare}, "needs questions"),
        ({"data": bare, "corpus": bare, "data_split": "tset"}, "Did you mean 'test'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make(**settings)


# ---- real files ------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("arpo/eval_hotpotqa.jsonl", 200),
        ("arpo/eval_2wiki.jsonl", 200),
        ("arpo/eval_musique.jsonl", 200),
        ("arpo/eval_bamboogle.jsonl", 125),
        ("arpo/eval_SimpleQA.jsonl", 500),
        ("react/hotpot_dev_v1_simplified.json", 7405),
        ("arpo/train_10k.parquet", 5000),
        ("arpo/hard_search_1k.parquet", 1071),
        ("arpo/valid.parquet", 80),
    ],
)
def test_published_questions_are_read(name, count):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    questions = open_questions(str(Path(DATA, name))).questions
    assert len(questions) == count
    assert all(question.text and question.answer for question in questions)


@needs_data
def test_arpo_search_cache_answers_some_questions():
    """In a prototype the best five texts answered 14.0 % of the hard questions."""
    pytest.importorskip("pyarrow")
    folder = Path(DATA, "arpo")
    corpus = open_corpus(str(folder / "search_cache.json"))
    assert len(corpus) == 8294
    questions = open_questions(str(folder / "hard_search_1k.parquet")).questions[::5]
    answered = sum(
        any(question.answer.lower() in hit.text.lower() for hit in corpus.search(question.text, 5))
        for question in questions
    )
    assert 0.08 < answered / len(questions) < 0.25
