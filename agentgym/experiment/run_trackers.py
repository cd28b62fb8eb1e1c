"""The trackers of a run, from its settings and its folder."""

from __future__ import annotations

import yaml

from agentgym.experiment.run_folder import RunFolder
from agentgym.run_report.run import flat
from agentgym.settings import Experiment
from agentgym.tracking.start import start_trackers
from agentgym.tracking.tracker import TrackedRun, Trackers
from agentgym.utils.progress import Display


def trackers_of(experiment: Experiment, folder: RunFolder, display: Display) -> Trackers:
    """Start or continue the trackers that the settings name."""
    if not experiment.track:
        return Trackers()
    latest = folder.latest_step()
    text = folder.config.read_text(encoding="utf-8") if folder.config.is_file() else "{}"
    settings = {
        name: value if isinstance(value, str | int | float | bool) else str(value)
        for name, value in flat(yaml.safe_load(text))
    }
    run = TrackedRun(
        name=folder.root.resolve().name,
        folder=folder.root,
        settings=settings,
        step=0 if latest is None else int(latest.name.removeprefix("step-")),
    )
    return start_trackers(experiment.track, run, display.say)
