"""The browser, and MiniWoB in it: real Chromium, real pages."""

import http.server
import os
import re
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from miniwob_package import PackageTask

from agentgym.browser.actions import Refused, perform
from agentgym.browser.chromium import find_chromium, shared_browser
from agentgym.browser.tab import EPOCH, Tab
from agentgym.errors import ConfigError, EnvError, MissingExtra, UnknownTask

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "google-chrome"))), reason="Chromium is not installed"
)

FORM = """<!doctype html><body><h1>Form &lt;b&gt;</h1>
<label for=n>Name</label><input id=n>
<select id=s><option>Red<option>Dark blue</select>
<input type=checkbox id=c><button id=b onclick="out.textContent = n.value + '/' + s.value
  + '/' + c.checked">Send</button><p id=out>nothing</p>
<p style="display:none">secret</p><div id=later></div>
<a onclick='setTimeout(() => { later.textContent = "later" }, 800)'>Timer</a>"""


@pytest.fixture
def tab():
    found = Tab(shared_browser())
    yield found
    found.close()


def page(tmp_path: Path, text: str) -> str:
    file = tmp_path / "page.html"
    file.write_text(text, encoding="utf-8")
    return file.as_uri()


def number(shown: str, name: str) -> str:
    line = next(line for line in shown.splitlines() if name in line)
    return line.split("[")[1].split("]")[0]


def test_a_page_is_a_line_per_element_and_commands_act_on_it(tab, tmp_path):
    tab.goto(page(tmp_path, FORM))
    shown = tab.snapshot().text
    assert 'heading "Form <b>"' in shown and "secret" not in shown
    assert 'combobox (value "Red", options "Red", "Dark blue")' in shown
    perform(tab, f"type {number(shown, 'textbox')} Ada L")
    perform(tab, f"type {number(shown, 'textbox')} Grace")
    perform(tab, f"select {number(shown, 'combobox')} Dark blue")
    perform(tab, f"click {number(shown, 'checkbox')}")
    perform(tab, f"click {number(shown, 'Send')}")
    after = tab.snapshot().text
    assert "Grace/Dark blue/true" in after and "(checked" in after
    assert number(after, "textbox") == number(shown, "textbox")


def test_time_passes_only_when_an_action_says_so(tab, tmp_path):
    tab.goto(page(tmp_path, FORM))
    perform(tab, f"click {number(tab.snapshot().text, 'Timer')}")
    time.sleep(1)
    assert "later" not in tab.snapshot().text
    start = tab.evaluate("Date.now()")
    assert abs(start - EPOCH) < 1500
    tab.pass_time(500)
    assert "later" not in tab.snapshot().text
    tab.pass_time(500)
    assert "later" in tab.snapshot().text
    assert 990 <= tab.evaluate("Date.now()") - start <= 1100


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("click 99", "no element 99"),
        ("jump", "Unknown command"),
        ("press Hyper", "no key 'Hyper'"),
        ("select 2 Green", "no option 'Green'"),
        ("type 1 " + "x" * 3000, "at most 2000"),
        ("click " + "9" * 40, "no element"),
    ],
)
def test_an_impossible_command_says_why(tab, tmp_path, command, why):
    tab.goto(page(tmp_path, "<input><select><option>Red</select>"))
    tab.snapshot()
    with pytest.raises(Refused, match=why):
        perform(tab, command)


def test_dialogs_are_accepted_windows_refused_and_endless_scripts_end(tab, tmp_path):
    tab.goto(page(tmp_path, "<button onclick=\"alert('hi'); window.open('x')\">B</button>"))
    perform(tab, f"click {number(tab.snapshot().text, 'B')}")
    assert tab.dialogs == ["hi"]
    with pytest.raises(EnvError, match="did not answer"):
        tab.evaluate("(() => { for (;;) {} })()")
    assert tab.evaluate("1 + 1") == 2


