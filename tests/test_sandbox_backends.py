"""Bubblewrap and gVisor around interpreters: attacks they must block, where they are installed."""

import os
import subprocess
import sys
import time

import pytest
from attacks import FATAL, REFUSED
from processes import alive, below

from agentgym.errors import ConfigError, EnvError, Unconfined
from agentgym.sandbox import Sandbox, SandboxLimits, Status, wrappers

PATIENT = SandboxLimits(wall=20, memory=256 * 2**20, output=1000)
QUICK = SandboxLimits(wall=1, grace=0.5, memory=256 * 2**20, output=1000)
UNREFUSED = {
    "bubblewrap": set(),
    # Without Landlock the program sees the root and processes of gVisor, which are only its own.
    "gvisor": {
        "reads the home folder",
        "lists the root",
        "reads its own environment",
        "reads another's environment",
        "fills the disk with files",
    },
}
"""What is not refused, and comes to nothing."""


@pytest.fixture(scope="module", params=["bubblewrap", "gvisor"])
def backend(request):
    try:
        Sandbox(PATIENT, preload=(), backend=request.param).run("1")
    except Unconfined as lacking:
        pytest.skip(str(lacking))
    return request.param


def session(backend, limits=PATIENT):
    return Sandbox(limits, preload=(), backend=backend).session()


def test_programs_run_and_keep_variables(backend):
    one = session(backend)
    assert one.run("import sympy\nx = sympy.factorint(360)\nprint('a')").stdout == "a\n"
    assert one.run("open('f', 'w').write('hi')\nx").value == "{2: 3, 3: 2, 5: 1}"
    twin = one.fork()
    one.close()
    assert twin.run("import os\nopen('f').read(), os.listdir('.'), os.getpid()").value == (
        "('hi', ['f'], 1)"
    )
    twin.close()


def test_forbidden_operations_are_blocked(backend):
    one = session(backend)
    one.run("kept = 1")
    outcomes = {name: one.run(code) for name, code in REFUSED.items()}
    got = {name: found for name, found in outcomes.items() if found.status is not Status.ERROR}
    assert set(got) == UNREFUSED[backend], got
    assert one.run("kept").value == "1"
    one.close()


@pytest.mark.parametrize(("code", "status", "lost"), FATAL.values(), ids=FATAL)
def test_endless_or_uncooperative_programs_are_stopped(backend, code, status, lost):
    one = session(backend, QUICK if Status.TIMEOUT in status else PATIENT)
    one.run("kept = 1")
    result = one.run(code)
    assert result.status in status, result
    if lost is not None:
        assert result.lost is lost
        assert one.run("kept").status is (Status.ERROR if lost else Status.OK)
    one.close()


def test_files_and_secrets_of_the_client_are_not_visible(backend, monkeypatch, tmp_path):
    monkeypatch.setenv("API_TOKEN", "hunter2")
    one = session(backend)
    assert "hunter2" not in one.run("import os; str(dict(os.environ))").value
    opened = one.run(
        "import os\nfound = []\nfor fd in range(64):\n    try:\n        os.fstat(fd)\n"
        "        found.append(fd)\n    except OSError: pass\nfound"
    )
    assert opened.value == "[0, 1, 2, 3]"
    one.close()


def test_cpu_time_is_bounded(backend):
    one = Sandbox(SandboxLimits(wall=60, cpu=1), preload=(), backend=backend).session()
    result = one.run("while True: pass")
    assert (result.status, result.lost) == (Status.CRASHED, True), result
    one.close()


def test_killed_client_leaves_no_process_and_no_folder(backend, tmp_path):
    code = (
        "from agentgym.sandbox import *\n"
        f"one = Sandbox(SandboxLimits(wall=60), preload=(), backend={backend!r}).session()\n"
        "one.run('1')\nprint('ready', flush=True)\n"
        "one.run('import time\\nwhile True:\\n try: time.sleep(99)\\n except BaseException: 0')"
    )
    mark = {**os.environ, "TMPDIR": str(tmp_path)}
    client = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=mark)
    assert client.stdout.readline() == b"ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    started = below(client.pid)
    assert len(started) >= 3
    client.kill()
    client.wait()
    client.stdout.close()
    deadline = time.monotonic() + 30
    while left := [pid for pid in started if alive(pid)]:
        assert time.monotonic() < deadline, f"{left} outlived their client"
        time.sleep(0.02)
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline, "the folder is left"
        time.sleep(0.02)


def test_missing_backend_is_reported_by_name(monkeypatch):
    with pytest.raises(ConfigError, match="got 'docker', expected one of fork-server, bubblewrap"):
        Sandbox(backend="docker")
    wrappers.program.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unconfined, match=r"bubblewrap needs the program bwrap, .* apt-get install"):
        session("bubblewrap").run("1")
    with pytest.raises(Unconfined, match="gvisor needs the program runsc"):
        session("gvisor").run("1")


def test_backend_blocked_by_the_machine_is_reported(monkeypatch, tmp_path):
    wrappers.program.cache_clear()
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Unconfined, match="bubblewrap does not work on this machine: bwrap: No per"):
        session("bubblewrap").run("1")
    # Works in the probe and fails afterwards.
    broken.write_text("#!/bin/sh\n[ $# -lt 8 ] || { echo 'bwrap: no disk' >&2; exit 1; }\n")
    with pytest.raises(EnvError, match=r"does not start: the .* left with status 1: bwrap: no"):
        session("bubblewrap").run("1")
    wrappers.program.cache_clear()
