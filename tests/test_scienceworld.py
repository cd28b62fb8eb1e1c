"""ScienceWorld in its real simulator; one Java machine serves all of these tests."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium
import pytest

from agentgym.env.registry import world
from agentgym.errors import EnvError, MissingExtra, NotReplayable
from agentgym_envs.scienceworld import jvm, simulator, text
from agentgym_envs.scienceworld.simulator import STAGE

if jvm.missing():
    pytest.skip(jvm.missing(), allow_module_level=True)

ENV = "agentgym/ScienceWorld-v0"
PLANT, BOIL, THING = "find-plant-easy-v0", "boil-full-v0", "find-non-living-thing-full-v3"
WAITING = json.loads((Path(__file__).parent / "golden" / "core.json").read_text())["G13_wait"]
LINES = ["look around", "open door", "0", "go to kitchen", "xyzzy", "open cupboard", "inventory"]
"""Some of what may happen in the full house: a question and its answer, nonsense, free looks."""


@pytest.fixture(scope="module", autouse=True)
def machine_is_ended():
    yield
    STAGE.end()


@pytest.fixture
def begin():
    made = []

    def start(task, **kwargs):
        made.append(world(ENV, **kwargs))
        made[-1].reset(options={"task": task})
        return made[-1]

    yield start
    for env in made:
        env.close()


def play(env, lines):
    return [env.step(line) for line in lines]


@pytest.fixture(scope="module")
def undisturbed():
    """What LINES lead to when nothing else happens."""
    env = world(ENV)
    env.reset(options={"task": BOIL})
    answers = play(env, LINES)
    env.close()
    return answers


@pytest.mark.parametrize(("reward", "first"), [("outcome", 0.0), ("dense", 0.08)])
def test_the_gold_actions_win_once_and_with_full_score(begin, reward, first):
    env = begin(PLANT, reward=reward)
    steps = play(env, env.oracle())
    assert [step[4]["won"] for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1][2] and steps[-1][4]["score"] == 1.0
    assert all(step[4]["score"] < 1 for step in steps[:-1])
    # This task begins with 8 of 100 points; changes of the score add up to the rest.
    assert sum(step[1] for step in steps) == pytest.approx(1.0 - first)
    assert env.oracle() is None and env.admissible() == ()


def test_the_oracle_goes_on_after_looking_around_and_knows_when_play_has_left_it(begin):
    env = begin(PLANT)
    plan = env.oracle()
    play(env, ["look around", "xyzzy", *plan[:1], "inventory"])
    assert env.oracle() == tuple(plan[1:])
    env.step("wait1")
    assert env.oracle() is None


def test_acting_on_the_wrong_thing_loses_for_good(begin):
    env = begin(PLANT, reward="dense")
    observation, reward, terminated, _, info = env.step("focus on agent")
    for _ in range(2):
        assert terminated and not info["won"] and info["score"] == 0.0, observation
        observation, _, terminated, _, info = env.step("reset task")
    assert reward == pytest.approx(-1.08)
    assert observation == "The episode is over." and not info["action_valid"]


def test_g13_each_wait_is_eleven_moves_of_the_simulator_and_no_end(begin):
    env = begin(PLANT)
    for number in range(1, 12):
        *_, terminated, _, info = env.step("wait")
        moves = int(env.unwrapped._episode.ask("getNumMoves"))
        assert moves == WAITING.get(str(number), {}).get("moves_at_11", 11 * number)
        assert not terminated and not info["won"]


def test_resetting_the_task_never_reaches_the_simulator(begin):
    env = begin(PLANT, admissible=True)
    plan = env.oracle()
    assert not any("reset" in line for line in env.admissible())
    for line in plan[:-1]:
        *_, before = env.step(line)
        *_, info = env.step("Reset  the TASK")
        assert not info["action_valid"] and info["score"] == before["score"]
    assert env.step(plan[-1])[4]["won"]


def test_points_at_the_turn_limit_are_no_success_and_turns_are_ours():
    env = gymnasium.make(ENV, max_episode_steps=11, disable_env_checker=True)
    env.reset(options={"task": PLANT})
    # Each `wait` is 11 of the simulator's own moves, of which it allows 100.
    steps = play(env, [*["wait"] * 10, "xyzzy"])
    env.close()
    assert [step[2] for step in steps] == [False] * 11
    assert [step[3] for step in steps] == [False] * 10 + [True]
    assert 0 < steps[-1][4]["score"] < 1 and not steps[-1][4]["won"]


def test_a_step_makes_three_calls_and_the_valid_list_is_fetched_only_on_demand(begin, monkeypatch):
    env = begin(BOIL)
    called = []
    real = jvm.Machine.call

    def call(machine, handle, method, *args, **kwargs):
        called.append(method)
        return real(machine, handle, method, *args, **kwargs)

    monkeypatch.setattr(jvm.Machine, "call", call)
    env.step("look around")
    assert called == ["step", "getScore", "getCompleted"]
    env.admissible()
    assert called[3:] == ["getValidActionObjectCombinationsJSON"]
    play(env, ["", "\x00", "look\nlook", "x" * 1000, "reset task"])
    assert len(called) == 4


def test_what_is_admissible_is_sorted_and_an_open_question_takes_its_numbers(begin):
    env = begin(BOIL)
    commands = env.admissible()
    assert list(commands) == sorted(set(commands)) and len(commands) > 100
    observation, *_, info = env.step("open door")
    numbers = env.admissible()
    assert info["action_valid"] and set(numbers) == set(text.choices(observation)) and numbers
    assert env.step(numbers[0])[0] == "The door is now open."
    assert not env.step("xyzzy")[4]["action_valid"]


def test_full_observations_add_the_room_and_what_is_carried(begin):
    env = begin(BOIL, observation="full")
    observation = env.step("open door to kitchen")[0]
    assert observation.startswith("The door is now open.\nThis room is called the hallway.")
    assert "(that is open)" in observation and "In your inventory" in observation


def test_episodes_in_threads_go_as_they_do_alone(begin, undisturbed):
    envs = [begin(BOIL) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(play, envs, [LINES] * 6)) == [undisturbed] * 6


def test_another_process_answers_the_same(undisturbed):
    code = (
        "import sys, hashlib\nfrom agentgym.env.registry import world\n"
        f"env = world({ENV!r})\nenv.reset(options={{'task': {BOIL!r}}})\n"
        f"for line in {LINES!r}: sys.stdout.write(env.step(line)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(step[0] for step in undisturbed)
    assert done.stderr == ""


def test_a_fork_goes_on_like_the_original_and_leaves_it_alone(begin, undisturbed):
    env = begin(BOIL)
    play(env, LINES[:3])
    fork = env.fork()
    play(fork, ["go to kitchen", "close cupboard", "wait"])
    again = env.fork()
    assert play(env, LINES[3:]) == undisturbed[3:]
    env.close()
    assert play(again, LINES[3:]) == undisturbed[3:]
    fork.close()
    again.close()


def test_a_replay_that_differs_is_noticed(begin):
    env = begin(BOIL)
    play(env, LINES[:3])
    line, reply = env._episode.said[2]
    seats = len(STAGE._seated)
    for other in (reply._replace(text="A different question."), reply._replace(points=3)):
        env._episode.said[2] = (line, other)
        with pytest.raises(NotReplayable, match="boil-full-v0: line 2, 'open door'"):
            env.fork()
    assert len(STAGE._seated) == seats


def wait_for_the_end_of(pid):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if STAGE.machine is None or STAGE.machine.pid != pid or not STAGE.machine.alive:
            return
        time.sleep(0.01)
    raise AssertionError(f"Java machine {pid} is still there")


def test_a_machine_killed_between_steps_loses_no_episode(begin, undisturbed):
    envs = [begin(BOIL), begin(BOIL)]
    for env in envs:
        play(env, LINES[:4])
    pid = STAGE.machine.pid
    os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(pid)
    for env in envs:
        assert play(env, LINES[4:]) == undisturbed[4:]
    assert STAGE.machine.pid != pid


def stop(pid):
    """Stop a process and wait until all its threads did: on a busy computer one still answers."""
    os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    while any((t / "stat").read_text().rpartition(")")[2].split()[0] != "T" for t in threads):
        time.sleep(0.01)


def test_a_machine_killed_in_a_step_costs_that_step_only(begin, undisturbed):
    hit, bystander = begin(BOIL), begin(BOIL)
    for env in (hit, bystander):
        play(env, LINES[:4])
    pid = STAGE.machine.pid
    # Stopped first, so that the step is surely in progress.
    stop(pid)
    killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(EnvError, match="ended during a call") as problem:
        hit.step(LINES[4])
    killer.join()
    assert "\n" not in str(problem.value)
    assert play(bystander, LINES[4:]) == undisturbed[4:]
    assert play(hit, LINES[4:]) == undisturbed[4:]
    hit.reset(options={"task": BOIL})
    assert play(hit, LINES) == undisturbed


def test_a_machine_that_hangs_is_noticed_in_time_and_replaced(begin, undisturbed):
    hit, bystander = begin(BOIL), begin(BOIL)
    play(hit, LINES[:2])
    play(bystander, LINES[:4])
    pid = STAGE.machine.pid
    assert hit._episode._simulator.patience == jvm.PATIENCE
    hit._episode._simulator.patience = 2.0  # only now: a busy computer may take longer to load
    stop(pid)
    start = time.monotonic()
    with pytest.raises(EnvError, match="did not answer within 2 s and was killed"):
        hit.step(LINES[2])
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert play(bystander, LINES[4:]) == undisturbed[4:]
    assert play(hit, LINES[2:]) == undisturbed[2:]


@pytest.fixture
def interruptible():
    """A shell starts what runs in its background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_call_does_not_shift_the_answers(begin, undisturbed):
    env = begin(BOIL)
    play(env, LINES[:4])
    stop(STAGE.machine.pid)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        env.step(LINES[4])
    assert play(env, LINES[4:]) == undisturbed[4:]


