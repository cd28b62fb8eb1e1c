"""Evaluating what the settings name: a model, a policy without weights, recorded actions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.cost import Prices
from agentgym.evaluation.evaluate import EvalOptions, PlayEpisode, evaluate
from agentgym.evaluation.files import path_of
from agentgym.evaluation.paired import check_panels
from agentgym.evaluation.record_files import read_episodes
from agentgym.evaluation.records import Decode, EpisodeRecord
from agentgym.evaluation.report import Report
from agentgym.experiment.assemble import engines_of, executor_of, program_server_of
from agentgym.experiment.facts import EvalFacts
from agentgym.experiment.parts import RunParts
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.sources import Objects, is_policy
from agentgym.rollout.player import Player
from agentgym.rollout.policies import PolicyPlayer
from agentgym.rollout.replay import REPLAY, ReplayPlayer
from agentgym.settings import Experiment
from agentgym.utils.concurrency import run_sync
from agentgym.utils.progress import Display, Fact

if TYPE_CHECKING:
    from agentgym.engines.chat import ChatEngine


class Evaluated(NamedTuple):
    """What plays a panel."""

    play: PlayEpisode
    decode: Decode | None
    """Its tokens to text; None where it has no tokens."""


def evaluate_blocking(
    experiment: Experiment,
    path: Path | None,
    display: Display,
    before: Report | None = None,
    objects: Objects | None = None,
) -> Report:
    """Evaluate ``experiment.model`` on its panel; an existing file at ``path`` is continued.

    Args:
        experiment: The settings.
        path: The file, or its folder; unset: one in ``evals``.
        display: Where progress is shown.
        before: A report on the same panel that the new one is going to be compared with.
        objects: What the settings cannot name.

    Raises:
        ConfigError: No model is given, or ``before`` is a report on another panel.
    """
    if experiment.model is None:
        raise ConfigError(
            "an evaluation needs a model: a Hugging Face folder, a hub id or a GGUF file"
        )
    model = experiment.model
    return run_sync(lambda: _evaluate(experiment, model, path, display, before, objects))


async def _evaluate(
    experiment: Experiment,
    model: str | Path,
    path: Path | None,
    display: Display,
    before: Report | None,
    objects: Objects | None,
) -> Report:
    async with (
        executor_of(experiment.rollout) as executor,
        engines_of(experiment, report=display.say) as engines,
        program_server_of(experiment) as server,
    ):
        folder = RunFolder(Path() if path is None else path.parent)
        given = objects or Objects()
        parts = RunParts(experiment, folder, display, executor, engines, given, server=server)
        return await evaluate_panel(parts, model, experiment.panel.split, path, before)


async def evaluate_panel(
    parts: RunParts,
    checkpoint: str | Path,
    name: str,
    path: Path | None = None,
    before: Report | None = None,
) -> Report:
    """Play the frozen panel with a model; writes one JSON line per episode.

    Args:
        parts: Environments, engines, settings.
        checkpoint: Folder or hub id of the model, or the name of a policy.
        name: Shown with the progress.
        path: The file, or its folder; unset: one in ``evals`` named after panel, model and
            settings.
        before: A report that the new one is going to be compared with.

    Raises:
        ConfigError: ``before`` is a report on another panel.
    """
    wanted = parts.experiment.panel
    panel = _panel_of(parts, checkpoint)
    if before is not None:
        check_panels(before.panel, panel)
    spec = parts.spec(checkpoint)
    play, decode = await _player(parts, checkpoint)
    chat = _chat_engine(play)
    if chat is not None:
        await chat.reach()
    parts.prepare(wanted.split, panel.tasks)
    watched = EvalFacts(play)
    with parts.display.stage(f"evaluate: {name}", len(panel) * wanted.episodes) as advance:
        return await evaluate(
            panel,
            watched,
            episodes=wanted.episodes,
            path=path_of(path, panel, spec),
            spec=spec,
            options=EvalOptions(
                concurrency=parts.experiment.rollout.concurrency,
                decode=decode,
                progress=lambda done, total, spent: advance(
                    done, *watched.facts(), Fact("cost so far", spent)
                ),
                prices=prices_of(parts.experiment),
                usage=None if chat is None else lambda: chat.usage,
            ),
        )


async def _player(parts: RunParts, checkpoint: str | Path) -> Evaluated:
    """What plays a panel: here, or on the cluster of a training run."""
    if parts.cluster is None:
        return player_of(parts, checkpoint)
    play = await parts.cluster.evaluating(parts, Path(checkpoint))
    return Evaluated(play, parts.agent(parts.tokenizer(checkpoint), checkpoint).decode)


def player_of(parts: RunParts, checkpoint: str | Path) -> Evaluated:
    """What plays a panel: a model, a policy without one, or recorded actions."""
    name, turns = str(checkpoint), parts.experiment.rollout.max_turns
    assert turns is not None, "set by RunParts"
    if name.startswith(REPLAY):
        return Evaluated(replay_of(parts, _recorded(name)), None)
    if is_policy(checkpoint, parts.experiment):
        policy = PolicyPlayer(
            name=name,
            make_env=parts.source.factory(turns),
            max_turns=turns,
            stream=f"{parts.experiment.seed}/evaluation",
        )
        return Evaluated(policy, None)
    tokenizer, model = parts.loaded(checkpoint)
    player = parts.player(tokenizer, model, "evaluation", parts.panel_temperature)
    return Evaluated(player, player.agent.decode)


def replay_of(parts: RunParts, records: Iterable[EpisodeRecord]) -> ReplayPlayer:
    """What plays the actions of recorded episodes again."""
    turns = parts.experiment.rollout.max_turns
    assert turns is not None, "set by RunParts"
    return ReplayPlayer(
        actions={each.key: [turn.action for turn in each.turns] for each in records},
        make_env=parts.source.factory(turns),
        max_turns=turns,
    )


def prices_of(experiment: Experiment) -> Prices:
    """Dollars per million tokens."""
    return Prices(experiment.endpoint.prompt_price, experiment.endpoint.completion_price)


def _panel_of(parts: RunParts, checkpoint: str | Path) -> Panel:
    """The tasks of an evaluation; of recorded actions, those that were played often enough."""
    wanted, name = parts.experiment.panel, str(checkpoint)
    whole = parts.panel(wanted.split)
    if not name.startswith(REPLAY):
        return whole.head(wanted.tasks)
    played = Counter(record.key[0] for record in _recorded(name))
    tasks = [task for task in whole.tasks if played[task] >= wanted.episodes]
    if not tasks:
        raise ConfigError(
            f"{name.removeprefix(REPLAY)} has no task of {whole.env} {whole.split} with "
            f"{wanted.episodes} episodes: choose another split, or fewer `--panel.episodes`"
        )
    return Panel(whole.env, whole.split, tuple(tasks[: wanted.tasks]))


def _recorded(name: str) -> tuple[EpisodeRecord, ...]:
    """The episodes of ``replay:FILE``."""
    return read_episodes(Path(name.removeprefix(REPLAY)))


def _chat_engine(play: PlayEpisode) -> ChatEngine | None:
    """The endpoint that a player asks; None of anything else."""
    from agentgym.engines.chat import ChatEngine

    engine = play.engine if isinstance(play, Player) else None
    return engine if isinstance(engine, ChatEngine) else None
