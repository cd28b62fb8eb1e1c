"""Turn values of recorded or fresh episodes, under the policy that played them or another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from agentgym.errors import ConfigError
from agentgym.evaluation.files import default_path, read_header
from agentgym.evaluation.record_files import read_episodes
from agentgym.evaluation.records import EpisodeRecord
from agentgym.experiment.assemble import engines_of, executor_of
from agentgym.experiment.evaluations import evaluate_panel
from agentgym.experiment.job import Job
from agentgym.experiment.probe_processes import Work, default_processes, values_of_tasks
from agentgym.experiment.run_folder import RunFolder, fingerprint
from agentgym.experiment.sources import is_policy
from agentgym.probe.continuations import Effort
from agentgym.probe.files import ValuedEpisode, values_path, write_values
from agentgym.settings import Experiment
from agentgym.types import Task
from agentgym.utils.concurrency import run_sync
from agentgym.utils.progress import Display, Fact


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
    """Number of episodes, task by task; None: all."""
    out: Path | None = None
    """The file of values; None: beside the episodes."""
    effort: Effort = field(default_factory=Effort)
    processes: int | None = None
    """Processes that play; None: see ``probe_processes.default_processes``."""


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
    experiment = wanted.experiment
    policy = wanted.continue_with or experiment.model
    if policy is None or is_policy(policy, experiment) or experiment.engine == "openai":
        raise ConfigError(
            f"turn values need a model that samples tokens from a given state, got {policy}: name "
            f"a checkpoint or a Hugging Face model"
        )
    path, temperature, note = run_sync(lambda: _episodes(wanted, display))
    records = _records(path, wanted.first)
    own = wanted.continue_with is None and _sampled_by(path, policy, temperature)
    found, states, played = _values(wanted, policy, records, display, own=own)
    out = wanted.out or values_path(path)
    header = {
        "episodes": path.name,
        "policy": str(policy),
        "own": own,
        "half_width": wanted.effort.half_width,
        "temperature": temperature,
    }
    write_values(out, header, found)
    return Probed(found, states, played, str(policy), note, out)


class _Episodes(NamedTuple):
    """What is probed."""

    path: Path
    temperature: float
    """With which the policy continues."""
    note: str
    """How the environment reaches a state again."""


async def _episodes(wanted: Probe, display: Display) -> _Episodes:
    """The file of episodes, which are played first where there is none."""
    experiment = wanted.experiment
    async with (
        engines_of(experiment, report=display.say) as engines,
        executor_of(experiment.rollout) as executor,
    ):
        job = Job(experiment, RunFolder(Path()), display, executor, engines)
        note = _forks(job)
        path = wanted.episodes or await _play_panel(job, wanted)
        return _Episodes(path, job.panel_temperature, note)


def _values(
    wanted: Probe, policy: str, records: Sequence[EpisodeRecord], display: Display, *, own: bool
) -> tuple[list[ValuedEpisode], int, int]:
    """The values of each record, in order, and the counts of states and continuations."""
    groups: dict[Task, list[int]] = {}
    for number, record in enumerate(records):
        groups.setdefault(record.key[0], []).append(number)
    places = list(groups.values())
    work = Work(
        experiment=wanted.experiment,
        policy=policy,
        effort=wanted.effort,
        own=own,
        groups=[[records[n] for n in numbers] for numbers in places],
    )
    found: dict[int, ValuedEpisode] = {}
    states = played = 0
    processes = wanted.processes or default_processes(wanted.experiment, len(places))
    with display.stage("probe", len(records)) as advance:
        for task, valued in values_of_tasks(work, processes):
            found.update(zip(places[task], valued.episodes, strict=True))
            states, played = states + valued.states, played + valued.continuations
            advance(len(found), Fact("continuations", f"{played:,}"))
    return [found[number] for number in range(len(records))], states, played


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
    """The first scored episodes, task by task.

    A file has them in the order in which they ended, so that its first ones are the shortest.
    """
    if not path.is_file():
        raise ConfigError(f"no file of episodes at {path}")
    found = [record for record in read_episodes(path) if record.stop.scored and record.turns]
    if not found:
        raise ConfigError(f"{path} has no scored episode with a turn in it")
    try:
        order = {task: place for place, task in enumerate(read_header(path)[0].tasks)}
    except ConfigError:  # Training episodes, in a file without a panel.
        order = {}
    for record in found:
        order.setdefault(record.key[0], len(order))
    return sorted(found, key=lambda record: (order[record.key[0]], record.sample))[:first]


def _sampled_by(path: Path, policy: str | Path, temperature: float) -> bool:
    """Whether the header of an evaluation names this very model and temperature."""
    try:
        _, spec = read_header(path)
    except ConfigError:
        return False
    return spec.model == fingerprint(policy) and spec.settings.get("temperature") == temperature
