"""ALFWorld: household tasks in text, after Shridhar et al. 2021 (arXiv:2010.03768)."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np

from agentgym.env.base import Opening, Outcome, TextEnv, one_of
from agentgym.errors import EnvError
from agentgym_envs.alfworld import engine, files, goals, tasks
from agentgym_envs.alfworld.game import Game, State
from agentgym_envs.alfworld.games import generated
from agentgym_envs.alfworld.manual import manual
from agentgym_envs.alfworld.oracle import winning_commands


class ALFWorld(TextEnv):
    """Find things in a house, clean, heat or cool them, and bring them where they belong.

    Texts, commands and endings are those of ALFWorld's own engine. A task id of a generated game,
    such as ``pick_heat_then_place_in_recep-Egg-None-Fridge-10-s2000000``, names family, object,
    receptacle (or lamp), floor plan and seed, and fully defines it. Splits are ``train``,
    ``valid_seen`` and ``valid_unseen`` (four floor plans that the others never use); ``valid``
    and ``test`` are other names of the last two.
    """

    def __init__(
        self,
        *,
        games: str = "generated",
        types: str | int = "all",
        rooms: str = "all",
        wording: Literal["new", "old"] = "new",
        oracle: Literal["searching", "omniscient"] = "searching",
        train_games: int = 2048,
        valid_games: int = 140,
        test_games: int = 134,
        **kwargs: Any,
    ) -> None:
        """Make the environment; nothing is generated or read before it is needed.

        Args:
            games: ``generated``, or the folder of official games to play, or ``official`` for the
                one that ``ALFWORLD_DATA`` names.
            types: Task types or their numbers 1 to 6, joined by commas, or ``all``.
            rooms: Of generated games: ``Kitchen``, ``LivingRoom``, ``Bedroom``, ``Bathroom``, or
                some of them joined by commas, or ``all``.
            wording: Of generated games: ``move cup 1 to desk 1`` since version 0.4, or the old
                ``put cup 1 in/on desk 1``. The other command is understood, too.
            oracle: Whether ``oracle`` goes straight to what it needs, or looks for it first.
            train_games: Generated tasks in the split ``train``.
            valid_games: Generated tasks in the split ``valid_seen``.
            test_games: Generated tasks in the split ``valid_unseen``.
            **kwargs: See ``TextEnv``.
        """
        super().__init__(**kwargs)
        self.folder = None if games == "generated" else files.root(games)
        self.types = tasks.families(str(types))
        self.rooms = tasks.kinds_of_room(rooms)
        one_of("wording", wording, ("new", "old"))
        one_of("oracle", oracle, ("searching", "omniscient"))
        self.wording = wording
        self.searching = oracle == "searching"
        self._sizes = {"train": train_games, "valid_seen": valid_games, "valid_unseen": test_games}
        self._panels: dict[str, tuple[str, ...]] = {}
        self._game: Game | None = None
        self._state: State | None = None

    def tasks(self, split: str) -> tuple[str, ...]:
        """The panel of a split: families in the official proportions, floor plans at random."""
        name = tasks.official_split(split)
        if name not in self._panels:
            self._panels[name] = (
                files.listed(self.folder, name, self.types)
                if self.folder
                else tasks.panel_ids(name, self._sizes[name], self.types, self.rooms)
            )
        return self._panels[name]

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Lay out the room of a task. The game has no randomness."""
        self._game = files.load(self.folder, task) if self.folder else generated(task, self.wording)
        self._state = self._game.start
        return Opening(engine.opening(self._game), self._game.task, self._game.goal.task_type)

    def act(self, action: str) -> Outcome:
        """Execute one command; anything else changes nothing."""
        game, state = self._playing()
        if self._last.won:
            return Outcome("The game is over.", 0.0, 1.0, won=True, done=True, valid=False)
        command = engine.in_words_of(game, action.strip())
        move = engine.moves(game, state).get(command)
        if move is None:
            return Outcome(engine.NOTHING_HAPPENS, score=self._last.score, valid=False)
        self._state, answer = engine.do(game, state, move)
        done, wanted = goals.progress(game, self._state)
        won = done == wanted
        return Outcome(answer, float(won), done / wanted, won, done=won)

    def manual(self) -> str:
        """The commands, in the wording of the games."""
        return manual("either" if self.folder else self.wording)

    def admissible(self) -> tuple[str, ...]:
        """Every command that is possible now, sorted; none when the game is won."""
        game, state = self._playing()
        return () if self._last.won else tuple(sorted(engine.moves(game, state)))

    def oracle(self) -> tuple[str, ...] | None:
        """Commands that win from here; None when the game is won or none are known."""
        game, state = self._playing()
        return winning_commands(game, state, searching=self.searching) or None

    def fork(self) -> Self:
        """The same game in the same state: nothing that changes is shared."""
        return self.shallow_copy()

    def _playing(self) -> tuple[Game, State]:
        if self._game is None or self._state is None:
            raise EnvError("no ALFWorld game is running; call reset() first")
        return self._game, self._state