def test_what_is_shown_can_leave_elements_out_and_name_empty_boxes(tab, tmp_path):
    text = """Words of the body <div id=no>secret</div>
      <div style="background-color: olive; width: 50px; height: 40px"></div>
      <div style="width: 9px; height: 9px"></div>
      <div style="background: red; height: 9px"><span style="font-size: 0">7</span></div>
      <div style="border: 1px solid; height: 9px"></div>
      <h3 role=tab tabindex=0 aria-expanded=false><i></i>More</h3>
      <p role=tab><i></i><button>Go</button></p>"""
    tab.goto(page(tmp_path, text))
    shown = tab.snapshot("#no, .none", boxes=True).text.splitlines()
    assert shown[0] == "Words of the body" and len(shown) == 6
    assert re.fullmatch(r"\[\d+\] div olive at \d+,\d+ size 50x40", shown[1])
    assert re.fullmatch(r"\[\d+\] div red at .*", shown[2]), "a text that is not seen is not told"
    assert re.fullmatch(r"\[\d+\] div at \d+,\d+ size \d+x11", shown[3]), "it has a frame"
    assert shown[4].endswith('tab "More" (collapsed)') and shown[5].endswith('button "Go"')
    plain = tab.snapshot().text
    assert "secret" in plain and "olive" not in plain and len(plain.splitlines()) == 4


def test_two_windows_share_no_storage(tab, tmp_path):
    other = Tab(tab.browser)
    for each in (tab, other):
        each.goto(page(tmp_path, "x"))
    tab.evaluate("localStorage.setItem('k', 'v')")
    assert other.evaluate("localStorage.getItem('k')") is None
    other.close()


def test_pages_reach_loopback_and_nothing_else(tab, tmp_path):
    (tmp_path / "page.html").write_text("hello", encoding="utf-8")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab.goto(f"http://127.0.0.1:{server.server_port}/page.html")
        assert tab.snapshot().text == '[1] body "hello"' or "hello" in tab.snapshot().text
        server.shutdown()
    for address in ("http://example.com/", "http://192.0.2.1/"):
        with pytest.raises(EnvError, match="ERR_PROXY_CONNECTION_FAILED"):
            tab.goto(address)


def test_a_killed_browser_is_one_error_and_the_next_episode_has_a_new_one(tmp_path):
    env = miniwob()
    env.reset(seed=0, options={"task": "click-test-1"})
    old = shared_browser()
    os.killpg(old.pid, signal.SIGKILL)
    with pytest.raises(EnvError, match="died"):
        env.step("wait")
    observation, _ = env.reset(seed=0, options={"task": "click-test-1"})
    assert 'button "Click Me!"' in observation and shared_browser() is not old
    env.close()


# ---- MiniWoB -------------------------------------------------------------------------------------


def miniwob(**arguments):
    pytest.importorskip("miniwob")
    from agentgym_envs.miniwob.env import MiniWoB

    return MiniWoB(**arguments)


def test_the_oracle_solves_the_pages_it_knows():
    env = miniwob()
    for task in env.tasks("test")[: len(env.pages)]:
        env.reset(seed=0, options={"task": task})
        plan = env.oracle()
        assert plan is not None, task
        for action in plan:
            *_, info = env.step(action)
        assert info["won"] and info["score"] == 1, task
    env.close()


@pytest.mark.parametrize("page", ["use-slider", "email-inbox", "drag-box", "click-collapsible-2"])
def test_seed_fixes_the_instance_and_a_fork_repeats_the_actions(page):
    env = miniwob(pages=page)
    first, info = env.reset(seed=0, options={"task": f"{page}-5"})
    other, _ = env.reset(seed=1, options={"task": f"{page}-6"})
    again, same = env.reset(seed=2, options={"task": f"{page}-5"})
    assert first == again != other and same["goal"] == info["goal"]
    env.step(env.admissible()[0])
    fork = env.fork()
    assert fork.admissible() == env.admissible()
    action = env.admissible()[-2]
    assert fork.step(action)[:3] == env.step(action)[:3]
    fork.close()
    env.close()


