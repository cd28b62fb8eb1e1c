"""The browser's process and the pipe to it (Chrome DevTools Protocol)."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from contextlib import suppress
from typing import Any

from agentgym.errors import EnvError, MissingExtra

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VARIABLES = ("AGENTGYM_CHROMIUM", "MINIWOB_CHROME_BINARY")
"""Environment variables that name the program."""
ANSWER = 30.0
"""Seconds after which a call that has no answer counts as hanging."""

FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    "--remote-debugging-pipe",
)

Event = Callable[[str, dict[str, Any]], None]
"""Called with the name and the parameters of an event, in the reader's thread."""


def find_chromium() -> str:
    """The program.

    Raises:
        MissingExtra: None is installed.
    """
    named = (os.environ.get(variable) for variable in VARIABLES)
    for program in (*filter(None, named), *NAMES):
        if found := shutil.which(program):
            return found
    raise MissingExtra(
        "no Chromium found: install it (Debian: apt-get install chromium), or name the program in "
        f"{VARIABLES[0]}"
    )


class Browser:
    """A running Chromium; dead ones are replaced by ``shared_browser``.

    Args:
        hosts: Hosts that pages may reach besides loopback, such as ``("example.org",)``.

    Raises:
        MissingExtra: Chromium is not installed.
    """

    def __init__(self, hosts: tuple[str, ...] = ()) -> None:
        self.hosts = hosts
        self._profile = tempfile.TemporaryDirectory(
            prefix="agentgym-browser-", ignore_cleanup_errors=True
        )
        self._process, self._send_to, receive_from = _started(self._profile.name, hosts)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._number = 0
        self._listeners: dict[str, Event] = {}
        self.alive = True
        threading.Thread(target=self._read, args=(receive_from,), daemon=True).start()
        self.call("Browser.setDownloadBehavior", {"behavior": "deny"})

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def call(
        self,
        method: str,
        parameters: dict[str, Any] | None = None,
        session: str | None = None,
        *,
        limit: float = ANSWER,
    ) -> dict[str, Any]:
        """The result of a method.

        Raises:
            EnvError: The browser refuses, has died, or does not answer within the limit, in
                seconds; scripts of the page that still run are ended.
        """
        [found] = self.calls(method, [parameters or {}], session, limit=limit)
        return found

    def calls(
        self,
        method: str,
        each: Sequence[dict[str, Any]],
        session: str | None = None,
        *,
        limit: float = ANSWER,
    ) -> list[dict[str, Any]]:
        """Call a method with all these parameters, without waiting in between.

        Raises:
            EnvError: As ``call`` does.
        """
        answers = [self.post(method, parameters, session) for parameters in each]
        end = time.monotonic() + limit
        try:
            return [answer.result(max(0.0, end - time.monotonic())) for answer in answers]
        except NoAnswer:
            if session is not None:
                self.post("Runtime.terminateExecution", {}, session)
            raise EnvError(f"the browser did not answer {method} within {limit:.0f} s") from None

    def post(
        self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None
    ) -> Future[dict[str, Any]]:
        """The same without waiting."""
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            self._number += 1
            message = {"id": self._number, "method": method, "params": parameters or {}}
            if session is not None:
                message["sessionId"] = session
            self._waiting[self._number] = answer
            try:
                os.write(self._send_to, json.dumps(message).encode() + b"\0")
            except OSError:
                self.alive = False
        if not self.alive:
            self._fail()
        return answer

    def listen(self, session: str, event: Event) -> None:
        """Report the events of a session."""
        self._listeners[session] = event

    def forget(self, session: str) -> None:
        """Report the events of a session no more."""
        self._listeners.pop(session, None)

    def close(self) -> None:
        """End the process and remove its profile."""
        self.alive = False
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # With its helpers, which write files.
        self._process.wait()
        self._fail()
        self._profile.cleanup()

    def _read(self, source: int) -> None:
        """Hand out answers and events until the browser dies."""
        rest = b""
        while block := os.read(source, 1 << 16):
            *messages, rest = (rest + block).split(b"\0")
            for message in messages:
                self._handle(json.loads(message))
        os.close(source)
        self.alive = False
        self._fail()

    def _handle(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if number is None:
            listener = self._listeners.get(message.get("sessionId", ""))
            if listener is not None:
                listener(message["method"], message["params"])
            return
        with self._lock:
            answer = self._waiting.pop(number, None)
        if answer is None:
            return
        if "error" in message:
            answer.set_exception(EnvError(f"the browser refuses: {message['error']['message']}"))
        else:
            answer.set_result(message["result"])

    def _fail(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.set_exception(EnvError("the browser has died; the next episode gets a new one"))


_shared: dict[tuple[str, ...], Browser] = {}
_starting = threading.Lock()


def shared_browser(hosts: tuple[str, ...] = ()) -> Browser:
    """This process's browser, started when it is first needed and again when it has died."""
    with _starting:
        found = _shared.get(hosts)
        if found is None or not found.alive:
            if found is not None:
                found.close()
            if not _shared:
                atexit.register(_close_all)
            found = _shared[hosts] = Browser(hosts)
        return found


def _close_all() -> None:
    for browser in _shared.values():
        browser.close()


def _started(profile: str, hosts: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], int, int]:
    """The process, and the ends of its pipes to write to and to read from."""
    # A proxy that refuses everything stands before all hosts but the allowed ones.
    reach = ";".join(("127.0.0.1", "localhost", *hosts))
    words = [find_chromium(), *FLAGS, f"--user-data-dir={profile}"]
    words += ["--proxy-server=http://127.0.0.1:9", f"--proxy-bypass-list={reach}"]
    words += ["--no-sandbox"] if os.geteuid() == 0 else []
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()

    def place() -> None:
        # Chromium reads from 3 and writes to 4; neither may be overwritten before it is copied.
        reading, writing = os.dup(theirs_in), os.dup(theirs_out)
        while min(reading, writing) <= 4:
            reading, writing = os.dup(reading), os.dup(writing)
        os.dup2(reading, 3)
        os.dup2(writing, 4)

    process = subprocess.Popen(
        [*words, "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=place,
        close_fds=False,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    return process, ours_out, ours_in
