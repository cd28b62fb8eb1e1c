"""From a task to a trajectory: the agent, its action formats, the player, branching."""
