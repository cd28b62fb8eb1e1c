"""The shop as web pages: over plain HTTP and in a real browser."""

import contextlib
import shutil
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from agentgym.env.registry import full_id, world
from agentgym_envs.webshop.server import shop

for needed in ("Stemmer", "rapidfuzz", "textblob", "starlette"):
    pytest.importorskip(needed)
uvicorn = pytest.importorskip("uvicorn")

ENV = "agentgym/WebShop-v0"


@pytest.fixture(scope="module")
def site():
    """A running server; returns its address and its application."""
    app = shop(reward="dense")
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", app
    server.should_exit = True
    thread.join()
    listener.close()


def with_options():
    """An environment at a task in which the oracle clicks an option, and the oracle's actions."""
    env = world(ENV, reward="dense")
    for task in env.tasks("test"):
        env.reset(seed=0, options={"task": task})
        if len(env.oracle()) >= 4:
            return env, env.oracle()
    raise AssertionError("no task has options")


def get(address, **fields):
    data = urllib.parse.urlencode(fields).encode() if fields else None
    with urllib.request.urlopen(address, data) as answer:
        return answer.geturl(), answer.read().decode()


def visit_of(app, address):
    return app.state.visits[address.rpartition("/")[2]]


def test_the_same_actions_give_the_same_session_over_http_and_in_process(site):
    root, app = site
    env, plan = with_options()
    address, page = get(f"{root}/?task={env.task_id}")
    for action in plan[:-2] + plan[-1:]:  # without the last option
        env.step(action)
        if action.startswith("search"):
            _, page = get(address, query=action[len("search[") : -1])
        else:
            _, page = get(address, action=action)
        assert visit_of(app, address).session == env.session
    bought = visit_of(app, address).purchase
    assert bought == env.purchase and 0 < bought.total < 1
    assert "Thank you" in page and "score" not in page and str(bought.total) not in page


def test_sessions_are_independent_and_unknown_ones_get_a_404(site):
    root, app = site
    (one, _), (other, _) = get(root + "/"), get(root + "/")
    assert one != other
    get(one, query="boots")
    assert visit_of(app, one).session.query == "boots" and visit_of(app, other).session.query == ""
    for address in (root + "/visit/unknown", root + "/?task=<b>nothing</b>"):
        with pytest.raises(urllib.error.HTTPError) as answer:
            get(address)
        with contextlib.closing(answer.value):
            assert answer.value.code == 404 and "<b>" not in answer.value.read().decode()


def test_malformed_posts_return_the_page(site):
    root, app = site
    address, _ = get(root + "/")
    for fields in ({"action": "\x00[[["}, {"query": ""}, {"zzz": "1"}, {"action": "click[x]"}):
        _, page = get(address, **fields)
        assert "search_input" in page
    assert visit_of(app, address).session.query == ""


def test_a_short_name_resolves_to_an_environment_id():
    assert full_id("webshop") == full_id("WebShop") == full_id(ENV) == ENV
    assert full_id("nothing") == "nothing"


# Selenium leaves the pipes of a stopped driver to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_purchase_in_a_real_browser_earns_what_the_in_process_session_earns(site, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("needs Debian's chromium and chromium-driver")
    root, app = site
    env, plan = with_options()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    from selenium.webdriver.support.expected_conditions import staleness_of
    from selenium.webdriver.support.wait import WebDriverWait

    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        browser.get(f"{root}/?task={env.task_id}")
        for action in plan:
            env.step(action)
            name, argument = action[:-1].split("[", 1)
            before = browser.find_element("tag name", "html")
            if name == "search":
                bar = browser.find_element("id", "search_input")
                bar.send_keys(argument)
                bar.submit()
            else:
                texts = {b.text.lower(): b for b in browser.find_elements("tag name", "button")}
                texts[argument].click()
            WebDriverWait(browser, 60).until(staleness_of(before))
        assert "Thank you for shopping with us!" in browser.page_source
        assert "score" not in browser.page_source.lower()
        assert visit_of(app, browser.current_url).session == env.session
        assert visit_of(app, browser.current_url).purchase == env.purchase
        assert env.purchase.total == 1
    finally:
        browser.quit()
