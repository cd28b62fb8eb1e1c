import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from attacks import FATAL, REFUSED
from processes import alive, below

from agentgym.errors import ConfigError, EnvError, ImpossibleValue, MissingExtra, Unconfined
from agentgym.sandbox import LAYERS, Sandbox, SandboxLimits, Status
from agentgym.sandbox.server import server
from agentgym.testing import check_environment

PATIENT = SandboxLimits(wall=20, memory=256 * 2**20, output=1000)
"""Time enough for what ends by itself, also on a busy machine."""
QUICK = SandboxLimits(wall=1, grace=0.5, memory=256 * 2**20, output=1000)
"""For what does not."""


@pytest.fixture(scope="module")
def sandbox(confined):
    return Sandbox(PATIENT)


@pytest.fixture
def session(sandbox):
    one = sandbox.session()
    yield one
    one.close()


# ---- ordinary programs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "stdout", "value"),
    [
        ("2**100", "", "1267650600228229401496703205376"),
        ("print('a', end='')\nprint('b')", "ab\n", ""),
        ("x = 3\nx", "", "3"),
        ("None", "", ""),
        ("", "", ""),
        ("# nothing", "", ""),
        ("for i in range(3): print(i)", "0\n1\n2\n", ""),
        ("def f(n):\n    return n * f(n - 1) if n else 1\nf(5)", "", "120"),
        ("import sympy\nsympy.solve('x**2 - 4')", "", "[-2, 2]"),
        ("import numpy as np\nnp.arange(4).sum().item()", "", "6"),
        ("from fractions import Fraction\nFraction(1, 3) + 1", "", "Fraction(4, 3)"),
        ("import sys; print('x', file=sys.stderr)", "x\n", ""),
        ("'é 🙂'", "", "'é 🙂'"),
        ("print('\\ud800')", "?\n", ""),
        ("import wave, xml.dom.minidom; wave.__name__", "", "'wave'"),
        ("open('a.txt', 'w').write('hi'); open('a.txt').read()", "", "'hi'"),
        ("class A: pass\nimport pickle; type(pickle.loads(pickle.dumps(A()))).__name__", "", "'A'"),
    ],
)
def test_ordinary_programs_run(sandbox, code, stdout, value):
    result = sandbox.run(code)
    assert (result.status, result.stdout, result.value) == (Status.OK, stdout, value), result.error


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("\n1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("def f():\n    raise KeyError('k')\n\nf()", "line 2: KeyError: 'k'"),
        ("import json\njson.loads('{')", "line 2: JSONDecodeError: Expecting property name"),
        ("x = (", "line 1: SyntaxError: '(' was never closed"),
        ("a\x00b", "source code string cannot contain null bytes"),
        ("'\ud800'", "UnicodeEncodeError"),
        ("exit()", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("input()", "EOFError"),
        ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E", "(its text raised"),
        ("(" * 5000, "too many nested parentheses"),
        ("-" * 90_000 + "1", ""),
        ("x" * 200_000, "200000 characters, expected at most 100000"),
    ],
)
def test_failing_program_reports_line_and_exception(session, code, error):
    result = session.run(code)
    assert result.status in (Status.ERROR, Status.MEMORY, Status.CRASHED)
    assert error in result.error and "\n" not in result.error
    assert session.run("1 + 1").value == "2"


def test_failing_program_keeps_its_printed_output(session):
    result = session.run("print('before')\n1 / 0\nprint('after')")
    assert (result.stdout, result.status) == ("before\n", Status.ERROR)


# ---- attacks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_forbidden_operations_are_blocked(session, code):
    result = session.run(code)
    assert result.status is Status.ERROR, result
    assert session.run("1 + 1").value == "2"


def test_secrets_of_the_client_are_not_visible(monkeypatch):
    """The server starts with the secret in its environment and a secret file open."""
    monkeypatch.setenv("API_TOKEN", "hunter2")
    server.cache_clear()
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        one = Sandbox(PATIENT, preload=()).session()
        found = one.run("import os; str(dict(os.environ))").value
        assert "hunter2" not in found and "HOME" not in found and "PATH" not in found
        opened = one.run(
            "import os\nfound = []\nfor fd in range(64):\n    try:\n        os.fstat(fd)\n"
            "        found.append(fd)\n    except OSError: pass\nfound"
        )
        assert opened.value == "[0, 1, 2, 3]"
        assert one.run("import os; os.getpid(), os.getppid()").value == "(1, 0)"
        one.close()
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize(("code", "status", "lost"), FATAL.values(), ids=FATAL)
def test_endless_or_uncooperative_programs_are_stopped(sandbox, code, status, lost):
    session = Sandbox(QUICK if Status.TIMEOUT in status else PATIENT).session()
    session.run("kept = 1")
    start = time.monotonic()
    result = session.run(code)
    assert result.status in status, result
    assert time.monotonic() - start < 30
    if lost is not None:
        assert result.lost is lost
        assert session.run("kept").status is (Status.ERROR if lost else Status.OK)
    session.close()
    assert sandbox.run("1 + 1").value == "2"


def test_long_output_keeps_beginning_and_end(session):
    result = session.run("for i in range(200_000): print(i)")
    assert result.status is Status.OK, result
    assert len(result.stdout) < PATIENT.output + 60
    assert result.stdout.startswith("0\n1\n2\n") and result.stdout.endswith("199998\n199999\n")
    assert "characters left out" in result.stdout
    value = session.run("'y' * 10**7").value
    assert len(value) < PATIENT.output + 60 and value.endswith("yyy'")
    error = session.run("raise ValueError('z' * 10**7)").error
    assert len(error) < PATIENT.output + 60


def test_cpu_time_of_a_session_is_bounded():
    one = Sandbox(SandboxLimits(wall=20, cpu=1), preload=()).session()
    result = one.run("while True: pass")
    assert (result.status, result.lost) == (Status.CRASHED, True)
    assert result.error == "killed after 1 s of CPU time"
    one.close()


def test_forged_reply_affects_only_its_own_program(session):
    """A reply is untrusted; a valid reply to one cell must not be accepted for the next one."""
    forged = {"number": 2, "status": "ok", "stdout": "", "value": "42", "error": "", "cpu": 0.0}
    session.run("import os, struct, json")
    result = session.run(
        f"d = json.dumps({forged!r}).encode()\nos.write(3, struct.pack('!I', len(d)) + d)\n0"
    )
    after = session.run("1 + 1")
    assert result.status is Status.GARBLED or after.status is Status.GARBLED
    assert session.run("1 + 1").value == "2"


# ---- sessions --------------------------------------------------------------------------------


def test_session_keeps_variables_and_forks_are_independent(session):
    session.run("import random\nx = [random.random()]")
    session.run("y = len(x)\nopen('f', 'w').write('kept')")
    twin = session.fork()
    session.run("x.append(1)")
    assert twin.run("len(x), y, open('f').read()").value == "(1, 1, 'kept')"
    assert twin.run("x[0]").value == session.run("x[0]").value
    assert session.run("len(x)").value == "2"
    last = twin.fork()
    twin.close()
    assert last.run("y").value == "1"
    last.close()


def test_set_order_and_random_numbers_are_deterministic():
    code = "import random, numpy\n{'a', 'b', 'c'}, random.random(), numpy.random.rand()"
    values = set()
    for _ in range(2):
        server.cache_clear()
        values.add(Sandbox(PATIENT).run(code).value)
    assert len(values) == 1


def test_sessions_do_not_see_each_other(sandbox):
    one, other = sandbox.session(), sandbox.session()
    one.run("x = 1\nopen('f', 'w').close()\nimport math; math.pi = 3")
    assert other.run("import math, os\nos.listdir('.'), math.pi > 3.1").value == "([], True)"
    assert other.run("x").status is Status.ERROR
    one.close()
    other.close()


def test_closing_a_session_ends_its_processes(sandbox):
    one = sandbox.session()
    one.run("1")
    before = below(os.getpid())
    one.close()
    deadline = time.monotonic() + 10
    while len(below(os.getpid())) > len(before) - 1:
        assert time.monotonic() < deadline, "the interpreter is left"
        time.sleep(0.01)


def test_killed_client_leaves_no_process_and_no_folder(tmp_path):
    code = (
        "from agentgym.sandbox import *\nimport time\n"
        "one = Sandbox(SandboxLimits(wall=60), preload=()).session()\none.run('1')\n"
        "print(one.layers, flush=True)\none.run('while True: pass')"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert b"seccomp" in client.stdout.readline()
    time.sleep(0.2)
    started = below(client.pid)
    assert len(started) >= 2 and len(list(tmp_path.iterdir())) == 1
    client.kill()
    client.wait()
    client.stdout.close()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in started):
        assert time.monotonic() < deadline, "a process outlived its client"
        time.sleep(0.02)
    assert not list(tmp_path.iterdir())


def test_dead_server_is_restarted(sandbox):
    sandbox.run("1")
    running = server(os.getpid(), sandbox.preload, "fork-server")
    running._process.send_signal(signal.SIGKILL)
    running._process.wait()
    assert sandbox.run("1 + 1").value == "2"


def test_missing_layer_stops_the_sandbox(session, monkeypatch):
    session.run("1")
    assert set(LAYERS) <= set(session.layers)
    with pytest.raises(ConfigError, match="got firewall, expected namespaces"):
        Sandbox(require=["firewall"])
    monkeypatch.setattr("agentgym.sandbox.server._for_nobody", lambda: False)
    with pytest.raises(ConfigError, match=r"lacks nobody \(not applied\)"):
        Sandbox(require=[*LAYERS, "nobody"]).run("1")


def test_unsupported_platforms_are_rejected(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(Unconfined, match="needs Linux on x86-64, this is linux on aarch64"):
        Sandbox().run("1")
    # Not a contract violation but a reason to skip, like a missing package.
    with pytest.raises(MissingExtra, match="needs Linux on x86-64"):
        check_environment("agentgym/PythonMath-v0")


def test_limits_out_of_range_are_rejected():
    for name in ("wall", "cpu", "memory", "output"):
        with pytest.raises(ImpossibleValue, match=name):
            SandboxLimits(**{name: 0})


def test_server_start_failure_raises_env_error(monkeypatch):
    monkeypatch.setattr("agentgym.sandbox.server._START", "raise SystemExit")
    server.cache_clear()
    with pytest.raises(EnvError, match="the sandbox does not start: its server exited at startup"):
        Sandbox(QUICK, preload=()).run("1")
    server.cache_clear()


def test_limits_and_sockets_of_the_client_are_unchanged(sandbox):
    sandbox.run("1")
    before = resource.getrlimit(resource.RLIMIT_NPROC), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        sandbox.run("1")
    after = resource.getrlimit(resource.RLIMIT_NPROC), len(os.listdir("/proc/self/fd"))
    assert before == after
