"""`agentgym verify`: equal episodes are equal, and every alteration of a record is found."""

import dataclasses
import json
import math
import random
from dataclasses import replace

import pytest
from small_runs import SHAPE

from agentgym.cli import main
from agentgym.errors import ConfigError
from agentgym.evaluation.files import read_file
from agentgym.evaluation.identical import NOT_REPEATED, differences
from agentgym.evaluation.record_files import read_episodes
from agentgym.evaluation.records import EpisodeRecord, TurnRecord
from agentgym.experiment.verify import verify
from agentgym.models import from_scratch
from agentgym.types import Stop

WORDS = [
    *("--env", "hotter", "--env-args", "high", "8", "--panel.tasks", "8", "--panel.episodes", "3"),
    *("--rollout.max-turns", "3", "--rollout.max-completion-tokens", "6"),
    *("--rollout.max-context-tokens", "400"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    from_scratch.make_model(tokenizer, SHAPE, context=1024, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, checkpoint):
    path = tmp_path_factory.mktemp("evaluated") / "tiny.jsonl"
    assert main(["eval", str(checkpoint), *WORDS, "--out", str(path), "--card"]) == 0
    return path


def test_twenty_of_twenty_episodes_are_the_same_bit_for_bit(evaluated, capsys):
    assert main(["verify", str(evaluated.with_suffix(".md"))]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "20 of 20 episodes are the same, bit for bit" in out
    assert all(turn.tokens for record in read_episodes(evaluated) for turn in record.turns)


def altered(value, rng):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Stop):
        return Stop.MAX_TIME if value is not Stop.MAX_TIME else Stop.TERMINATED
    if isinstance(value, int):
        return value + rng.choice([-1, 1])
    if isinstance(value, float):
        return 0.5 if math.isnan(value) else value + rng.choice([-1, 1]) * 1e-6
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple) and value:
        place = rng.randrange(len(value))
        return (*value[:place], altered(value[place], rng), *value[place + 1 :])
    return (1,)


def changes(record):
    """Every field of an episode and of its turns that another play must repeat."""
    episode = [f.name for f in dataclasses.fields(EpisodeRecord)]
    turn = [f.name for f in dataclasses.fields(TurnRecord)]
    kept = [(None, name) for name in episode if name not in NOT_REPEATED]
    return kept + [(n, f) for n in range(len(record.turns)) for f in turn if f not in NOT_REPEATED]


def with_change(record, place, name, rng):
    if place is None:
        return replace(record, **{name: altered(getattr(record, name), rng)})
    turn = record.turns[place]
    new = replace(turn, **{name: altered(getattr(turn, name), rng)})
    return replace(record, turns=(*record.turns[:place], new, *record.turns[place + 1 :]))


def test_an_alteration_of_every_kind_of_field_is_a_difference(evaluated):
    rng, kinds = random.Random(0), set()
    for record in read_episodes(evaluated)[:4]:
        assert differences(record, record) == ()
        for place, name in changes(record):
            wrong = with_change(record, place, name, rng)
            where = differences(wrong, record)
            shown = name if place is None else f"turn {place + 1} {name}"
            assert shown in where, (place, name)
            kinds.add(name)
    assert {"tokens", "logprobs", "entropies", "text", "observation", "reward", "won"} <= kinds


def test_one_altered_token_is_found_a_hundred_times_of_a_hundred(evaluated, checkpoint, tmp_path):
    """Any token of any turn of any episode, against the same episodes played a second time."""
    rng, records, second = random.Random(1), read_episodes(evaluated), tmp_path / "second.jsonl"
    assert main(["eval", str(checkpoint), *WORDS, "--out", str(second)]) == 0
    again = {record.key: record for record in read_episodes(second)}
    for _ in range(100):
        record = rng.choice(records)
        place = rng.randrange(len(record.turns))
        wrong = with_change(record, place, "tokens", rng)
        assert differences(wrong, again[record.key]) == (f"turn {place + 1} tokens",)


def edited(path, new, change):
    """A copy of an evaluation file in which one object of one line is changed."""
    lines = path.read_text().splitlines()
    found = json.loads(lines[5])
    change(found)
    lines[5] = json.dumps(found)
    new.write_text("\n".join(lines) + "\n")
    return new


def test_verify_finds_an_altered_token_and_names_the_episode(evaluated, tmp_path, capsys):
    def change(found):
        found["turns"][0]["tokens"][0] ^= 1

    path = edited(evaluated, tmp_path / "edited.jsonl", change)
    assert main(["verify", str(path), "--episodes", "24"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "23 of 24 episodes are the same" in out
    found = json.loads(path.read_text().splitlines()[5])
    assert f"differs: task {found['task']}, episode {found['sample']}: turn 1 tokens" in out


def test_a_card_whose_file_changed_is_noticed(evaluated, tmp_path):
    card = tmp_path / evaluated.with_suffix(".md").name
    card.write_text(evaluated.with_suffix(".md").read_text())
    with pytest.raises(ConfigError, match="which is not beside it"):
        verify(card)
    edited(evaluated, tmp_path / evaluated.name, lambda found: found.update(seconds=1.0))
    found = verify(card, episodes=1)
    assert found.same and "its SHA-256 is another" in found.notes[0]


def test_another_model_and_missing_settings_are_refused(evaluated, tmp_path):
    header, *rest = evaluated.read_text().splitlines()
    for change, message in [
        ({"model": "0123"}, r"is not the one that was evaluated: its fingerprint is"),
        ({"experiment": {}}, "holds no settings"),
        ({"name": "object:Net"}, "of Net, a Python object that a file cannot name"),
    ]:
        found = json.loads(header)
        found["header"].update(change)
        path = tmp_path / "other.jsonl"
        path.write_text("\n".join([json.dumps(found), *rest]) + "\n")
        with pytest.raises(ConfigError, match=message):
            verify(path)


def test_a_policy_without_weights_plays_again(tmp_path, capsys):
    words = ["--env", "hotter", "--panel.tasks", "4", "--panel.episodes", "2"]
    assert main(["eval", "random", *words, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.jsonl")
    assert verify(path).same

    def change(found):
        found["turns"][0]["observation"] += "!"

    wrong = verify(edited(path, tmp_path / "edited.jsonl", change), episodes=8)
    assert [each.where for each in wrong.differing] == [("turn 1 observation",)]


def test_of_an_endpoint_the_environment_is_checked_and_the_limit_is_stated(evaluated, tmp_path):
    """The tokens of a service cannot be promised; what the environment answered can."""
    header, *rest = evaluated.read_text().splitlines()
    found = json.loads(header)
    found["header"]["experiment"]["engine"] = "openai"
    path = tmp_path / "endpoint.jsonl"
    path.write_text("\n".join([json.dumps(found), *rest]) + "\n")
    result = verify(path, episodes=24)
    assert result.same and not result.whole and result.played == 24
    assert "does not promise the same tokens" in result.notes[0]

    def change(found):
        found["won"] = not found["won"]

    assert [each.where for each in verify(edited(path, path, change), episodes=24).differing] == [
        ("won",)
    ]


def test_all_that_is_valid_of_a_damaged_file_is_used_with_a_line_for_the_rest(evaluated, tmp_path):
    lines = evaluated.read_text().splitlines()
    lines[3] = lines[3][:40]
    lines[4] = lines[4].replace('"schema":', '"scheme":')
    lines[6] = lines[6].replace('"panel":"', '"panel":"0')
    path = tmp_path / "damaged.jsonl"
    path.write_text("\n".join(lines)[:-30])
    stored = read_file(path)
    assert len(stored.records) == 24 - 4
    assert [note.partition(": ")[0] for note in stored.notes] == [
        f"{path}, line 4 is left out",
        f"{path}, line 5 is left out",
        f"{path}, line 7 is left out",
        str(path),
    ]
    assert verify(path, episodes=3).same


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no evaluation file at"),
        ("none.md", None, "no card at"),
        ("note.md", "# Hello\n", "is not a card"),
        ("foreign.jsonl", '{"a": 1}\n', "is not an evaluation file of schema"),
        ("old.jsonl", '{"header": {"schema": 2}}\n', "is not an evaluation file of schema"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message) as problem:
        verify(path)
    assert "\n" not in str(problem.value)
