"""Formats of other projects: what is written is as they read it, and comes back."""

import json
from pathlib import Path

import pytest
from played_episodes import as_lines, odd, plain, play, sampled

from agentgym.cli import main
from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import read_episodes
from agentgym.interchange.conversation import without
from agentgym.interchange.files import export, import_file
from agentgym.interchange.formats import FORMATS, entry

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "exchange-episodes.md"
ALWAYS = ("openai", "atif", "verl", "trl")
"""Formats that need nothing, or pyarrow; tests/interop has the others, and the real readers."""


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    found = play(tmp_path_factory.mktemp("played"), tasks=4, episodes=2)
    return [*found, *(sampled(each, n) for n, each in enumerate(found)), *odd()]


@pytest.fixture
def file(tmp_path, episodes):
    path = tmp_path / "episodes.jsonl"
    path.write_text(as_lines(episodes))
    return path


@pytest.mark.parametrize("name", ALWAYS)
def test_a_round_trip_gives_back_all_that_the_format_does_not_lose(name, file, episodes):
    if name == "verl":
        pytest.importorskip("pyarrow")
    written = export(file, name)
    assert written.episodes == len(episodes) and not written.warnings
    back = import_file(written.path, name)
    assert not back.warnings
    expected = [plain(without(each, FORMATS[name].loses)) for each in episodes]
    assert [plain(each) for each in read_episodes(back.path)] == expected
    assert sum(len(turn.calls) for each in episodes for turn in each.turns) > 10


def test_messages_are_those_of_openai(file, tmp_path):
    rows = [json.loads(line) for line in export(file, "openai").path.read_text().splitlines()]
    called = next(row for row in rows if any("tool_calls" in each for each in row["messages"]))
    roles = [message["role"] for message in called["messages"]]
    assert roles[:5] == ["system", "user", "assistant", "tool", "tool"]
    assert all(row["messages"][-1]["role"] in ("assistant", "user") for row in rows)
    answer, first, second = called["messages"][2:5]
    assert [each["function"]["name"] for each in answer["tool_calls"]] == ["double", "double"]
    assert json.loads(answer["tool_calls"][1]["function"]["arguments"]) == {"number": 3}
    assert [first["tool_call_id"], second["tool_call_id"]] == [
        each["id"] for each in answer["tool_calls"]
    ]
    assert second["content"] == "6"
    assert called["tools"][0]["function"]["parameters"]["properties"]["number"]


