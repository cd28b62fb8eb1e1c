"""One window of a browser: pages, input as from a person, and time that we turn."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from agentgym.browser.chromium import ANSWER, Browser
from agentgym.browser.keys import key_event
from agentgym.errors import EnvError

SIZE = (500, 500)
"""Width and height of a window, in CSS pixels."""
SETTLE = 20
"""Milliseconds for scripts of the page after an action, where time is real."""
SCRIPT = 5.0
"""Seconds after which a script that we run in a page is ended."""
EPOCH = 1_700_000_000_000
"""What every page takes for the time at its start, in milliseconds."""


class Snapshot(NamedTuple):
    """What a page shows."""

    text: str
    """A line per element or text; ``[3]`` before it names an element."""
    elements: tuple[int, ...]
    """Numbers of the elements on it."""


class Tab:
    """A window with cookies and storage of its own; closes when it is no longer referenced.

    Args:
        browser: The browser it is opened in.
        own_time: The time of pages passes in ``pass_time`` alone. Such a page cannot be left by a
            click: the browser then loses its hold on time.
    """

    def __init__(self, browser: Browser, *, own_time: bool = True) -> None:
        self.browser = browser
        self.own_time = own_time
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = {"url": "about:blank", "browserContextId": context, "newWindow": True}
        self._target = browser.call(
            "Target.createTarget", {**target, "width": SIZE[0], "height": SIZE[1]}
        )["targetId"]
        attach = {"targetId": self._target, "flatten": True}
        self._session = browser.call("Target.attachToTarget", attach)["sessionId"]
        self._changed = threading.Condition()
        self._loading = False
        self._expired = False
        self.dialogs: list[str] = []
        """Texts of the dialogs that the page opened; each was accepted."""
        self.broken = False
        """The page's process has died."""
        browser.listen(self._session, self._on_event)
        self.close = weakref.finalize(self, _close, browser, context, self._session)
        for method in ("Page.enable", "Runtime.enable", "Inspector.enable"):
            self._call(method)
        self._call("Page.addScriptToEvaluateOnNewDocument", source=_script())
        self._call("Emulation.setFocusEmulationEnabled", enabled=True)

    def goto(self, url: str) -> None:
        """Load a page.

        Raises:
            EnvError: It cannot be loaded.
        """
        self._loading = True
        # Paused time would hold up the loading. A budget of time may be used up after the page is
        # there, and its event would end the next wait for time to pass.
        self._policy("advance")
        found = self._call("Page.navigate", url=url)
        if "errorText" in found:
            self._loading = False
            raise EnvError(f"cannot load {url}: {found['errorText']}")
        self._wait(lambda: not self._loading, f"loading {url}")
        self._policy("pause")
        self.evaluate(f"agentgym.setTime({EPOCH})")

    def pass_time(self, milliseconds: int) -> None:
        """Let the page's time pass: timers fire, animations move, requests are waited for.

        Where time is real, this waits for the page that a click may have led to.
        """
        if not self.own_time:
            # Whatever the input set off in the page is done before this timer. A page that is left
            # meanwhile refuses to answer.
            with suppress(EnvError):
                wait = f"new Promise((done) => setTimeout(done, {SETTLE}))"
                self._call("Runtime.evaluate", expression=wait, awaitPromise=True)
            self._wait(lambda: not self._loading, "loading a page")
            return
        self._expired = False
        self._policy("pauseIfNetworkFetchesPending", budget=milliseconds)
        self._wait(lambda: self._expired, "a script of the page, or leaving it,")

    def _policy(self, policy: str, **budget: int) -> None:
        if self.own_time:
            self._call("Emulation.setVirtualTimePolicy", policy=policy, **budget)

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression.

        Raises:
            EnvError: It raises, or runs for more than ``SCRIPT`` seconds.
        """
        asked = {"expression": expression, "returnByValue": True}
        found = self.browser.call("Runtime.evaluate", asked, self._session, limit=SCRIPT)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            raise EnvError(f"JavaScript failed: {text.splitlines()[0]}")
        return found["result"].get("value")

    def snapshot(self, hidden: str = "", *, boxes: bool = False) -> Snapshot:
        """What the page shows.

        Args:
            hidden: CSS selector of elements that are left out.
            boxes: Also empty elements that have a colour, a frame or a picture.
        """
        options = json.dumps({"hidden": hidden, "boxes": boxes})
        found = self.evaluate(f"agentgym.snapshot({options})")
        return Snapshot(found["text"], tuple(found["elements"]))

    def center(self, element: int) -> tuple[float, float] | None:
        """Where to click on an element, scrolled into view; None where there is none."""
        found = self.evaluate(f"agentgym.center({element})")
        return None if found is None else (found[0], found[1])

    def named(self, name: str) -> int | None:
        """The first element of the last snapshot that has this name; None where there is none."""
        found: int | None = self.evaluate(f"agentgym.find({json.dumps(name)})")
        return found

    def choose(self, element: int, option: str) -> bool:
        """Choose an option of a combobox by its text; whether there is one."""
        return bool(self.evaluate(f"agentgym.choose({element}, {json.dumps(option)})"))

    def move(self, x: float, y: float, buttons: int = 0) -> None:
        """Move the mouse there."""
        self._mouse("mouseMoved", x, y, buttons=buttons)

    def click(self, x: float, y: float, count: int = 1) -> None:
        """Click there; ``count`` 2 is a double click."""
        there = {"x": x, "y": y}
        events: list[dict[str, Any]] = [{"type": "mouseMoved", **there, "buttons": 0}]
        for number in range(1, count + 1):
            button = {**there, "button": "left", "clickCount": number}
            events.append({"type": "mousePressed", **button, "buttons": 1})
            events.append({"type": "mouseReleased", **button})
        self._input("Input.dispatchMouseEvent", events)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at the start, move in steps, release at the end."""
        self.move(*start)
        self._mouse("mousePressed", *start, button="left", buttons=1, clickCount=1)
        for part in range(1, 9):
            x, y = (a + (b - a) * part / 8 for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", x, y, button="left", buttons=1)
        self._mouse("mouseReleased", *end, button="left", clickCount=1)

    def wheel(self, x: float, y: float, down: float) -> None:
        """Turn the mouse wheel there, by CSS pixels."""
        self._mouse("mouseWheel", x, y, deltaX=0, deltaY=down)

    def insert(self, text: str) -> None:
        """Type text where the focus is."""
        self._press(text)

    def press(self, key: str) -> None:
        """Press a key, such as ``Enter`` or ``Control+a``.

        Raises:
            ConfigError: There is no such key.
        """
        self._press([key])

    def _press(self, keys: Iterable[str]) -> None:
        events = [key_event(key, kind) for key in keys for kind in ("keyDown", "keyUp")]
        self._input("Input.dispatchKeyEvent", events)

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def _input(self, method: str, events: Sequence[dict[str, Any]]) -> None:
        """Events in a row: the page gets them one after the other, none waits for a frame."""
        self._refuse_broken()
        self.browser.calls(method, events, self._session)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._refuse_broken()
        return self.browser.call(method, parameters, self._session)

    def _refuse_broken(self) -> None:
        if self.broken:
            raise EnvError("the page has crashed")

    def _wait(self, until: Callable[[], bool], what: str) -> None:
        with self._changed:
            done = self._changed.wait_for(
                lambda: until() or self.broken or not self.browser.alive, ANSWER
            )
        if self.broken or not self.browser.alive:
            self.broken = True
            raise EnvError("the page or its browser has died; the next episode gets a new one")
        if not done:
            self.broken = True
            raise EnvError(f"{what} did not end within {ANSWER:.0f} s")

    def _on_event(self, name: str, parameters: dict[str, Any]) -> None:
        own = parameters.get("frameId") == self._target
        with self._changed:
            if name in ("Page.frameRequestedNavigation", "Page.frameStartedLoading") and own:
                self._loading = True
            elif name == "Page.frameStoppedLoading" and own:
                self._loading = False
            elif name == "Emulation.virtualTimeBudgetExpired":
                self._expired = True
            elif name == "Page.javascriptDialogOpening":
                self.dialogs.append(str(parameters.get("message", "")))
                self.browser.post("Page.handleJavaScriptDialog", {"accept": True}, self._session)
            elif name == "Inspector.targetCrashed":
                self.broken = True
            self._changed.notify_all()


def _close(browser: Browser, context: str, session: str) -> None:
    browser.forget(session)
    if browser.alive:
        browser.post("Target.disposeBrowserContext", {"browserContextId": context})


@cache
def _script() -> str:
    """What every page runs before its own scripts."""
    return (files("agentgym.browser") / "page.js").read_text(encoding="utf-8")
