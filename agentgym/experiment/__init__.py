"""One run: its stages, preflight checks, run folder and logs."""
