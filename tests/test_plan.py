"""``agentgym plan``: the laws, the figures that they give, the table."""

import contextlib
import re
from dataclasses import replace

import pytest

from agentgym.cli import main
from agentgym.errors import ConfigError, ImpossibleValue
from agentgym.planning.clock import run_virtually
from agentgym.planning.engines import SimulatedEngine
from agentgym.planning.laws import GPUS, MODELS, STEP_SECONDS, Laws, gpu_named, model_size
from agentgym.planning.plan import Wish, make_plan
from agentgym.planning.simulate import Placement, Training, simulate
from agentgym.planning.workload import Workload
from agentgym.settings import ScheduleSettings

LAWS = Laws(MODELS["7B"], GPUS["H100"])
SMALL = ["--tasks-per-step", "4", "--workload.turns", "3"]


def finished(*requests, pause=None):
    """When each request ends: (start, context, new, tokens)."""

    async def play(events):
        engine, ends = SimulatedEngine(events, LAWS), {}

        def ask(number, context, new, tokens):
            engine.generate(context, new, tokens, lambda: ends.update({number: events.now}))

        for number, (start, *request) in enumerate(requests):
            events.at(start, lambda number=number, request=request: ask(number, *request))
        if pause is not None:
            events.at(pause[0], lambda: engine.pause(pause[1]))
        while len(ends) < len(requests):
            events.pass_time(events.now + 1.0)
        return [ends[number] for number in range(len(requests))]

    return run_virtually(play)


def test_a_lone_request_takes_its_prefill_and_its_decoding_steps():
    step = STEP_SECONDS + (15.24e9 + 1050 * 57_344) / (0.75 * 3.35e12)
    assert LAWS.decoding_step(1050) == pytest.approx(step)
    read = 2 * 7.62e9 * 1000 / (0.5 * 989e12)
    assert finished((0.0, 1000, 1000, 100)) == pytest.approx([read + 100 * step])


def test_requests_share_decoding_steps_and_wait_for_prompts():
    one = finished((0.0, 1000, 0, 100))[0]
    # As many steps as the longest needs, each a little longer for the other's cache.
    step = LAWS.decoding_step(2 * 1050)
    assert finished((0.0, 1000, 0, 100), (0.0, 1000, 0, 100)) == pytest.approx([100 * step] * 2)
    assert one < 100 * step < 1.01 * one
    late = finished((0.0, 1000, 0, 100), (one / 2, 5000, 5000, 1))
    assert late[0] - one == pytest.approx(LAWS.prefill(5000), rel=0.05)


def test_a_pause_moves_the_rest():
    plain = finished((0.0, 1000, 0, 100))[0]
    assert finished((0.0, 1000, 0, 100), pause=(plain / 2, 3.0)) == pytest.approx([plain + 3.0])


PUBLISHED = {
    # schedule, engines, trainers, tasks: episodes/h, turns/s, share of the time that it learns
    ("sync", 0, 8, 8, 64): (11_700, 92, 0.44),
    ("async", 1, 3, 5, 64): (15_500, 120, 0.92),
    ("async", 2, 3, 5, 64): (16_700, 130, 1.00),
}


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: f"{case[0]}{case[1]}")
def test_the_figures_of_an_earlier_cost_model_are_reproduced(case):
    """That one had a coarser law of engines: within 5 %."""
    kind, staleness, engines, trainers, tasks = case
    placement = Placement(
        schedule=ScheduleSettings(kind=kind, max_staleness=staleness),
        engines=engines,
        trainers=trainers,
        shared=kind == "sync",
    )
    found = simulate(Training(laws=LAWS, workload=Workload(), tasks_per_step=tasks), placement)
    figures = found.episodes_per_hour, found.turns_per_second, found.learning
    assert figures == pytest.approx(PUBLISHED[case], rel=0.05)


def wish(**changes):
    made = Wish(
        model="7B",
        gpus=8,
        gpu="H100",
        lora=False,
        steps=100,
        group_size=8,
        tasks_per_step=16,
        workload=Workload(turns=6),
    )
    return replace(made, **changes)


