"""ScienceWorld in its own simulator; one Java process serves all of these tests."""

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
from agentgym_envs.scienceworld import jvm, simulator, tasks, text
from agentgym_envs.scienceworld.episode import gold_actions
from agentgym_envs.scienceworld.simulator import SIMULATORS

if jvm.missing():
    pytest.skip(jvm.missing(), allow_module_level=True)

ENV = "agentgym/ScienceWorld-v0"
PLANT, BOIL, THING = "find-plant-easy-v0", "boil-full-v0", "find-non-living-thing-full-v3"
WAITING = json.loads((Path(__file__).parent / "golden" / "core.json").read_text())["G13_wait"]
COMMANDS = ["look around", "open door", "0", "go to kitchen", "xyzzy", "open cupboard", "inventory"]
"""Samples of what may happen in a task without simplifications: a question, nonsense, looks."""


@pytest.fixture(scope="module", autouse=True)
def java_is_shut_down():
    yield
    SIMULATORS.shut_down()


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


def play(env, commands):
    return [env.step(command) for command in commands]


@pytest.fixture(scope="module")
def undisturbed():
    """The observations for COMMANDS without other activity."""
    env = world(ENV)
    env.reset(options={"task": BOIL})
    answers = play(env, COMMANDS)
    env.close()
    return answers


@pytest.mark.parametrize(("reward", "first"), [("outcome", 0.0), ("dense", 0.08)])
def test_the_oracle_wins_with_its_last_action_and_full_score(begin, reward, first):
    env = begin(PLANT, reward=reward)
    steps = play(env, env.oracle())
    assert [step[4]["won"] for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1][2] and steps[-1][4]["score"] == 1.0
    assert all(step[4]["score"] < 1 for step in steps[:-1])
    # This task starts with 8 of 100 points; the rewards add up to the rest.
    assert sum(step[1] for step in steps) == pytest.approx(1.0 - first)
    assert env.oracle() is None and env.admissible() == ()


def test_the_oracle_continues_after_free_actions_and_returns_none_off_its_path(begin):
    env = begin(PLANT)
    plan = env.oracle()
    play(env, ["look around", "xyzzy", *plan[:1], "inventory"])
    assert env.oracle() == tuple(plan[1:])
    env.step("wait1")
    assert env.oracle() is None


def test_focusing_on_the_wrong_object_ends_the_episode_as_lost(begin):
    env = begin(PLANT, reward="dense")
    observation, reward, terminated, _, info = env.step("focus on agent")
    for _ in range(2):
        assert terminated and not info["won"] and info["score"] == 0.0, observation
        observation, _, terminated, _, info = env.step("reset task")
    assert reward == pytest.approx(-1.08)
    assert observation == "The episode is over." and not info["action_valid"]


def test_each_wait_counts_eleven_simulator_moves_and_does_not_end_the_episode(begin):
    env = begin(PLANT)
    for number in range(1, 12):
        *_, terminated, _, info = env.step("wait")
        moves = int(env.unwrapped._episode.query("getNumMoves"))
        assert moves == WAITING.get(str(number), {}).get("moves_at_11", 11 * number)
        assert not terminated and not info["won"]


def test_reset_commands_never_reach_the_simulator(begin):
    env = begin(PLANT, admissible=True)
    plan = env.oracle()
    assert not any("reset" in line for line in env.admissible())
    for line in plan[:-1]:
        *_, before = env.step(line)
        *_, info = env.step("Reset  the TASK")
        assert not info["action_valid"] and info["score"] == before["score"]
    assert env.step(plan[-1])[4]["won"]


def test_the_turn_limit_truncates_without_success_and_counts_turns_not_moves():
    env = gymnasium.make(ENV, max_episode_steps=11, disable_env_checker=True)
    env.reset(options={"task": PLANT})
    # Each `wait` counts as 11 of the 100 moves that the simulator allows.
    steps = play(env, [*["wait"] * 10, "xyzzy"])
    env.close()
    assert [step[2] for step in steps] == [False] * 11
    assert [step[3] for step in steps] == [False] * 10 + [True]
    assert 0 < steps[-1][4]["score"] < 1 and not steps[-1][4]["won"]


