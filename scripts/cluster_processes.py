"""A loopback Ray cluster of several nodes, its processes, and ways to kill them."""

from __future__ import annotations

import os
import random
import re
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memory import megabytes

MARK = "AGENTGYM_CLUSTER_MARK"
"""Environment variable that all processes of a cluster inherit, wherever they end up."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    # After this the processes of a cluster give up a head that died.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    "OMP_NUM_THREADS": "1",
}
STORE = 100_000_000
"""Bytes of a node's object store."""


class Loopback:
    """A head and two more nodes, each a set of processes of this machine.

    Args:
        cpus: Of every node, for Ray.
    """

    def __init__(self, cpus: int = 2) -> None:
        self.mark = uuid.uuid4().hex
        os.environ.update(SETTINGS, **{MARK: self.mark})
        self.cpus = cpus
        self.start()

    def start(self) -> None:
        """Start all nodes."""
        from ray.cluster_utils import Cluster

        head = {"num_cpus": self.cpus, "object_store_memory": STORE, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add() for _ in range(2)]

    @property
    def address(self) -> str:
        """Where a run finds it."""
        return str(self.cluster.address)

    def add(self) -> object:
        """Start another node."""
        return self.cluster.add_node(num_cpus=self.cpus, object_store_memory=STORE)

    def processes(self, pattern: str = "") -> list[int]:
        """Ids of the cluster's processes, and of what they started, by their command line."""
        wanted, found = f"{MARK}={self.mark}".encode(), []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if wanted in (entry / "environ").read_bytes().split(b"\0") and command:
                    found += [int(entry.name)] if re.search(pattern, command) else []
            except OSError:
                continue
        return found

    def megabytes(self) -> float:
        """Memory of all of them."""
        total = 0.0
        for process in self.processes("ray::"):
            try:
                total += megabytes(process)
            except (OSError, RuntimeError):
                continue
        return total

    def kill_node(self) -> None:
        """Kill a node that is not the head, at once, and add another one."""
        node = self.nodes.pop(0)
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.add())

    def kill_head(self) -> None:
        """Kill the head; what is left of the cluster ends by itself."""
        head: Any = self.cluster.head_node
        head.kill_all_processes(check_alive=False, allow_graceful=False)

    def end(self) -> list[int]:
        """End all nodes; the processes that are left after a while."""
        self.cluster.shutdown()
        deadline = time.monotonic() + 30
        while (left := self.processes("ray::|forkserver")) and time.monotonic() < deadline:
            time.sleep(0.5)
        for process in left:
            os.kill(process, signal.SIGKILL)
        return left

    def faults(self, rng: random.Random) -> dict[str, Callable[[], None]]:
        """What can be killed, by name."""

        def one(pattern: str) -> Callable[[], None]:
            def kill() -> None:
                found = []
                while not found:
                    found = self.processes(pattern)
                os.kill(rng.choice(sorted(found)), signal.SIGKILL)

            return kill

        return {
            "world": one(r"multiprocessing\.forkserver"),
            "player": one("ray::PlayerActor"),
            "engine": one("ray::EngineActor"),
            "broadcast": one("ray::EngineActor"),
            "trainer": one("ray::RankActor"),
            "node": self.kill_node,
            "head": self.kill_head,
        }
