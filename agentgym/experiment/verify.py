"""Playing a sample of recorded episodes again, to see whether they are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agentgym.errors import ConfigError
from agentgym.evaluation.card import episodes_of_card
from agentgym.evaluation.files import Stored, read_file
from agentgym.evaluation.identical import differences, environment_differences
from agentgym.evaluation.records import EpisodeRecord
from agentgym.experiment.assemble import engines_of, executor_of
from agentgym.experiment.evaluations import Evaluated, player_of, replay_of
from agentgym.experiment.parts import RunParts
from agentgym.experiment.run_folder import RunFolder, fingerprint
from agentgym.experiment.sources import is_object, is_policy
from agentgym.settings import Experiment
from agentgym.utils import yaml_config
from agentgym.utils.concurrency import gather, run_sync
from agentgym.utils.progress import Display
from agentgym.utils.versions import versions


@dataclass(frozen=True, slots=True)
class Difference:
    """An episode that is not the recorded one."""

    record: EpisodeRecord
    where: tuple[str, ...]
    """Its fields that differ."""

    def __str__(self) -> str:
        """Such as ``task t3, episode 1: turn 2 tokens, turn 2 logprobs and 3 more``."""
        shown, more = ", ".join(self.where[:3]), len(self.where) - 3
        rest = f" and {more} more" if more > 0 else ""
        return f"task {self.record.task}, episode {self.record.sample}: {shown}{rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a sample of episodes showed."""

    path: Path
    """The file of the episodes."""
    played: int
    """Episodes that were played again."""
    whole: bool
    """The agent played, too; else its recorded actions were sent to the environment."""
    differing: tuple[Difference, ...]
    notes: tuple[str, ...]
    """What cannot be promised, or was noticed."""

    @property
    def same(self) -> bool:
        """Whether every episode is the recorded one."""
        return not self.differing

    def __str__(self) -> str:
        """The result in a few lines."""
        what = "the same, bit for bit" if self.whole else "answered alike by the environment"
        equal = self.played - len(self.differing)
        lines = [f"{self.path}: {equal} of {self.played} episodes are {what}."]
        lines += [f"differs: {each}" for each in self.differing]
        return "\n".join([*lines, *self.notes])


def verify(
    target: Path, *, episodes: int = 20, seed: int = 0, display: Display | None = None
) -> Verification:
    """Play a sample of the episodes of a card, a run or an evaluation file again.

    With the local engine, and for policies without weights, the agent plays again and everything
    must be equal but the timings. Other engines do not promise the same tokens, so the recorded
    actions are sent to the environment and its answers must be equal.

    Args:
        target: The card, the run folder (its evaluation after training) or the file.
        episodes: Most episodes to play.
        seed: Draws the sample.
        display: Where progress is shown.

    Raises:
        ConfigError: The target cannot be verified: no such file, no settings in it, another model
            or other tasks than then.
    """
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}, expected at least 1")
    path, note = _file_of(target)
    stored = read_file(path)
    experiment = _experiment(path, stored)
    records = _sample(stored, episodes, seed)
    if not records:
        raise ConfigError(f"{path} has no finished episode to play again")
    shown = display or Display()
    whole = is_policy(experiment.model, experiment) or experiment.engine == "local"
    found = run_sync(lambda: _play(experiment, stored, records, whole, shown))
    return Verification(
        path=path,
        played=len(records),
        whole=whole,
        differing=tuple(found),
        notes=(*filter(None, [note]), *stored.notes, *_notes(experiment, stored, whole)),
    )


def _file_of(target: Path) -> tuple[Path, str]:
    if (target / "config.yaml").is_file():
        return RunFolder(target).evaluation("after"), ""
    if target.suffix == ".md":
        if not target.is_file():
            raise ConfigError(f"no card at {target}")
        return episodes_of_card(target)
    return target, ""


