"""Any agent program as the player: it calls our endpoint, and what it calls is trained on.

A program that people have already keeps its own prompts, tools and loop. Each episode of it gets an
address and keys of its own. The endpoint records the exact tokens of every call, so that the calls
of an episode are rows of a batch like those of our own agent.
"""
