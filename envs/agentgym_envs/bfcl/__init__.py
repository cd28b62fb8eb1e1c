"""Multi-turn function calling: tasks, functions and checks of the Berkeley leaderboard (BFCL)."""
