"""Turn values of recorded or fresh episodes, under the policy that played them or another one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentgym.errors import ConfigError
from agentgym.evaluation.files import default_path, read_header
from agentgym.evaluation.record_files import read_episodes
from agentgym.evaluation.records import EpisodeRecord
from agentgym.experiment.assemble import engines_of, executor_of
from agentgym.experiment.evaluations import evaluate_panel
from agentgym.experiment.job import Job
from agentgym.experiment.run_folder import RunFolder, fingerprint
from agentgym.experiment.sources import is_policy
from agentgym.probe.continuations import Effort, turn_values
from agentgym.probe.files import ValuedEpisode, values_path, write_values
from agentgym.rollout.player import Player
from agentgym.settings import Experiment
from agentgym.types import Task
from agentgym.utils.concurrency import gather, run_sync
from agentgym.utils.progress import Display, Fact

AT_ONCE = 4
"""Tasks probed side by side: more of them would displace one another's prefixes from the cache
of the engine, from which all continuations of a state are copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is probed, and by which policy."""

    experiment: Experiment
    """Environment, model and limits of the continuations."""
    episodes: Path | None = None
    """File of recorded episodes; None plays the panel first."""
    continue_with: str | None = None
    """The model that continues, where it is another one than the episodes' own."""
    first: int | None = None
    """Number of episodes, the first ones of the file; None: all."""
    out: Path | None = None
    """The file of values; None: beside the episodes."""
    effort: Effort = field(default_factory=Effort)


@dataclass(frozen=True, slots=True)
class Probed:
    """Values, and how they came about."""

    episodes: list[ValuedEpisode]
    states: int
    """Different states in them."""
    continuations: int
    policy: str
    note: str
    path: Path


def probe_blocking(wanted: Probe, display: Display) -> Probed:
    """Estimate the values and write their file.

    Raises:
        ConfigError: There is no such file or model, or the environment cannot fork.
        NotReplayable: The environment answers differently than in the record.
    """
    return run_sync(lambda: _probe(wanted, display))


async def _probe(wanted: Probe, display: Display) -> Probed:
    experiment = wanted.experiment
    policy = wanted.continue_with or experiment.model
    if policy is None or is_policy(policy, experiment) or experiment.engine == "openai":
        raise ConfigError(
            f"turn values need a model that samples tokens from a given state, got {policy}: name "
            f"a checkpoint or a Hugging Face model"
        )
    engines = engines_of(experiment, report=display.say)
    async with executor_of(experiment.rollout) as executor, engines:
        root = RunFolder(Path())
        job = Job(experiment, root, display, executor, engines)
        how = _forks(job)
        path = wanted.episodes or await _play_panel(job, wanted)
        records = _records(path, wanted.first)
        own = wanted.continue_with is None and _sampled_by(path, policy, job)
        tokenizer, model = job.loaded(policy)
        player = job.player(tokenizer, model, "probe", job.panel_temperature)
        found, states, played = await _values(player, records, wanted.effort, display, own=own)
    episodes = [found[number] for number in range(len(records))]
    out = wanted.out or values_path(path)
    header = {
        "episodes": path.name,
        "policy": str(policy),
        "own": own,
        "half_width": wanted.effort.half_width,
        "temperature": job.panel_temperature,
    }
    write_values(out, header, episodes)
    return Probed(episodes, states, played, str(policy), how, out)


async def _values(
    player: Player, records: Sequence[EpisodeRecord], effort: Effort, display: Display, *, own: bool
) -> tuple[dict[int, ValuedEpisode], int, int]:
    """The values of each record, and the counts of states and continuations."""
    groups: dict[Task, list[int]] = {}
    for number, record in enumerate(records):
        groups.setdefault(record.key[0], []).append(number)
    limit = asyncio.Semaphore(AT_ONCE)
    found: dict[int, ValuedEpisode] = {}
    states = played = 0
    with display.stage("probe", len(records)) as advance:

        async def one(numbers: Sequence[int]) -> None:
            nonlocal states, played
            async with limit:
                each = await turn_values(player, [records[n] for n in numbers], effort, own=own)
            found.update(zip(numbers, each.episodes, strict=True))
            states, played = states + each.states, played + each.continuations
            advance(len(found), Fact("continuations", f"{played:,}"))

        await gather(map(one, groups.values()))
    return found, states, played


def _forks(job: Job) -> str:
    """How the environment reaches a state again, in words.

    Raises:
        ConfigError: It cannot.
    """
    bare = job.world()
    promised = bare.promises.fork
    bare.close()
    if promised == "no":
        raise ConfigError(
            f"{job.source.id} cannot fork, so that no state can be continued: turn values need an "
            f"environment that forks"
        )
    if promised == "replay":
        return "the environment replays the actions to reach a state again."
    return "the environment copies a state."


async def _play_panel(job: Job, wanted: Probe) -> Path:
    """Fresh episodes of the panel, in a file of their own."""
    assert wanted.experiment.model is not None, "checked by the caller"
    spec = job.spec(wanted.experiment.model)
    panel = job.panel(wanted.experiment.panel.split).head(wanted.experiment.panel.tasks)
    path = default_path(panel, spec)
    await evaluate_panel(job, wanted.experiment.model, "episodes to probe", path)
    return path


def _records(path: Path, first: int | None) -> Sequence[EpisodeRecord]:
    if not path.is_file():
        raise ConfigError(f"no file of episodes at {path}")
    found = [record for record in read_episodes(path) if record.stop.scored and record.turns]
    if not found:
        raise ConfigError(f"{path} has no scored episode with a turn in it")
    return found[:first]


def _sampled_by(path: Path, policy: str | Path, job: Job) -> bool:
    """Whether the header of an evaluation names this very model and temperature."""
    try:
        _, spec = read_header(path)
    except ConfigError:
        return False
    return spec.model == fingerprint(policy) and (
        spec.settings.get("temperature") == job.panel_temperature
    )
