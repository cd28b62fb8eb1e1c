"""Doors: environments of other libraries here, our environments in other libraries.

One file per foreign kind, and nothing else in the project knows any of them. Their packages are
imported when an environment is made, never before. What a kind cannot promise, such as forks, its
class declares (``TextEnv.promises``).
"""
