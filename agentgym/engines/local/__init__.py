"""The local engine: continuous batching over a KV cache that persists between turns."""
