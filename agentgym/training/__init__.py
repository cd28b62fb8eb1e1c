"""From trajectories to new weights: learner, trainer, schedules, warm-up, metrics, alarms."""
