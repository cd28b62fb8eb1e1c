"""Episodes in the formats of other projects: export, and import into our records.

Every format is one file. All go through ``conversation``: an episode as messages with their roles.
"""
