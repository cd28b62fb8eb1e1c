"""Play generated games in ALFWorld's own engine and in ours, and show every difference.

Needs the extra `alfworld-reference`. Games take turns with the two wordings; every third one is
perturbed first, towards what official files contain and our generator never makes: things in two
receptacles or away from them, open doors, food that is hot already. One episode of a game follows
the omniscient oracle to the end and continues at random, another one is random. With a folder of
official games, those of its validation splits are played, in a random order.

    scripts/differential_alfworld.py --games 200
    scripts/differential_alfworld.py --games 274 --official ~/alfworld
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from agentgym_envs.alfworld import files, games, problem, reference, tasks
from agentgym_envs.alfworld.game import build
from agentgym_envs.alfworld.oracle import winning_commands

AFTER_WINNING = 6


def main() -> None:
    """Compare game by game; exit status 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first game")
    parser.add_argument("--steps", type=int, default=25, help="length of a random episode")
    parser.add_argument("--official", type=Path, help="folder that scripts/alfworld-official made")
    options = parser.parse_args()
    last = options.first + options.games
    if options.official is None:
        ids = tasks.panel_ids("train", last, problem.TASK_TYPES)
    else:
        splits = ("valid_seen", "valid_unseen")
        ids = [t for s in splits for t in files.listed(options.official, s, problem.TASK_TYPES)]
        Random(0).shuffle(ids)
    episodes = steps = wins = differences = 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, reference.parsing_once():
        for number, task in enumerate(ids[options.first : last], options.first):
            if options.official is None:
                game, path = prepare(task, number, Path(folder))
            else:
                game, path = official(task, options.official)
            ours, theirs = reference.Ours(game), reference.Reference(path)
            for kind in ("oracle", "random"):
                played = episode(ours, theirs, kind, Random(f"{task} {kind}"), options.steps)
                episodes, steps, wins = episodes + 1, steps + played[0], wins + played[1]
                differences += len(played[2])
                for line in played[2]:
                    print(f"{task} {kind}: {line}")
            print(
                f"{number + 1 - options.first} games, {episodes} episodes, {steps} steps, {wins} "
                f"won, {differences} differences, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    sys.exit(differences > 0)


def official(task, folder):
    """A game of the official folder, and its file."""
    return files.load(folder, task), folder / task / files.GAME


def prepare(task, number, folder):
    """A game and the official file of the same game."""
    name = ("new", "old")[number % 2]
    home = files.write(folder, "train", task, name)
    if number % 3 == 2:
        facts, game = games.make(tasks.parse(task), name)
        odd = perturbed(facts, game, Random(f"{task} perturbed"))
        content = json.loads((home / files.GAME).read_text(encoding="utf-8"))
        content["pddl_problem"] = problem.write(odd, "perturbed")
        (home / files.GAME).write_text(json.dumps(content), encoding="utf-8")
    return files.load(folder, home.relative_to(folder).as_posix()), home / files.GAME


def perturbed(facts, game, rng):
    """The same room with oddities, still to be won: the reference engine loads no others."""
    while True:
        odd = with_oddities(facts, rng)
        start = build(odd, game.task, game.wording)
        if winning_commands(start, start.start, searching=False):
            return odd


def with_oddities(facts, rng):
    """What real rooms have and generated ones lack."""
    found = {}
    for fact in sorted(facts.facts):
        found.setdefault(fact[0], []).append(fact)
    things = [fact[1] for fact in found["objecttype"]]
    places = [fact[1] for fact in found["receptacletype"]]
    spots = [fact[2] for fact in found["receptacleatlocation"]]
    more = {
        *(("inreceptacle", rng.choice(things), rng.choice(places)) for _ in range(3)),
        *(("objectatlocation", rng.choice(things), rng.choice(spots)) for _ in range(3)),
        *(("opened", rng.choice(places)) for _ in range(4)),
        *((word, rng.choice(things)) for word in ("ishot", "iscool", "isclean", "issliced")),
        ("inreceptacleobject", rng.choice(things), rng.choice(things)),
    }
    lost = set(rng.sample(found["objectatlocation"], 3))
    lost |= set(rng.sample(found["inreceptacle"], 2))
    lost |= set(rng.sample(found["receptacleatlocation"], 1))
    return problem.Problem(facts.types, (facts.facts | more) - lost, facts.goal)


def episode(ours, theirs, kind, rng, length):
    """Steps, whether it was won, and the differences."""
    answers = ours.reset(), theirs.reset()
    found = [reference.difference(*answers)]
    plan = []
    if kind == "oracle":
        plan = list(winning_commands(ours.game, ours.game.start, searching=False) or ())
        length = len(plan) + AFTER_WINNING
    won = False
    for turn in range(length):
        command = plan.pop(0) if plan else choose(answers[0].commands, rng)
        answers = ours.step(command), theirs.step(command)
        if line := reference.difference(*answers):
            found.append(f"turn {turn}, {command!r}: {line}")
        won = won or answers[1].won
    return length, won, [line for line in found if line]


def choose(commands, rng):
    """Mostly commands that handle something: there are many more ways to walk."""
    if rng.random() < 0.04:
        return rng.choice(["dance", "take", " look ", "go to fridge 99", ""])
    handling = [c for c in commands if not c.startswith(("go to", "help", "inventory"))]
    return rng.choice(handling if rng.random() < 0.7 else commands)


if __name__ == "__main__":
    main()
