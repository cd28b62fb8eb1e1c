"""Trajectories as tensors: rows end to end, their turns, and the tree of shared prefixes."""
