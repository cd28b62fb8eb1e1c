"""Seeds: every random choice is a function of names such as run, step, task and sample."""

from __future__ import annotations

import hashlib


def derive(*names: object) -> int:
    """A 63-bit seed, a function of the names alone."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