def test_the_split_follows_what_is_slow():
    usual = make_plan(wish()).best
    assert not usual.placement.shared and usual.placement.gpus == 8
    writes = make_plan(wish(workload=Workload(turns=6, written_tokens=400, read_tokens=1))).best
    reads = make_plan(wish(workload=Workload(turns=6, written_tokens=20, read_tokens=800))).best
    assert reads.placement.engines < writes.placement.engines


def test_what_limits_a_run_is_named():
    slow = Workload(turns=6, env_seconds=20.0)
    assert {row.limit for row in make_plan(wish(workload=slow)).rows} == {"environments"}
    few = Workload(turns=6, written_tokens=10, read_tokens=2000)
    split = [row for row in make_plan(wish(workload=few)).rows if not row.placement.shared]
    assert "trainer" in {row.limit for row in split}


def test_adapters_fit_one_gpu_and_are_published_at_once():
    lora = wish(gpus=1, lora=True)
    assert [row.placement.shared for row in make_plan(lora).rows] == [True]
    assert lora.laws.publish() < 0.05 < wish().laws.publish()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "9B"], "model is '9B'."),
        (["--model", "seven"], "Known: 0.5B, 1.5B"),
        (["--gpu", "H10"], "gpu is 'H10'. Did you mean 'H100'?"),
        (["--gpus", "0"], "gpus is 0, expected at least 1"),
        (["--gpus", "-3"], "gpus is -3, expected at least 1"),
        (["--gpus", "1"], "expected at least 3 H100 to train 7B, or train adapters (`--lora`)"),
        (["--model", "72B"], "an engine for 72B needs more memory than one H100 has"),
        (["--steps", "0"], "steps is 0, expected at least 1"),
        (["--group-size", "1"], "group_size is 1, expected at least 2"),
        (["--tasks-per-step", "0"], "tasks_per_step is 0, expected at least 1"),
        (["--workload.turns", "0"], "turns is 0, expected at least 1"),
        (["--workload.slow-share", "2"], "slow_share is 2.0, expected 0 to 1"),
        (["--workload.env-seconds", "nan"], "env_seconds is nan"),
        (["--price", "-1"], "price is -1.0, expected at least 0"),
        (["--gpuz", "3"], "--gpuz"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys):
    assert main(["plan", *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and len(printed.err.splitlines()) == 1 and not printed.out


def test_the_table_of_the_command_line(capsys):
    assert main(["plan", "--gpus", "4", "--price", "2.5", "--steps", "100", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "7B on 4 H100, 100 steps of 4 tasks x 8 episodes" in printed
    rows = [line for line in printed.splitlines() if re.match(r" *(sync|async|one-step-off)", line)]
    assert len(rows) >= 4 and sum(" * " in row for row in rows) == 1
    assert re.search(r"--schedule.kind \w+", printed) and "--rollout.concurrency" in printed
    assert "cost" in printed and "3 tokens" not in printed


@pytest.mark.parametrize("adapters", [[], ["--lora"]])
def test_the_advice_consists_of_options_of_train(adapters, capsys):
    assert main(["plan", "--model", "0.5B", "--gpus", "2", *SMALL, *adapters]) == 0
    advice = capsys.readouterr().out.partition("most episodes an hour: ")[2].partition("\n\n")[0]
    words = advice.split()
    words = words[: next((k for k, w in enumerate(words) if w == "Assumed:"), len(words))]
    flags = [word for word in words if word.startswith("--")]
    assert "--algo.group-size" in flags
    with contextlib.suppress(SystemExit):
        main(["train", "grpo", "--help"])
    known = set(re.findall(r"--[a-z][a-z.-]*", capsys.readouterr().out))
    assert set(flags) <= known


def test_names_are_found_in_any_case():
    assert model_size("7b") is MODELS["7B"] and gpu_named("h100") is GPUS["H100"]
    with pytest.raises(ConfigError):
        model_size("")
    with pytest.raises(ImpossibleValue):
        Workload(slow_share=-0.1)