def _experiment(path: Path, stored: Stored) -> Experiment:
    """The settings of the evaluation, with its model."""
    if not stored.spec.experiment:
        raise ConfigError(
            f"{path} holds no settings, as files of older versions: evaluate again to verify"
        )
    found: Experiment = yaml_config.decode(
        Experiment, dict(stored.spec.experiment), where=f"the header of {path}"
    )
    model = stored.spec.name
    for name in (model, found.env, *found.tools):
        if is_object(name):
            raise ConfigError(
                f"{path} is of {name.partition(':')[2]}, a Python object that a file cannot name: "
                f"it cannot be verified from its file"
            )
    experiment = replace(found, model=model)
    if is_policy(model, experiment) or experiment.engine == "openai":
        return experiment
    moved = path.parent.parent / "checkpoints" / Path(model).name
    if path.parent.name == "eval" and not Path(model).exists() and moved.exists():
        experiment = replace(experiment, model=str(moved))
    assert experiment.model is not None, "set above"
    if fingerprint(experiment.model) != stored.spec.model:
        raise ConfigError(
            f"the model {experiment.model} is not the one that was evaluated: its fingerprint is "
            f"{fingerprint(experiment.model)}, that of {path} is {stored.spec.model}"
        )
    return experiment


def _sample(stored: Stored, episodes: int, seed: int) -> list[EpisodeRecord]:
    """Some scored episodes, in the order of the file; of attempts at one, the first scored."""
    scored: dict[object, EpisodeRecord] = {}
    for record in stored.records:
        if record.stop.scored:
            scored.setdefault(record.key, record)
    records = list(scored.values())
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(records), size=min(episodes, len(records)), replace=False)
    return [records[place] for place in sorted(drawn.tolist())]


async def _play(
    experiment: Experiment,
    stored: Stored,
    records: Sequence[EpisodeRecord],
    whole: bool,
    display: Display,
) -> list[Difference]:
    async with executor_of(experiment.rollout) as executor, engines_of(experiment) as engines:
        parts = RunParts(experiment, RunFolder(Path()), display, executor, engines)
        _check_tasks(parts, stored)
        parts.prepare(stored.panel.split, list(dict.fromkeys(each.key[0] for each in records)))
        assert experiment.model is not None, "set by _experiment"
        if whole:
            play, decode = player_of(parts, experiment.model)
        else:
            play, decode = Evaluated(replay_of(parts, records), None)
        compare = differences if whole else environment_differences
        queue, found, done = iter(records), list[Difference](), 0

        async def work() -> None:
            nonlocal done
            for record in queue:
                trajectory = await play(*record.key)
                again = EpisodeRecord.of(trajectory, panel=stored.panel.digest, decode=decode)
                if where := compare(record, again):
                    found.append(Difference(record, where))
                done += 1
                advance(done)

        with display.stage("verify", len(records)) as advance:
            await gather(work() for _ in range(min(experiment.rollout.concurrency, len(records))))
    order = {record.key: place for place, record in enumerate(records)}
    return sorted(found, key=lambda each: order[each.record.key])


def _check_tasks(parts: RunParts, stored: Stored) -> None:
    listed = set(parts.panel(stored.panel.split).tasks)
    gone = [task.id for task in stored.panel.tasks if task not in listed]
    if gone:
        raise ConfigError(
            f"{stored.panel.env} has no task {gone[0]!r} in split {stored.panel.split!r} any more "
            f"({len(gone)} are missing): its version or its data is another one"
        )


def _notes(experiment: Experiment, stored: Stored, whole: bool) -> list[str]:
    notes = []
    if not whole:
        notes.append(
            f"The engine {experiment.engine} does not promise the same tokens, so the agent did "
            f"not play again: tokens, texts and log-probabilities are not checked. The recorded "
            f"actions were sent to the environment."
        )
    elif not is_policy(experiment.model, experiment) and _rounds(experiment):
        notes.append(
            "On a GPU, in bfloat16 or without batch invariance, rounding depends on what else is "
            "in flight: now and then a token may differ without an alteration."
        )
    now = versions()
    changed = [
        f"{name} {then}, now {now[name]}"
        for name, then in stored.spec.versions.items()
        if name != "system" and name in now and now[name] != then
    ]
    if changed:
        notes.append(f"Versions differ from those of the evaluation: {'; '.join(changed)}.")
    return notes


def _rounds(experiment: Experiment) -> bool:
    import torch

    device = experiment.engine_device or ("cuda" if torch.cuda.is_available() else "cpu")
    half = experiment.optimizer.precision == "bfloat16"
    return device != "cpu" or half or not experiment.batch_invariant