def test_more_episodes_than_seats_take_turns(begin, undisturbed, monkeypatch):
    monkeypatch.setattr(simulator, "SEATS", 2)
    envs = [begin(BOIL) for _ in range(3)]
    steps = [[env.step(line) for env in envs] for line in LINES]
    assert [list(column) for column in zip(*steps, strict=True)] == [undisturbed] * 3
    assert len(STAGE._seated) <= 2


@pytest.mark.parametrize(("name", "value"), [("LOADS", 1), ("LIMIT_MB", 10)])
def test_a_machine_that_is_worn_or_too_big_is_replaced(
    begin, undisturbed, monkeypatch, name, value
):
    env = begin(BOIL)
    play(env, LINES[:4])
    pid = STAGE.machine.pid
    with monkeypatch.context() as patch:
        patch.setattr(simulator, name, value)
        begin(THING)
        assert STAGE.machine.pid != pid
    assert play(env, LINES[4:]) == undisturbed[4:]


def test_closed_episodes_leave_no_simulator_behind(begin):
    env = begin(THING)
    seats = len(STAGE._seated)
    for _ in range(20):
        env.reset(options={"task": THING})
        env.fork().close()
    env.oracle()
    assert len(STAGE._seated) == seats


def test_an_error_of_the_simulator_is_one_line_and_spares_the_machine(begin, undisturbed):
    env = begin(BOIL)
    play(env, LINES[:4])
    pid = STAGE.machine.pid
    with pytest.raises(EnvError, match=r"the simulator failed: .*noSuchMethod") as problem:
        env._episode.ask("noSuchMethod")
    assert "\n" not in str(problem.value)
    assert play(env, LINES[4:]) == undisturbed[4:]
    assert STAGE.machine.pid == pid


