"""What a turn was worth: continuations of recorded episodes from every turn, by any policy.

A room of its own: it plays like ``rollout`` and measures like ``evaluation``, but its subject is a
state in the middle of an episode, which only an environment that forks can return to.
"""