def test_what_a_page_opens_outside_of_its_frame_is_shown():
    """Dialogs, calendars and suggestions belong to the body of the page."""
    pages = "click-dialog,choose-date,use-autocomplete,click-color,find-greatest,tic-tac-toe"
    env = miniwob(pages=pages)
    dialog, date, suggest, colour, greatest, board = env.tasks("test")[:6]
    observation, _ = env.reset(seed=0, options={"task": dialog})
    assert env.step(f"click {number(observation, 'button')}")[4]["won"]
    observation, _ = env.reset(seed=0, options={"task": date})
    calendar, *_ = env.step(f"click {number(observation, 'textbox')}")
    assert 'link "Prev"' in calendar and 'link "28"' in calendar
    observation, _ = env.reset(seed=0, options={"task": suggest})
    options, *_ = env.step(f"type {number(observation, 'textbox')} a")
    assert 'div "Afghanistan"' in options
    observation, info = env.reset(seed=0, options={"task": colour})
    wanted = re.search(r"Click on the (\w+) colored box", info["goal"])[1]
    assert env.step(f"click {number(observation, f'div {wanted} at')}")[4]["won"]
    observation, _ = env.reset(seed=0, options={"task": greatest})
    cards = re.findall(r"\[(\d+)\] div rgb", observation)
    assert len(cards) == 3
    turned = env.step(f"click {cards[1]}")[0]
    assert len(re.findall(r"div rgb", turned)) == 2 and re.search(r'span "\d+"', turned)
    observation, _ = env.reset(seed=0, options={"task": board})
    assert len(re.findall("span", observation)) == 9
    free = re.findall(r"\[(\d+)\] span at", observation)
    after = env.step(f"click {free[0]}")[0]
    assert re.search(rf'\[{free[0]}\] span "x" at', after) and 'span "o" at' in after
    assert len(re.findall("span", after)) == 9
    env.close()


def test_a_goal_is_a_text_where_the_page_also_names_its_fields():
    env = miniwob(pages="email-inbox-nl-turk")
    _, info = env.reset(seed=0, options={"task": env.tasks("test")[0]})
    assert isinstance(info["goal"], str) and "mail" in info["goal"].lower()
    env.close()


def test_rewards_are_the_pages_own():
    """A wrong click is -1 raw; the published reward decays in the page's time of 500 ms a step."""
    wrong, right = 'button "TWO"', 'button "ONE"'
    for reward, lost, won in (("success", 0, 1), ("raw", -1, 1), ("published", -1, 0.9)):
        env = miniwob(pages="click-test-2", reward=reward)
        observation, _ = env.reset(seed=0, options={"task": "click-test-2-1"})
        assert env.step(f"click {number(observation, wrong)}")[1:3] == (lost, True)
        observation, _ = env.reset(seed=0, options={"task": "click-test-2-1"})
        env.step("wait")
        found = env.step(f"click {number(observation, right)}")
        assert found[2] and found[1] == pytest.approx(won, abs=0.06)
        env.close()


@pytest.mark.parametrize("page", ["click-test-2", "enter-text", "login-user", "enter-password"])
def test_tasks_and_verdicts_are_those_of_the_package(page):
    pytest.importorskip("selenium")
    env = miniwob(pages=page, reward="raw")
    task = env.tasks("test")[0]
    for right in (True, False):
        package = PackageTask(task)
        package.begin()
        observation, info = env.reset(seed=0, options={"task": task})
        assert info["goal"] == package.goal
        assert all(text in " ".join(observation.split()) for text in package.texts), package.texts
        package.match(observation)
        plan = env.oracle()
        # Without what comes before it, the last command gives the wrong answer.
        buttons = re.findall(r"\[(\d+)\] button", observation)
        wrong = [f"click {n}" for n in buttons if f"click {n}" != plan[-1]] or plan[-1:]
        for action in plan if right else wrong[:1]:
            _, reward, done, *_ = env.step(action)
            assert package.step(action) == (reward, done), action
        assert done and reward == (1 if right else -1)
        package.close()
    env.close()


