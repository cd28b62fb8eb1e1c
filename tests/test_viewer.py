"""The viewer: the files it reads, and its use in a real browser."""

import shutil
import threading
import urllib.request

import pytest

from agentgym.cli import main
from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import append
from agentgym.evaluation.records import EpisodeRecord
from agentgym.probe.files import ValuedEpisode, values_path, write_values
from agentgym.probe.values import Value
from agentgym.types import Completion, Stop, Task, Trajectory, Turn
from agentgym.utils.jsonl import append_line, read_lines
from agentgym.viewer.page import bundle, page
from agentgym.viewer.server import server
from agentgym.viewer.source import load

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)


def turn(action, observation, entropies=(0.1, 2.5), **more):
    tokens = tuple(ord(letter) for letter in action[:2])
    drawn = Completion(tokens, (-0.1, -2.0), entropies, version=4)
    return Turn((1,), drawn, action, observation, 0.0, **more)


def write(path, *, hostile=False):
    """Four episodes of a task that diverge after the first turn, and one of another task."""
    ways = [["go", "up"], ["go", "up", "up"], ["go", "in"], ["no"]]
    for sample, way in enumerate(ways):
        seen = HOSTILE if hostile else "You see a door."
        turns = tuple(turn(action, seen) for action in way)
        task = Task("test/Doors-v0", "doors-1", 0)
        won = sample == 2
        append(path, record(task, sample, turns, won))
    append(path, record(Task("test/Doors-v0", "doors-2", 0), 0, (turn("go", "A hall."),), True))


def record(task, sample, turns, won):
    played = Trajectory(
        task, sample, "Find the way.", "A door.", turns, Stop.TERMINATED, float(won), won, "doors"
    )
    return EpisodeRecord.of(played, decode=lambda ids: "".join(map(chr, ids)))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run" / "episodes.jsonl"
    write(path)
    return path


def test_a_run_folder_and_its_file_show_the_same_episodes(file):
    found = load([file.parent])
    assert len(found.episodes) == 5 and not found.warnings
    assert load([file]).episodes == found.episodes
    first = found.episodes[0]
    assert (first["task"], first["end"], first["file"]) == ("doors-1", "failure", "run/episodes")
    assert first["turns"][0]["ends"] == (1, 2) and first["turns"][0]["entropies"] == [0.1, 2.5]


def test_unreadable_records_are_skipped_with_a_warning(file, tmp_path):
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_bytes(file.read_bytes() + b'{"schema": 1}\n')
    found = load([damaged, file])
    assert len(found.episodes) == 10
    assert "damaged.jsonl, line 6 is left out: an episode of schema 1" in found.warnings[0]


def test_what_follows_a_damaged_line_is_shown_and_only_the_first_are_named(file, tmp_path):
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_bytes(b"nonsense\n" * 7 + b"\xff\n" + file.read_bytes() + b'{"schema": 5')
    found = load([damaged])
    assert len(found.episodes) == 5
    assert len(found.warnings) == 6 and "line 1 is left out: not JSON" in found.warnings[0]
    assert found.warnings[-1] == "3 further lines are left out"


def test_a_compressed_file_shows_the_same_episodes(file):
    compressed = file.with_name("episodes.jsonl.zst")
    for line in read_lines(file):
        append_line(compressed, line.decode())
    file.unlink()
    found = load([file.parent])
    assert [each["task"] for each in found.episodes] == ["doors-1"] * 4 + ["doors-2"]
    assert found.episodes[0]["file"] == "run/episodes"


@pytest.mark.parametrize("content", [None, "", '{"header": {"schema": 4}}\n', '{"schema": 1}\n'])
def test_an_empty_source_gives_a_one_line_error(tmp_path, content):
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as refused:
        load([path])
    assert "\n" not in str(refused.value)


def test_a_page_of_a_thousand_episodes_is_small(tmp_path):
    path = tmp_path / "many.jsonl"
    task = Task("test/Doors-v0", "doors-1", 0)
    turns = tuple(turn("go", f"You see door {n}. " * 10) for n in range(20))
    line = record(task, 0, turns, won=True).to_json()
    path.write_text("".join(line + "\n" for _ in range(1000)))
    assert bundle(load([path]), tmp_path / "page.html", "many") < 20 * 2**20