def test_a_forked_process_gets_a_machine_of_its_own(begin, undisturbed):
    env = begin(BOIL)
    play(env, LINES[:4])
    pid = STAGE.machine.pid
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child():
        theirs.send((play(env, LINES[4:]), STAGE.machine.pid))
        STAGE.end()

    process = context.Process(target=child)
    process.start()
    try:
        assert ours.poll(200), "the child does not answer"
        answers, other = ours.recv()
    finally:
        process.kill()
        process.join()
    assert answers == undisturbed[4:] and other != pid
    assert play(env, LINES[4:]) == undisturbed[4:]
    assert STAGE.machine.pid == pid


def test_the_machine_ends_with_a_killed_process():
    code = (
        "import time\nfrom agentgym.env.registry import world\n"
        f"from agentgym_envs.scienceworld.simulator import STAGE\nworld({ENV!r}).reset()\n"
        "print(STAGE.machine.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 20
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.02)
        raise AssertionError("Java is still there")


def test_without_java_reset_says_how_to_get_it(monkeypatch, tmp_path):
    STAGE.end()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingExtra, match="apt-get install default-jre-headless"):
        world(ENV).reset()


def test_nothing_is_left_in_the_folder_where_play_began(tmp_path):
    code = "from agentgym import make; make('agentgym/ScienceWorld-v0').reset(seed=0)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert not list(tmp_path.iterdir())
