"""Small helpers without a room of their own: concurrency, JSON lines, bounds, YAML, progress."""