def test_foreign_messages_become_episodes(tmp_path, capsys):
    path = tmp_path / "theirs.jsonl"
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Add."}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
        {"role": "assistant", "content": "Two.", "reasoning_content": "Easy"},
    ]
    bad = [
        "nonsense",
        '{"prompt": "a"}',
        '{"messages": []}',
        '{"messages": [{"role": "robot", "content": ""}]}',
        json.dumps(
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}
        ),
    ]
    path.write_text("\n".join([*bad[:2], json.dumps({"messages": talk}), *bad[2:]]))
    assert main(["import", str(path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    (found,) = read_episodes(tmp_path / "theirs.episodes.jsonl")
    assert shown[-1] == f"1 episodes in {tmp_path / 'theirs.episodes.jsonl'}"
    assert len(shown) == 6 and all(f"{path}, line" in line for line in shown[:5])
    assert "the role 'robot', expected system, user" in shown[3]
    assert (found.manual, found.opening, found.env) == ("Be brief.", "Add.[image_url]", "imported")
    assert found.score != found.score and found.task == "theirs-3"
    assert found.turns[0].calls[0].arguments == {"x": 1}
    assert found.turns[0].observation == "<tool_response>\n2\n</tool_response>"
    assert found.turns[1].text == "<think>Easy</think>Two."


def test_a_trajectory_follows_the_rules_of_atif(file, episodes):
    """The rules that Harbor's models check; tests/interop runs those models."""
    folder = export(file, "atif").path
    found = [json.loads(path.read_text()) for path in sorted(folder.iterdir())]
    assert len(found) == len(episodes) and {each["schema_version"] for each in found} == {
        "ATIF-v1.7"
    }
    for trajectory, record in zip(found, episodes, strict=True):
        assert [step["step_id"] for step in trajectory["steps"]] == [
            *range(1, 1 + len(trajectory["steps"]))
        ]
        agent = [step for step in trajectory["steps"] if step["source"] == "agent"]
        context = []
        for step, turn in zip(agent, record.turns, strict=True):
            ids = {call["tool_call_id"] for call in step.get("tool_calls", ())}
            sources = {each.get("source_call_id") for each in step["observation"]["results"]}
            assert sources <= (ids or {None})
            assert step["llm_call_count"] == bool(turn.tokens)
            context = [*([] if turn.fresh else context), *turn.prompt]
            if not turn.tokens:
                assert "metrics" not in step and "reasoning_content" not in step
                continue
            assert step["metrics"]["prompt_token_ids"] == context
            assert step["metrics"]["completion_token_ids"] == list(turn.tokens)
            context = [*context, *turn.tokens]
        copied = [step.get("is_copied_context", False) for step in agent]
        assert sum(copied) == record.shared_turns
    assert any("reasoning_content" in step for each in found for step in each["steps"])


def test_verl_gets_the_tokens_of_an_episode_as_its_agent_loop_returns_them(file, episodes):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(export(file, "verl").path).to_pylist()
    whole = 0
    for row, record in zip(rows, episodes, strict=True):
        assert row["prompt"] == [
            {name: each[name] for name in ("role", "content")}
            for each in row["messages"][:2]
            if each["role"] != "assistant"
        ]
        assert row["score"] == record.reward and row["data_source"] == record.env
        one_row = all(not turn.fresh for turn in record.turns[1:])
        if not (one_row and any(turn.tokens for turn in record.turns)):
            assert row["response_ids"] == []
            continue
        whole += 1
        read = [token for turn in record.turns for token in (*turn.prompt, *turn.tokens)]
        assert [*row["prompt_ids"], *row["response_ids"]] == read
        sizes = {len(row[f"response_{name}"]) for name in ("ids", "mask", "logprobs")}
        assert len(sizes) == 1
        assert sum(row["response_mask"]) == sum(sum(turn.loss_mask) for turn in record.turns)
        chosen = [
            t for t, kept in zip(row["response_ids"], row["response_mask"], strict=True) if kept
        ]
        masks = [zip(turn.tokens, turn.loss_mask, strict=True) for turn in record.turns]
        assert chosen == [token for pairs in masks for token, kept in pairs if kept]
    assert whole >= 5


def test_damaged_lines_are_left_out_and_named(file, tmp_path, capsys):
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "{", '{"schema": 3}', lines[1]]) + "\n" + lines[2][:99])
    assert main(["export", str(file), "--to", "openai"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(" is left out")[0] for line in out[:2]] == [
        f"warning: {file}, line 2",
        f"warning: {file}, line 3",
    ]
    assert out[2] == f"2 episodes in {tmp_path / 'episodes.messages.jsonl'}"


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "it is empty"), ("nonsense\n", "line 1 is left out: not JSON"), (None, "no file")],
)
def test_a_source_without_an_episode_leaves_nothing_behind(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_text(content)
    for name in ALWAYS:
        with pytest.raises(ConfigError, match=message) as refused:
            export(path, name, tmp_path / "out")
        assert "\n" not in str(refused.value)
    assert [each.name for each in tmp_path.iterdir()] == ([] if content is None else ["x.jsonl"])


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path, episodes):
    pytest.importorskip("pyarrow")

    def failing():
        yield episodes[0]
        raise KeyboardInterrupt

    for name in ALWAYS:
        with pytest.raises(KeyboardInterrupt):
            entry(name).module.write(failing(), tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


def test_half_of_a_character_does_not_stop_an_export(file):
    pytest.importorskip("pyarrow")
    line = file.read_text().splitlines()[0]
    file.write_text(line.replace('"observation":"', '"observation":"\\ud800', 1) + "\n")
    for name in ALWAYS:
        back = import_file(export(file, name).path, name).path
        assert read_episodes(back)[0].turns[0].observation.startswith("\ud800")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"PAR1 not really", "is no Parquet file, or was cut off"),
        ("x.bin", b"\x00\x01", "is of no known format"),
        (
            "x.json",
            b'{"schema_version": "ATIF-v1.6", "steps": [{"source": "agent", "tool_calls": [1]}]}',
            "a step is not as expected",
        ),
        ("x.json", b'{"schema_version": "ATIF-v2.0"}', "expected ATIF-v1.x"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        import_file(path)
    assert "\n" not in str(refused.value) and len([*tmp_path.iterdir()]) == 1


def test_an_edited_file_that_does_not_fit_its_metadata_is_refused(file, tmp_path):
    path = export(file, "openai").path
    row = json.loads(path.read_text().splitlines()[0])
    row["messages"].append({"role": "assistant", "content": "one more"})
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match=r"describes \d+ turns, its conversation has \d+"):
        import_file(path)


def test_formats_are_named_and_their_losses_documented(tmp_path):
    with pytest.raises(ConfigError, match=r"no format 'opnai'\. Did you mean 'openai'\?"):
        entry("opnai")
    page = PAGE.read_text(encoding="utf-8")
    for each in FORMATS.values():
        lost = ", ".join(f"`{name}`" for name in each.loses) or "nothing"
        assert f"| `{each.name}` | {lost} |" in page


def test_the_source_is_never_overwritten(file):
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="is the source itself"):
        export(file, "openai", file)
    assert file.read_bytes() == before
