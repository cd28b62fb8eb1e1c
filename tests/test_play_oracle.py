"""`agentgym play --oracle` shows a whole episode without user input."""

from agentgym.cli import main


def test_the_oracle_plays_an_episode_that_wins(capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *args: refuse())
    assert main(["play", "agentgym/Hotter-v0", "--oracle", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "score 1.00, won"
    assert any(line.startswith("> ") for line in lines)


def refuse():
    raise AssertionError("the oracle needs no input")