def test_bad_arguments_and_tasks_are_one_line():
    with pytest.raises(ConfigError, match="there is no page 'click-tset'"):
        miniwob(pages="click-tset")
    env = miniwob()
    for task in ("nothing-1", "click-test-01", "click-test-x"):
        with pytest.raises(UnknownTask):
            env.reset(seed=0, options={"task": task})


def test_an_agent_that_asks_the_oracle_every_turn_wins():
    env = miniwob(pages="login-user")
    env.reset(seed=0, options={"task": "login-user-3"})
    turns = 0
    while plan := env.oracle():
        *_, info = env.step(plan[0])
        turns += 1
    assert info["won"] and turns == 3
    env.reset(seed=0, options={"task": "login-user-3"})
    env.step("wait")
    assert env.oracle() is None
    env.close()


# ---- web sites -----------------------------------------------------------------------------------

OWN = """
from agentgym.browser.env import Verdict
from agentgym_envs.web.site import Goal, Site, document


class Counter(Site):
    count = 0

    def tasks(self, split):
        return {"train": ("2", "3"), "valid": ("4",), "test": ("5",)}[split]

    def begin(self, task, rng):
        self.count, self.goal = 0, int(task)
        return Goal(f"Click {task} times.")

    def page(self, path, form):
        if form is not None:
            self.count += 1
            return None
        return document("c", f"<form method=post><button>Count</button></form><p>{self.count}")

    def check(self, tab):
        won = self.count == self.goal
        return Verdict(float(won), self.count / self.goal if not won else 1.0, won, won)
"""


def web(**arguments):
    from agentgym_envs.web.env import Web

    return Web(**arguments)


def test_the_desk_is_solved_only_when_its_data_is_what_was_asked_for():
    env = web()
    for task in env.tasks("test")[:4]:
        env.reset(seed=0, options={"task": task})
        for action in env.oracle():
            *_, info = env.step(action)
        assert info["won"], task
    observation, _ = env.reset(seed=0, options={"task": env.tasks("test")[0]})
    env.step(f"click {number(observation, 'link')}")
    env.step('type "Comment" something else')
    before = env.step('click "Save"')
    assert before[1:3] == (0, False)
    env.close()


def test_no_task_of_the_desk_is_solved_before_it_begins(tab):
    from agentgym_envs.web.tickets import Tickets

    desk = Tickets()
    for task in desk.tasks("test"):
        desk.begin(task, None)
        (_, _, owner, _, _) = desk.untouched[desk.wanted["id"] - 1]
        assert owner != desk.wanted["text"] and not desk.check(tab).won


def test_the_pages_of_webshop_pay_what_its_text_pays():
    env, text = web(site="shop"), None
    from agentgym_envs.webshop.env import WebShop

    text = WebShop()
    for task in env.tasks("test")[:2]:
        env.reset(seed=0, options={"task": task})
        text.reset(seed=0, options={"task": task})
        plan, words = env.oracle(), text.oracle()
        for action in plan[:2] if task.endswith("0") else plan:
            page = env.step(action)
        for action in words[:1] if task.endswith("0") else words:
            shop = text.step(action)
        assert page[1:3] == shop[1:3] and page[4]["score"] == shop[4]["score"]
    env.close()


def test_a_site_of_ones_own_is_played_and_forked(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    env = web(site=f"{tmp_path / 'own.py'}:Counter")
    env.reset(seed=0, options={"task": "2"})
    env.step('click "Count"')
    fork = env.fork()
    assert fork.step('click "Count"')[1:3] == (1, True)
    assert env.step("click 99")[4]["action_valid"] is False
    assert env.step('click "Count"')[1:3] == (1, True)
    fork.close()
    env.close()
    with pytest.raises(ConfigError, match="no site 'ticket'"):
        web(site="ticket")


def test_a_missing_browser_names_the_package(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtra, match="apt-get install chromium"):
        find_chromium()
