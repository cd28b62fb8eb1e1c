"""ScienceWorld's real simulator: one Java machine per process, many episodes on it."""
