"""WebShop as an environment: search, choose options, and buy what an instruction asks for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal, Self, get_args

import numpy as np

from agentgym.env.base import Opening, Outcome, Progress, TextEnv, one_of, unknown_task
from agentgym.errors import ConfigError, EnvError, MissingExtra
from agentgym_envs.webshop import files, pages
from agentgym_envs.webshop.catalogue import Catalogue, Source, open_catalogue
from agentgym_envs.webshop.goals import ENV, Goal, GoalKind, Names, split_range
from agentgym_envs.webshop.manual import MANUAL
from agentgym_envs.webshop.nouns import LEXICON
from agentgym_envs.webshop.oracle import plan
from agentgym_envs.webshop.products import Product
from agentgym_envs.webshop.reward import Reward, Rules, judge
from agentgym_envs.webshop.session import PER_PAGE, Place, Session, Shop, act, parse
from agentgym_envs.webshop.synthetic import SyntheticCatalogue

_NEEDS = ("Stemmer", "rapidfuzz", "textblob")


class WebShop(TextEnv):
    """Buy the product that an instruction describes, by ``search[words]`` and ``click[text]``.

    Differs from the original simulator: the page after a purchase does not print the score, the
    price bound of a goal is the same in every process, searching needs a search bar unless
    ``search_anywhere``, and titles are tagged by another library (see ``nouns``), which changes
    the type part of the reward for 15 of 100 pairs of products.

    Source:
        Yao et al. 2022 (arXiv:2207.01206) and its released code.
    """

    def __init__(
        self,
        *,
        data: str = "",
        products: int = 1000,
        catalogue_seed: int = 0,
        goals: GoalKind = "synthetic",
        observation: pages.Mode = "text",
        rules: Rules = "fixed",
        reward: Literal["outcome", "dense"] = "outcome",
        oracle: Literal["omniscient", "searching"] = "omniscient",
        show_attributes: bool = False,
        search_anywhere: bool = False,
        per_page: int = PER_PAGE,
        tagger: str = LEXICON,
        **kwargs: Any,
    ) -> None:
        """Create the environment; the catalogue is opened, or built first, when it is needed.

        Args:
            data: Folder of the official files, or their product file; a catalogue generated
                from ``catalogue_seed`` unless given.
            products: Number of products of a generated catalogue.
            catalogue_seed: Its seed.
            goals: One per combination of options (``synthetic``), or instructions written by people
                (``human``).
            observation: How a page is rendered; see ``pages``.
            rules: How a purchase is compared with the goal; see ``reward``.
            reward: 1 for buying exactly what was asked for (``outcome``), or the score of any
                purchase (``dense``).
            oracle: Query of ``oracle``: the title of the product (``omniscient``), or words of the
                instruction (``searching``, for imitation).
            show_attributes: Items have a page that lists their attributes.
            search_anywhere: Searching works on every page.
            per_page: Products on a page of results; fewer make shorter texts.
            tagger: Library that finds the nouns of a title; see ``nouns``.
            **kwargs: See ``TextEnv``.

        Raises:
            ConfigError: A value is not one of these, or the files do not exist.
            MissingExtra: A library is not installed.
        """
        super().__init__(**kwargs)
        if not all(map(find_spec, _NEEDS)):
            raise MissingExtra(f'{ENV} needs more libraries: pip install "agentic-gym[webshop]"')
        one_of("goals", goals, ("synthetic", "human"))
        one_of("observation", observation, pages.MODES)
        one_of("rules", rules, get_args(Rules))
        one_of("reward", reward, ("outcome", "dense"))
        one_of("oracle", oracle, ("omniscient", "searching"))
        self.source: Source = (
            files.find(data) if data else SyntheticCatalogue(products, catalogue_seed)
        )
        self.kind, self.mode, self.rules, self.tagger = goals, observation, rules, tagger
        self.dense = reward == "dense"
        self.searching = oracle == "searching"
        if per_page < 1:
            raise ConfigError(f"per_page={per_page}: a page of results shows at least 1")
        self._layout = (show_attributes, search_anywhere, per_page)
        self._shop: Shop | None = None
        self._goal: Goal | None = None
        self.session = Session()
        """The state of the visit; immutable."""
        self.purchase: Reward | None = None
        """The reward of the purchase, once something was bought."""

    @property
    def is_over(self) -> bool:
        """Whether something was bought."""
        return self.session.place is Place.DONE

    @property
    def catalogue(self) -> Catalogue:
        """The products; one object for all environments of this process."""
        return self._open().catalogue

    def nodes(self) -> tuple[pages.Node, ...]:
        """The nodes of the current page."""
        return pages.nodes(self._open(), self.session, self._wanted().instruction)

    def tasks(self, split: str) -> Names:
        """Goals by their place after the original's shuffle."""
        return Names(self._prefix(), split_range(split, self.catalogue.goal_count))

    def prepare(self, tasks: Sequence[str], progress: Progress | None = None) -> None:
        """Build the catalogue, if this host has none yet."""
        open_catalogue(self.source, self.kind, progress)

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Open the front page; ``rng`` is not used."""
        number = task.removeprefix(self._prefix())
        plain = number.isascii() and number.isdecimal() and str(int(number)) == number
        if number == task or not plain or int(number) >= self.catalogue.goal_count:
            raise unknown_task(ENV, task, [f"{self._prefix()}0"])
        self._goal = self.catalogue.goal(int(number))
        self.session, self.purchase = Session(), None
        return Opening(self._page(), self._goal.instruction, self._goal.category)

    def act(self, action: str) -> Outcome:
        """Search, click or buy; anything else leaves the page as it is."""
        after = act(self._open(), self.session, parse(action))
        if after is None:
            return self._outcome(valid=False)
        self.session = after
        if self.is_over:
            bought = self.catalogue.product(after.row)
            self.purchase = self._worth(bought, dict(after.options))
        return self._outcome(valid=True)

    def manual(self) -> str:
        """The two commands and what they do."""
        return MANUAL

    def admissible(self) -> tuple[str, ...]:
        """The clicks, or the search, that the page offers."""
        if self.session.place is Place.INDEX:
            return ("search[<your query>]",)
        return tuple(sorted(f"click[{text}]" for text in pages.clickables(self.nodes())))

    def oracle(self) -> tuple[str, ...] | None:
        """Actions that buy the goal's product with its options; None where there are none."""
        return plan(
            self._open(),
            self.session,
            self._wanted(),
            lambda product, chosen: self._worth(product, chosen).total == 1,
            searching=self.searching,
        )

    def fork(self) -> Self:
        """An independent copy of the visit; it shares the catalogue."""
        return self.shallow_copy()

    def _worth(self, bought: Product, chosen: dict[str, str]) -> Reward:
        return judge(bought, self._wanted(), chosen, rules=self.rules, tagger=self.tagger)

    def _outcome(self, *, valid: bool) -> Outcome:
        done = self.is_over
        score = self.purchase.total if self.purchase else 0.0
        won = score == 1.0
        # Paid once: actions after the purchase earn nothing.
        reward = (score if self.dense else float(won)) if valid and done else 0.0
        return Outcome(self._page(), reward, score, won, done, valid)

    def _page(self) -> str:
        goal = self._wanted()
        return pages.render(self._open(), self.session, goal.instruction, self.mode, self.task_id)

    def _open(self) -> Shop:
        if self._shop is None:
            self._shop = Shop(open_catalogue(self.source, self.kind), *self._layout)
        return self._shop

    def _prefix(self) -> str:
        return f"{self.kind}-{self.catalogue.digest[:8]}-"

    def _wanted(self) -> Goal:
        if self._goal is None:
            raise EnvError("no WebShop task is running; call reset() first")
        return self._goal

    def _info(self) -> dict[str, Any]:
        parts = {} if self.purchase is None else {"purchase": self.purchase._asdict()}
        return {**super()._info(), **parts}
