"""`agentgym verify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agentgym.cli.parsing import parse
from agentgym.utils.progress import Display


@dataclass(frozen=True, kw_only=True)
class VerifyArguments:
    """Play a sample of the episodes of an evaluation again, and check that they are the same.

    Ways to call it:
        agentgym verify evals/textworld-test-1a2b3c4d.md      # a card and the file beside it
        agentgym verify RUN                                   # its evaluation after training
        agentgym verify evals/a.jsonl --episodes 100

    With the local engine on a CPU, every token and every log-probability must be equal. A chat
    endpoint or vLLM does not promise the same tokens; of their episodes the recorded actions are
    sent to the environment again, and its answers must be equal. The exit status is 1 if an episode
    differs.
    """

    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CARD_OR_RUN_OR_FILE")]
    """A card of `agentgym eval --card`, a run folder, or a file of episodes."""
    episodes: int = 20
    """Most episodes to play again."""
    seed: int = 0
    """Draws the sample."""


def verify(arguments: list[str]) -> int:
    """``verify CARD_OR_RUN_OR_FILE``."""
    options = parse(VerifyArguments, arguments, prog="agentgym verify")
    from agentgym.experiment.verify import verify as verify_episodes

    display = Display(Console())
    found = verify_episodes(
        options.target, episodes=options.episodes, seed=options.seed, display=display
    )
    display.say(str(found))
    return 0 if found.same else 1