def test_the_valid_actions_are_computed_only_on_demand(begin, monkeypatch):
    env = begin(BOIL)
    called = []
    real = jvm.Jvm.call

    def call(machine, handle, method, *args, **kwargs):
        called.append(method)
        return real(machine, handle, method, *args, **kwargs)

    monkeypatch.setattr(jvm.Jvm, "call", call)
    env.step("look around")
    assert called.count("step") == 1 and "getValidActionObjectCombinations" not in called
    for _ in range(2):
        env.admissible()
        assert called.count("getValidActionObjectCombinations") == 1
    before = len(called)
    play(env, ["", "\x00", "look\nlook", "x" * 1000, "reset task"])
    assert len(called) == before


def test_admissible_actions_are_sorted_and_an_ambiguity_question_admits_its_numbers(begin):
    env = begin(BOIL)
    commands = env.admissible()
    assert list(commands) == sorted(set(commands)) and len(commands) > 100
    observation, *_, info = env.step("open door")
    numbers = env.admissible()
    assert info["action_valid"] and set(numbers) == set(text.choices(observation)) and numbers
    assert env.step(numbers[0])[0] == "The door is now open."
    assert not env.step("xyzzy")[4]["action_valid"]


def test_full_observations_add_the_room_and_the_inventory(begin):
    env = begin(BOIL, observation="full")
    observation = env.step("open door to kitchen")[0]
    assert observation.startswith("The door is now open.\nThis room is called the hallway.")
    assert "(that is open)" in observation and "In your inventory" in observation


def test_episodes_in_threads_equal_an_episode_alone(begin, undisturbed):
    envs = [begin(BOIL) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(play, envs, [COMMANDS] * 6)) == [undisturbed] * 6


