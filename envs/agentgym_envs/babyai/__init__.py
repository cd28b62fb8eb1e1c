"""BabyAI's missions in a grid of rooms, as text; levels, rules and bot are those of `minigrid`."""
