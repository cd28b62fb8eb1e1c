"""Run by test_broadcast.py: engines on a loopback cluster that get weights by broadcast.

    python tests/broadcast_worker.py FATE

Three engines; the fate of the second one is ``none``, ``killed between``, ``killed joining``,
``killed within`` or ``stopped within`` two publications. Prints one JSON line about the weights.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
import warnings
from functools import partial
from typing import Any

warnings.simplefilter("ignore")

from engine_contract import TIED, model_of, words  # noqa: E402

from agentgym.cluster import broadcast  # noqa: E402
from agentgym.cluster.broadcast import Broadcaster  # noqa: E402
from agentgym.cluster.connect import (  # noqa: E402
    bundle,
    call,
    connect,
    disconnect,
    place,
    start_in,
)
from agentgym.cluster.engines import EngineActor  # noqa: E402
from agentgym.cluster.roster import Roster  # noqa: E402
from agentgym.engines.local.engine import LocalEngine  # noqa: E402
from agentgym.engines.weight_group import buckets_of  # noqa: E402
from agentgym.engines.weight_stream import WeightStream  # noqa: E402
from agentgym.settings import ClusterSettings  # noqa: E402
from agentgym.types import Sampling  # noqa: E402

ENGINES, TIMEOUT = 3, 10.0
MIDDLE = 9
"""Weights after which the fate of an engine is fulfilled."""


class Fragile(LocalEngine):
    """An engine that gets a signal in the middle of its next weights."""

    fate = 0

    def load_stream(self, weights, version):
        def arriving():
            for n, (name, weight) in enumerate(weights):
                if self.fate and n == MIDDLE:
                    os.kill(os.getpid(), self.fate)
                yield name, weight

        super().load_stream(WeightStream(weights.shapes, arriving()), version)


def digest(engine):
    """Of all bytes of the weights that an engine samples with."""
    views = engine._decoder._weights._views
    parts = [name.encode() + views[name].numpy().tobytes() for name in sorted(views)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@contextlib.contextmanager
def engine():
    yield Fragile(model_of(TIED), slots=4, context=128)


class Actor(EngineActor):
    """An engine that says what it holds."""

    joins = True

    async def held(self):
        held: Any = self.engine
        return held.version, digest(held)

    async def doom(self, fate):
        held: Any = self.engine
        held.fate = fate

    async def doom_join(self):
        self.joins = False

    async def join(self, meeting, rank):
        if not self.joins:
            os.kill(os.getpid(), signal.SIGKILL)
        await super().join(meeting, rank)

    async def pid(self):
        return os.getpid()


def expected(seed):
    return digest(LocalEngine(model_of(TIED, seed), slots=4, context=128))


async def main(fate):
    lines, found = [], {}
    settings = ClusterSettings(address="local", engines=ENGINES, players=1)
    group = place("engines", [bundle()] * ENGINES, "SPREAD", 60)

    def start(number):
        return start_in(group, number, bundle(), Actor, engine, calls=100)

    roster = Roster("engine", settings.engines, start, lines.append)
    await roster.open()
    roster.broadcaster = Broadcaster("gloo", TIMEOUT)

    async def publish(version):
        """Weights whose seed is the version; seconds, and whether all that live have them."""
        start, weights = time.monotonic(), model_of(TIED, version).state_dict()
        roster.source = lambda: weights
        await asyncio.to_thread(roster.publish, weights, version)
        seconds = time.monotonic() - start
        held = await asyncio.gather(*(call(seat.actor.held) for seat in roster.seats))
        return seconds, len(held), set(held) == {(version, expected(version))}

    found["first"] = await publish(1)
    doomed = roster.seats[1].actor
    asked = words(20, 0), Sampling(max_tokens=100)
    flying = [asyncio.ensure_future(call(seat.actor.generate, *asked)) for seat in roster.seats]
    if fate == "killed between":
        os.kill(await call(doomed.pid), signal.SIGKILL)
    elif fate == "killed joining":
        roster.broadcaster.close()
        await call(doomed.doom_join)
    elif fate.endswith("within"):
        sent = signal.SIGKILL if fate.startswith("killed") else signal.SIGSTOP
        await call(doomed.doom, sent)
    try:
        found["second"] = await publish(2)
    except Exception as problem:
        found["second"] = repr(problem)
    answers = await asyncio.gather(*flying, return_exceptions=True)
    found["versions"] = [sorted(set(a.token_versions)) for a in answers if hasattr(a, "tokens")]
    while len(roster.seats) < ENGINES:
        await asyncio.sleep(0.1)
    held = await asyncio.gather(*(call(seat.actor.held) for seat in roster.seats))
    found["all"] = set(held) == {(2, expected(2))}
    found["third"] = await publish(3)
    await roster.close()
    return found | {"lines": lines, "deaths": roster.deaths}


if __name__ == "__main__":
    broadcast.buckets_of = partial(buckets_of, size=4096)
    connect(ClusterSettings(address="local", engines=ENGINES, players=1))
    try:
        sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1]))) + "\n")
    finally:
        disconnect()
