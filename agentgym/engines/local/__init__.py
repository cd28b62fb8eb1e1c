"""Our own engine: continuous batching over a key/value cache that outlives the turn."""