def test_the_server_serves_only_the_page(file):
    running = server(lambda: page(load([file]), "run"), "127.0.0.1", 0)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{running.server_address[1]}"
    try:
        with urllib.request.urlopen(f"{root}/") as answer:
            assert "doors-1" in answer.read().decode()
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{root}/../../etc/passwd")
    finally:
        running.shutdown()
        running.server_close()


def test_the_command_writes_one_file(file, tmp_path, capsys):
    target = tmp_path / "page.html"
    assert main(["view", str(file.parent), "--bundle", str(target)]) == 0
    assert "5 episodes in" in capsys.readouterr().out
    assert target.read_text(encoding="utf-8").count("<script") == 3
    assert main(["view", str(tmp_path / "nowhere")]) == 2
    assert "there is no file" in capsys.readouterr().err


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,800"),
    ):
        options.add_argument(flag)
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    found.set_script_timeout(60)
    yield found
    found.quit()


def wait_for(browser, script):
    """Wait until a JavaScript expression is true."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 60).until(lambda _: browser.execute_script(f"return {script}"))


def shown(browser, selector):
    """Texts of all elements."""
    code = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
    return browser.execute_script(code, selector)


def test_filter_open_colour_tree_and_compare_work_in_a_browser(file, tmp_path, browser):
    target = tmp_path / "page.html"
    bundle(load([file]), target, "run")
    browser.get(target.as_uri())
    wait_for(browser, "document.querySelectorAll('#rows tr').length === 5")
    find = browser.find_element("id", "find")
    find.send_keys("doors-1")
    wait_for(browser, "document.querySelectorAll('#rows tr').length === 4")
    assert "4 of 5 episodes (25 % success)" in shown(browser, "#count")
    browser.execute_script("document.activeElement.blur()")
    browser.find_element("css selector", "#rows tr").click()
    wait_for(browser, "document.querySelectorAll('.turn').length === 2")
    assert shown(browser, ".goal") == ["Find the way."]

    browser.execute_script(
        "const c = document.getElementById('colour'); c.value = 'entropy';"
        "c.dispatchEvent(new Event('input'))"
    )
    wait_for(browser, "document.querySelectorAll('.token').length === 4")
    titles = browser.execute_script(
        "return [...document.querySelectorAll('.token')].map(e => e.title)"
    )
    assert titles[:2] == ["entropy 0.1 nats", "entropy 2.5 nats"]
    colours = browser.execute_script(
        "return [...document.querySelectorAll('.token')].slice(0, 2).map(e => e.style.background)"
    )
    assert colours[0] != colours[1]

    body = browser.find_element("tag name", "body")
    body.send_keys("t")
    wait_for(browser, "document.querySelectorAll('svg .node').length === 6")
    assert set(shown(browser, "svg text")) == {"start", "go", "up", "in", "no"}

    body.send_keys("c")
    body.send_keys("j")
    wait_for(browser, "document.querySelectorAll('.episode').length === 2")
    assert shown(browser, ".parting") == ["They part at turn 3."]
    tops = browser.execute_script(
        "return [...document.querySelectorAll('.pair > *')].map((box) =>"
        " [...box.querySelectorAll('.turn')].map((turn) => Math.round(turn.offsetTop)))"
    )
    # Turns of one number stand beside one another; offsets are rounded to pixels.
    apart = [abs(left - right) for left, right in zip(*tops, strict=False)]
    assert len(apart) == 2 and max(apart) <= 1


def valued(file, *, damaged=False):
    """Values of the second episode of the file, which has three turns."""
    values = tuple(Value(value, value - 0.05, value + 0.05) for value in (0.5, 0.6, 0.1, 0.05))
    task = Task("test/Doors-v0", "doors-1", 0)
    one = ValuedEpisode(
        task=task,
        sample=1,
        version=4,
        won=False,
        actions=("go", "up", "up"),
        values=values,
        continuations=(9, 9, 9),
    )
    path = values_path(file)
    write_values(path, {"policy": "a-model"}, [one])
    if damaged:
        path.write_text('{"header": {"schema": 0}}\n')


def test_values_of_turns_belong_to_their_episode(file):
    valued(file)
    found = load([file.parent])
    assert len(found.episodes) == 5 and not found.warnings, "values are no episodes"
    with_values = [episode for episode in found.episodes if "values" in episode]
    assert [(each["sample"], each["decisive"]) for each in with_values] == [(1, 1)]
    assert with_values[0]["values"][2] == [0.1, 0.05, 0.15]
    valued(file, damaged=True)
    found = load([file])
    assert len(found.episodes) == 5 and "values.jsonl is left out" in found.warnings[0]


def test_values_of_turns_are_drawn_in_a_browser(file, tmp_path, browser):
    valued(file)
    target = tmp_path / "page.html"
    bundle(load([file]), target, "run")
    browser.get(f"{target.as_uri()}#1")
    wait_for(browser, "document.querySelectorAll('svg.values circle').length === 4")
    notes = shown(browser, ".value")
    assert notes[0] == "value 0.50 [0.45, 0.55], this turn +0.10"
    assert notes[1].endswith("this turn -0.50: the decisive turn")
    assert len(shown(browser, ".value.decisive")) == 1


def test_advantages_and_forks_of_training_episodes_are_shown(tmp_path, browser):
    path, target = tmp_path / "run" / "episodes.jsonl", tmp_path / "page.html"
    task = Task("test/Doors-v0", "doors-1", 0)
    turns = tuple(turn(action, "A door.") for action in ("go", "up"))
    for sample, parent in ((0, None), (1, 0)):
        played = Trajectory(
            *(task, sample, "Find the way.", "A door.", turns, Stop.TERMINATED),
            shared_turns=int(sample == 1),
            parent=parent,
        )
        rows = ((0.5, -1.0), (0.25, 0.25))
        text = EpisodeRecord.of(played, decode=lambda ids: "".join(map(chr, ids)), advantages=rows)
        append(path, text)
    bundle(load([path]), target, "run")
    browser.get(target.as_uri() + "#1")
    wait_for(browser, "document.querySelectorAll('.turn').length === 2")
    assert "forked from sample 0 after turn 1" in shown(browser, ".meta")[0]
    browser.execute_script(
        "const c = document.getElementById('colour'); c.value = 'advantage';"
        "c.dispatchEvent(new Event('input'))"
    )
    wait_for(browser, "document.querySelectorAll('.token').length === 4")
    read = "return [...document.querySelectorAll('.token')].map(e => [e.title, e.style.background])"
    tokens = browser.execute_script(read)
    assert [title for title, _ in tokens] == [f"advantage {n}" for n in (0.5, -1, 0.25, 0.25)]
    assert tokens[0][1] != tokens[1][1] and tokens[2][1] == tokens[3][1]
    browser.find_element("tag name", "body").send_keys("t")
    wait_for(browser, "document.querySelectorAll('svg .fork').length === 1")
    titles = shown(browser, "svg .node title")
    assert "go: 2 episodes\nsample 1 forked from sample 0" in titles


def test_markup_in_observations_is_shown_as_text(tmp_path, browser):
    path, target = tmp_path / "h.jsonl", tmp_path / "page.html"
    write(path, hostile=True)
    bundle(load([path]), target, "hostile")
    browser.get(target.as_uri())
    wait_for(browser, "document.querySelectorAll('#rows tr').length === 5")
    browser.find_element("css selector", "#rows tr").click()
    wait_for(browser, "document.querySelectorAll('.turn').length === 2")
    assert HOSTILE in shown(browser, ".world")
    assert browser.title == "hostile · agentgym"
    assert not shown(browser, "img")


def test_a_thousand_episodes_are_listed_when_the_page_is_loaded(tmp_path, browser):
    path, target = tmp_path / "many.jsonl", tmp_path / "page.html"
    turns = tuple(turn("go", f"You see door {n}. " * 10) for n in range(20))
    line = record(Task("test/Doors-v0", "doors-1", 0), 0, turns, won=True).to_json()
    path.write_text("".join(line + "\n" for _ in range(1000)))
    bundle(load([path]), target, "many")
    browser.get(target.as_uri())
    assert len(shown(browser, "#rows tr")) == 401, "400 rows, and one that shows the rest"
    assert "1000 of 1000 episodes (100 % success)" in shown(browser, "#count")
