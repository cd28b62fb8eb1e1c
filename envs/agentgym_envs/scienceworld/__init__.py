"""ScienceWorld in its own simulator: one Java process, which serves many episodes."""