def test_another_process_gives_the_same_observations(undisturbed):
    code = (
        "import sys, hashlib\nfrom agentgym.env.registry import world\n"
        f"env = world({ENV!r})\nenv.reset(options={{'task': {BOIL!r}}})\n"
        f"for line in {COMMANDS!r}: sys.stdout.write(env.step(line)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(step[0] for step in undisturbed)
    assert done.stderr == ""


def test_a_fork_continues_like_the_original_and_does_not_change_it(begin, undisturbed):
    env = begin(BOIL)
    play(env, COMMANDS[:3])
    fork = env.fork()
    play(fork, ["go to kitchen", "close cupboard", "wait"])
    again = env.fork()
    assert play(env, COMMANDS[3:]) == undisturbed[3:]
    env.close()
    assert play(again, COMMANDS[3:]) == undisturbed[3:]
    fork.close()
    again.close()


MELT = "melt-full-v25"
LONG = json.loads(
    (Path(__file__).parent / "golden" / "scienceworld_melt_full_v25.json").read_text()
)
"""A walk of 180 commands past bees and mixed paint, random but seeded."""


@pytest.fixture(scope="module")
def long_walk():
    env = world(ENV)
    env.reset(options={"task": MELT})
    answers = play(env, LONG)
    env.close()
    return answers


@pytest.mark.parametrize("cut", [0, 50, 150])
def test_a_fork_of_a_long_episode_and_its_original_equal_an_unforked_one(begin, long_walk, cut):
    env = begin(MELT)
    play(env, LONG[:cut])
    fork = env.fork()
    pairs = [(fork.step(command), env.step(command)) for command in LONG[cut:]]
    assert pairs == [(answer, answer) for answer in long_walk[cut:]]
    fork.close()


def test_queries_and_other_tasks_do_not_change_a_long_episode(begin, long_walk):
    env, twin, beside = begin(MELT), begin(MELT), begin("power-component-easy-v2")
    for number, (command, expected) in enumerate(zip(LONG, long_walk, strict=True)):
        assert env.step(command) == twin.step(command) == expected
        beside.step("wait1")
        if number % 30 == 20:
            env.oracle()
            beside.admissible()
            listed = env.admissible()
            env._episode._valid_actions = None  # computed again
            assert env.admissible() == listed == twin.admissible()


def test_simplifications_of_another_task_do_not_reach_an_episode(begin):
    wired, plain = begin("power-component-easy-v2"), begin("melt-easy-v3")

    def connects(env):
        env._episode._valid_actions = None
        return any(action.startswith("connect ") for action in env.admissible())

    for _ in range(2):
        assert connects(wired) and not connects(plain)
        play(wired, ["look around"])


def test_gold_actions_do_not_depend_on_the_tasks_searched_before():
    task = tasks.parse("find-plant-easy-v1")
    found = gold_actions(task)
    for other in ("find-animal-easy-v7", "boil-easy-v3"):
        gold_actions(tasks.parse(other))
    gold_actions.cache_clear()
    assert gold_actions(task) == found


def test_a_replay_that_differs_raises_not_replayable(begin):
    env = begin(BOIL)
    play(env, COMMANDS[:3])
    command, reply = env._episode.history[2]
    held = len(SIMULATORS._held)
    for other in (reply._replace(text="A different question."), reply._replace(points=3)):
        env._episode.history[2] = (command, other)
        with pytest.raises(
            NotReplayable, match="boil-full-v0: the answer to command 2, 'open door'"
        ):
            env.fork()
    assert len(SIMULATORS._held) == held


def wait_for_the_end_of(pid):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if SIMULATORS.jvm is None or SIMULATORS.jvm.pid != pid or not SIMULATORS.jvm.alive:
            return
        time.sleep(0.01)
    raise AssertionError(f"Java process {pid} is still running")


def test_java_killed_between_steps_loses_no_episode(begin, undisturbed):
    envs = [begin(BOIL), begin(BOIL)]
    for env in envs:
        play(env, COMMANDS[:4])
    pid = SIMULATORS.jvm.pid
    os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(pid)
    for env in envs:
        assert play(env, COMMANDS[4:]) == undisturbed[4:]
    assert SIMULATORS.jvm.pid != pid


def stop(pid):
    """Stop a process and wait for all of its threads: on a busy machine one may still respond."""
    os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    while any((t / "stat").read_text().rpartition(")")[2].split()[0] != "T" for t in threads):
        time.sleep(0.01)


def test_java_killed_in_a_step_costs_only_that_step(begin, undisturbed):
    hit, bystander = begin(BOIL), begin(BOIL)
    for env in (hit, bystander):
        play(env, COMMANDS[:4])
    pid = SIMULATORS.jvm.pid
    # Stopped first, so that the step is certainly in progress.
    stop(pid)
    killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(EnvError, match="ended during a call") as problem:
        hit.step(COMMANDS[4])
    killer.join()
    assert "\n" not in str(problem.value)
    assert play(bystander, COMMANDS[4:]) == undisturbed[4:]
    assert play(hit, COMMANDS[4:]) == undisturbed[4:]
    hit.reset(options={"task": BOIL})
    assert play(hit, COMMANDS) == undisturbed


def test_a_hung_java_process_times_out_and_is_replaced(begin, undisturbed):
    hit, bystander = begin(BOIL), begin(BOIL)
    play(hit, COMMANDS[:2])
    play(bystander, COMMANDS[:4])
    pid = SIMULATORS.jvm.pid
    assert hit._episode._simulator.timeout == jvm.TIMEOUT
    hit._episode._simulator.timeout = 2.0  # only now: a busy machine may take longer to load
    stop(pid)
    start = time.monotonic()
    with pytest.raises(EnvError, match="did not answer within 2 s and was killed"):
        hit.step(COMMANDS[2])
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert play(bystander, COMMANDS[4:]) == undisturbed[4:]
    assert play(hit, COMMANDS[2:]) == undisturbed[2:]


@pytest.fixture
def interruptible():
    """Background jobs of a shell ignore Ctrl-C unless the signal handler is reset."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_call_does_not_shift_later_answers(begin, undisturbed):
    env = begin(BOIL)
    play(env, COMMANDS[:4])
    stop(SIMULATORS.jvm.pid)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        env.step(COMMANDS[4])
    assert play(env, COMMANDS[4:]) == undisturbed[4:]


def test_more_episodes_than_simulators_take_turns(begin, undisturbed, monkeypatch):
    monkeypatch.setattr(simulator, "CAPACITY", 2)
    envs = [begin(BOIL) for _ in range(3)]
    steps = [[env.step(line) for env in envs] for line in COMMANDS]
    assert [list(column) for column in zip(*steps, strict=True)] == [undisturbed] * 3
    assert len(SIMULATORS._held) <= 2


@pytest.mark.parametrize(("name", "value"), [("MAX_LOADS", 1), ("MAX_RESIDENT_MB", 10)])
def test_java_is_replaced_after_many_loads_or_when_it_is_too_large(
    begin, undisturbed, monkeypatch, name, value
):
    env = begin(BOIL)
    play(env, COMMANDS[:4])
    pid = SIMULATORS.jvm.pid
    with monkeypatch.context() as patch:
        patch.setattr(simulator, name, value)
        begin(THING)
        assert SIMULATORS.jvm.pid != pid
    assert play(env, COMMANDS[4:]) == undisturbed[4:]


def test_closed_episodes_release_their_simulators(begin):
    env = begin(THING)
    held = len(SIMULATORS._held)
    for _ in range(20):
        env.reset(options={"task": THING})
        env.fork().close()
    env.oracle()
    assert len(SIMULATORS._held) == held


def test_an_error_of_the_simulator_is_one_line_and_java_survives_it(begin, undisturbed):
    env = begin(BOIL)
    play(env, COMMANDS[:4])
    pid = SIMULATORS.jvm.pid
    with pytest.raises(EnvError, match=r"the simulator failed: .*noSuchMethod") as problem:
        env._episode.query("noSuchMethod")
    assert "\n" not in str(problem.value)
    assert play(env, COMMANDS[4:]) == undisturbed[4:]
    assert SIMULATORS.jvm.pid == pid


def test_a_forked_process_starts_its_own_java(begin, undisturbed):
    env = begin(BOIL)
    play(env, COMMANDS[:4])
    pid = SIMULATORS.jvm.pid
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child():
        theirs.send((play(env, COMMANDS[4:]), SIMULATORS.jvm.pid))
        SIMULATORS.shut_down()

    process = context.Process(target=child)
    process.start()
    try:
        assert ours.poll(200), "the child does not answer"
        answers, other = ours.recv()
    finally:
        process.kill()
        process.join()
    assert answers == undisturbed[4:] and other != pid
    assert play(env, COMMANDS[4:]) == undisturbed[4:]
    assert SIMULATORS.jvm.pid == pid


def test_java_exits_when_its_parent_is_killed():
    code = (
        "import time\nfrom agentgym.env.registry import world\n"
        f"from agentgym_envs.scienceworld.simulator import SIMULATORS\nworld({ENV!r}).reset()\n"
        "print(SIMULATORS.jvm.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 20
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.02)
        raise AssertionError("Java is still running")


def test_without_java_reset_explains_how_to_install_it(monkeypatch, tmp_path):
    SIMULATORS.shut_down()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingExtra, match="apt-get install default-jre-headless"):
        world(ENV).reset()


def test_episodes_leave_no_files_in_the_working_directory(tmp_path):
    code = "from agentgym import make; make('agentgym/ScienceWorld-v0').reset(seed=0)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert not list(tmp_path.iterdir())


def test_java_obeys_only_who_has_the_token():
    """A caller can run anything as this user."""
    from py4j.java_gateway import GatewayConnection, GatewayParameters
    from py4j.protocol import Py4JAuthenticationError, Py4JNetworkError

    process, gateway = jvm._launch()
    try:
        for token in (None, "wrong"):
            stranger = GatewayConnection(GatewayParameters(port=gateway.port, auth_token=token))
            with pytest.raises((Py4JAuthenticationError, Py4JNetworkError)):
                stranger.start()
                if stranger.send_command(ASK_TIME)[:2] != "yL":
                    raise Py4JAuthenticationError("refused")
        friend = jvm._connect(gateway)
        assert friend.send_command(ASK_TIME).startswith("yL")
        friend.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


ASK_TIME = "c\nz:java.lang.System\ncurrentTimeMillis\ne\n"
