"""Episodes and metrics on disk: exact, and intact after any interruption."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import LeftOut, append, read_episodes, valid_episodes
from agentgym.evaluation.records import EpisodeRecord, token_ends
from agentgym.experiment.metrics_file import MetricsWriter, read_metrics, truncate_episodes
from agentgym.types import Completion, Stop, Task, ToolCall, Trajectory, Turn
from agentgym.utils import zstd_lines
from agentgym.utils.jsonl import append_line, dumps, read_objects, write_atomic


def trajectory(sample: int = 0) -> Trajectory:
    first = Completion((7, 8, 9), (-1.0, -0.5, -0.25), (0.5, 1.0, 1.5), version=3)
    second = Completion((), (), (), version=2)
    turns = (
        Turn((1, 2), first, "50", "Höher.\n\u2028\x00", 0.0),
        Turn((3,), second, "", "Say a number.", 1.0, parsed=False, valid=False),
    )
    return Trajectory(
        Task("agentgym/Hotter-v0", "hotter-3", 5),
        sample,
        "Find it.",
        "Guess.",
        turns,
        Stop.TERMINATED,
        score=1.0,
        won=True,
        task_type="guess",
    )


def record(sample: int = 0) -> EpisodeRecord:
    return EpisodeRecord.of(
        trajectory(sample),
        seconds=1.5,
        panel="abc",
        decode=lambda tokens: " ".join(map(str, tokens)),
    )


def test_a_record_keeps_all_fields_of_an_episode():
    found = record()
    assert found.task_type == "guess"
    assert (found.env, found.task, found.seed) == ("agentgym/Hotter-v0", "hotter-3", 5)
    assert found.key == (Task("agentgym/Hotter-v0", "hotter-3", 5), 0)
    assert (found.prompt_tokens, found.completion_tokens) == (3, 3)
    assert (found.reward, found.won, found.score) == (1.0, True, 1.0)
    assert found.version == 2
    assert [turn.text for turn in found.turns] == ["7 8 9", ""]
    assert [turn.parsed for turn in found.turns] == [True, False]
    assert found.turns[0].entropy == 1.0
    assert math.isnan(found.turns[1].entropy)


def test_a_record_is_one_line_and_round_trips():
    line = record().to_json()
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line)["schema"] == 5
    back = EpisodeRecord.from_json(line)
    assert repr(back) == repr(record())


def test_a_record_keeps_every_token_with_its_numbers():
    turn = record().turns[0]
    assert (turn.tokens, turn.logprobs, turn.entropies) == (
        (7, 8, 9),
        (-1.0, -0.5, -0.25),
        (0.5, 1.0, 1.5),
    )
    assert (turn.version, turn.versions, turn.thought_tokens, turn.trained) == (3, (), 0, True)
    assert record().shared_turns == 0


def test_a_record_keeps_forks_calls_times_and_what_was_read():
    call = ToolCall("double", {"number": 40})
    turns = (
        replace(trajectory().turns[0], calls=(call,), sampling_seconds=0.25, env_seconds=0.5),
        replace(trajectory().turns[1], fresh=True),
    )
    tool = {"type": "function", "function": {"name": "double"}}
    played = replace(
        trajectory(), turns=turns, parent=2, shared_turns=1, manual="Act.", tools=(tool,)
    )
    line = EpisodeRecord.of(played).to_json()
    back = EpisodeRecord.from_json(line)
    assert (back.parent, back.shared_turns, back.manual, back.tools) == (2, 1, "Act.", (tool,))
    first, second = back.turns
    assert json.loads(line)["turns"][0]["calls"] == [
        {"name": "double", "arguments": {"number": 40}}
    ]
    assert first.calls == (call,) and type(first.calls[0]) is ToolCall
    assert (first.sampling_seconds, first.env_seconds) == (0.25, 0.5)
    assert math.isnan(second.env_seconds)
    assert (first.prompt, first.fresh, second.fresh) == ((1, 2), False, True)


def test_advantages_are_kept_per_token_where_they_differ():
    forced = replace(trajectory().turns[0], forced=(1, 2))
    played = replace(trajectory(), turns=(forced, replace(forced, learn=False), forced))
    rows = ((0.5, 0.0, 1.5), (0.0, 0.0, 0.0), (2.0, 0.0, 2.0))
    back = EpisodeRecord.from_json(EpisodeRecord.of(played, advantages=rows).to_json())
    assert [turn.loss_mask for turn in back.turns] == [(1, 0, 1), (0, 0, 0), (1, 0, 1)]
    assert [turn.advantages for turn in back.turns] == [rows[0], (), ()]
    assert (back.turns[0].advantage, back.turns[2].advantage) == (1.0, 2.0)
    assert math.isnan(back.turns[1].advantage)
    assert [turn.token_advantages for turn in back.turns] == [rows[0], (), rows[2]]


def test_a_line_of_schema_4_is_read_with_the_defaults_of_newer_fields():
    found = json.loads(record().to_json())
    for name in ("parent", "manual", "tools", "rescoring"):
        del found[name]
    new = ("prompt", "fresh", "forced", "advantage", "advantages", "calls", "sampling_seconds")
    for turn in found["turns"]:
        for name in (*new, "env_seconds"):
            del turn[name]
    back = EpisodeRecord.from_object(found | {"schema": 4})
    assert back.parent is None and back.turns[0].tokens == (7, 8, 9)
    assert math.isnan(back.turns[0].advantage) and back.turns[0].calls == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"won": "yes"}, "won of an episode is 'yes', expected true or false"),
        ({"score": 7.0}, "score of an episode is 7, expected 0 to 1"),
        ({"stop": "tired"}, "stop of an episode is 'tired', expected terminated or"),
        ({"sample": 1.5}, "sample of an episode is 1.5, expected a whole number"),
        ({"turns": {}}, "turns of an episode is {}, expected a list"),
        ({"turns": [3]}, "an entry of turns is 3, expected an object"),
        ({"turns": [{"forced": [1]}]}, "an entry of turns lacks the fields action, observation"),
    ],
)
def test_a_value_of_another_type_is_one_clear_line(change, message):
    with pytest.raises(ConfigError) as refused:
        EpisodeRecord.from_object(json.loads(record().to_json()) | change)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_log_probability_that_is_unknown_is_nan_again():
    played = replace(trajectory().turns[0].completion, logprobs=(math.nan, -0.5, math.nan))
    odd = replace(trajectory(), turns=(replace(trajectory().turns[0], completion=played),))
    back = EpisodeRecord.from_json(EpisodeRecord.of(odd).to_json()).turns[0]
    assert math.isnan(back.logprobs[0]) and back.logprobs[1] == -0.5


def test_token_end_offsets_are_found_when_a_character_spans_several_tokens():
    data = "aö".encode()

    def decode(tokens):
        return bytes(tokens).decode("utf-8", "replace")

    ends = token_ends(list(data), "aö", decode)
    assert ends[0] == 1 and ends[-1] == 2 and sorted(ends) == list(ends)
    assert token_ends(list(data) * 400, decode(list(data) * 400), decode) == ()


def test_token_end_offsets_are_empty_without_text():
    assert EpisodeRecord.of(trajectory()).turns[0].ends == ()


def test_the_endings_of_failed_attempts_are_recorded():
    often = replace(trajectory(), failed_attempts=(Stop.TOOL_TIMEOUT, Stop.ABORTED))
    back = EpisodeRecord.from_json(EpisodeRecord.of(often).to_json())
    assert back.failed_attempts == (Stop.TOOL_TIMEOUT, Stop.ABORTED)
    assert all(type(stop) is Stop for stop in back.failed_attempts)


def test_non_finite_numbers_are_null_in_json_and_read_as_nan():
    odd = replace(record(), score=math.nan, seconds=math.inf)
    assert json.loads(odd.to_json())["seconds"] is None
    back = EpisodeRecord.from_json(odd.to_json())
    assert math.isnan(back.score)
    assert math.isnan(back.seconds)


def test_an_episode_without_turns_can_be_recorded():
    broken = replace(trajectory(), turns=(), stop=Stop.ENV_ERROR, error="ValueError: no")
    back = EpisodeRecord.from_json(EpisodeRecord.of(broken).to_json())
    assert (back.stop, back.error, back.version, back.turns) == (
        Stop.ENV_ERROR,
        "ValueError: no",
        -1,
        (),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [({"schema": 1}, "schema 1"), ({"extra": 1}, "extra"), ({"goal": None, "schema": 0}, "schema")],
)
def test_a_line_of_another_schema_is_rejected(change, message):
    with pytest.raises(ConfigError, match=message):
        EpisodeRecord.from_object(json.loads(record().to_json()) | change)


def test_a_file_cut_at_any_byte_loses_only_the_unfinished_line(tmp_path):
    path = tmp_path / "episodes.jsonl"
    lines = [dumps({"n": n, "text": "é"}) for n in range(3)]
    whole = "".join(line + "\n" for line in lines).encode()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = whole[:cut].count(b"\n")
        assert [found["n"] for found in read_objects(path)] == list(range(complete))
        append_line(path, dumps({"n": 9}))
        assert [found["n"] for found in read_objects(path)] == [*range(complete), 9]


def test_a_corrupt_line_in_the_middle_is_reported_by_number(tmp_path):
    path = tmp_path / "episodes.jsonl"
    append(path, record())
    append_line(path, '{"schema": 1,')
    append(path, record())
    with pytest.raises(ConfigError, match=r"episodes\.jsonl, line 2: not JSON"):
        read_episodes(path)


def test_episodes_are_read_in_the_order_written_and_header_lines_are_skipped(tmp_path):
    path = tmp_path / "deep" / "episodes.jsonl"
    append_line(path, dumps({"header": {}}))
    for sample in (2, 0, 1):
        append(path, record(sample))
    assert [found.sample for found in read_episodes(path)] == [2, 0, 1]


@pytest.mark.parametrize("name", ["killed.jsonl", "killed.jsonl.zst"])
def test_a_file_of_a_killed_writer_can_be_read_and_continued(tmp_path, name):
    path = tmp_path / name
    code = (
        "import os, sys; from pathlib import Path; from agentgym.utils.jsonl import append_line\n"
        "noise = os.urandom(50_000).hex()\n"
        "while True: append_line(Path(sys.argv[1]), '{\"text\": \"' + noise + '\"}')"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size > 2_000_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    count = len(list(read_objects(path)))
    append_line(path, dumps({"n": 1}))
    assert count >= 20
    assert len(list(read_objects(path))) == count + 1


def test_a_compressed_file_cut_at_any_byte_loses_only_the_unfinished_line(tmp_path):
    path = tmp_path / "episodes.jsonl.zst"
    for n in range(3):
        append_line(path, dumps({"n": n, "text": "é" * 50}))
    whole = path.read_bytes()
    seen = set()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        left = [found["n"] for found in read_objects(path)]
        append_line(path, dumps({"n": 9}))
        assert left == list(range(len(left)))
        assert [found["n"] for found in read_objects(path)] == [*left, 9]
        seen.add(len(left))
    assert seen == {0, 1, 2, 3}


def test_a_compressed_file_of_another_tool_is_read_and_continued(tmp_path):
    path = tmp_path / "whole.jsonl.zst"
    path.write_bytes(zstd_lines.library().compress(b'{"n":1}\n{"n":2}\n'))
    append_line(path, '{"n":3}')
    append_line(path, '{"n":4}')
    assert [found["n"] for found in read_objects(path)] == [1, 2, 3, 4]


def test_damage_within_a_compressed_file_is_one_line(tmp_path):
    path = tmp_path / "episodes.jsonl.zst"
    append(path, record())
    whole = path.read_bytes()
    path.write_bytes(whole + b"not zstandard at all" + whole)
    with pytest.raises(ConfigError, match=r"zst, after line 1: the compressed data is damaged"):
        read_episodes(path)
    left_out = LeftOut()
    assert len(list(valid_episodes(path, left_out))) == 1
    assert len(left_out.lines) == 1


@pytest.mark.parametrize("name", ["episodes.jsonl", "episodes.jsonl.zst"])
def test_a_resumed_run_keeps_the_first_episodes(tmp_path, name):
    for sample in range(4):
        append(tmp_path / name, record(sample))
    truncate_episodes(tmp_path / name, 2)
    append(tmp_path / name, record(7))
    assert [each.sample for each in read_episodes(tmp_path / name)] == [0, 1, 7]


@pytest.mark.parametrize("compressed", [False, True])
def test_appended_lines_are_not_rewritten(tmp_path, compressed):
    path = tmp_path / ("episodes.jsonl.zst" if compressed else "episodes.jsonl")
    append(path, record(0))
    node, content = path.stat().st_ino, path.read_bytes()
    append(path, record(1))
    assert path.stat().st_ino == node and path.read_bytes().startswith(content)


def test_metrics_are_read_as_numbers(tmp_path):
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write(1, {"loss": np.float64(0.5), "count": 3, "gap": math.nan})
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (line["step"], line["loss"], line["count"]) == (1, 0.5, 3)
    assert math.isnan(line["gap"])
    assert '"gap":null' in (tmp_path / "metrics.jsonl").read_text()


def test_resuming_removes_the_steps_that_are_repeated(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    for step in range(1, 6):
        writer.write(step, {"loss": step / 2, "gap": math.nan})
    kept = path.read_text().splitlines()[:3]
    path.write_text(path.read_text() + '{"step": 6, "lo')
    writer = MetricsWriter(path, resume=3)
    assert path.read_text().splitlines() == kept
    writer.write(4, {"loss": 9})
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]


def test_a_second_run_does_not_mix_its_metrics_into_the_first(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsWriter(path).write(1, {"loss": 1})
    with pytest.raises(ConfigError, match="already holds 1 lines"):
        MetricsWriter(path)
    assert len(read_metrics(path)) == 1


def test_metrics_of_an_earlier_step_are_rejected(tmp_path):
    writer = MetricsWriter(tmp_path / "metrics.jsonl", resume=0)
    writer.write(5, {"loss": 1})
    writer.write(5, {"eval/score": 1})
    with pytest.raises(ValueError, match="step 4 after those of step 5"):
        writer.write(4, {"loss": 1})


def test_a_file_without_metrics_is_rejected(tmp_path):
    append(tmp_path / "episodes.jsonl", record())
    with pytest.raises(ConfigError, match="line 1: metrics are numbers"):
        read_metrics(tmp_path / "episodes.jsonl")
    append_line(tmp_path / "other.jsonl", '{"loss": 1}')
    with pytest.raises(ConfigError, match="without a step"):
        read_metrics(tmp_path / "other.jsonl")


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path, monkeypatch):
    full = Path("/dev/full")
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        append_line(full, "{}")

    def fsync(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match=r"No space left on device: '.*/report\.txt'$"):
        write_atomic(tmp_path / "report.txt", "text")
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_atomically(tmp_path):
    path = tmp_path / "new" / "config.yaml"
    write_atomic(path, "first ü")
    with path.open() as reader:
        write_atomic(path, b"second")
        assert reader.read() == "first ü"
    assert path.read_bytes() == b"second"
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "third \ud800")
    assert path.read_bytes() == b"second"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(tmp_path / "folder", "text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "new"]
    assert [p.name for p in path.parent.iterdir()] == ["config.yaml"]
