"""The connection to a Ray cluster: joining it, reserving room on it, waiting for a call."""

from __future__ import annotations

import asyncio
import os
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.errors import AgentGymError, ConfigError, MissingExtra, one_line
from agentgym.settings import ClusterSettings

LOCAL = "local"
"""Address of a cluster of this machine alone, which ends with this process."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # By default workers get what other processes leave.
}
"""Environment variables for Ray, unless they are set already."""
Bundle = Mapping[str, float]
"""Resources of one process, such as ``{"CPU": 1}``."""


class Lost(AgentGymError):
    """A process of the cluster died, or its answer was lost with its machine."""


def ray_library() -> Any:
    """The module ``ray``.

    Raises:
        MissingExtra: It is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as problem:
        raise MissingExtra(
            f'`--cluster.address` needs Ray: pip install "agentic-gym[ray]" ({one_line(problem)})'
        ) from problem
    return ray


def connect(settings: ClusterSettings) -> None:
    """Join the cluster of the settings, unless this process belongs to one.

    Raises:
        ConfigError: There is none at this address.
        MissingExtra: Ray is not installed.
    """
    if settings.address == LOCAL:
        # Ray listens on every interface: only the processes of this run know the token.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = ray_library()
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if settings.address == LOCAL:
        processes = settings.trainers + settings.engines + settings.players
        # Processes of a small machine share its cores.
        cpus = max(processes, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=settings.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as problem:
        raise ConfigError(
            f"no Ray cluster answers at cluster.address {settings.address!r}: start one with "
            f"`ray start --head`, or use `--cluster.address local` for this machine alone "
            f"({one_line(problem)})"
        ) from problem


def disconnect() -> None:
    """Leave the cluster; all processes that this one started end."""
    ray_library().shutdown()


def bundle() -> Bundle:
    """Resources of a process that trains or samples: a core, and a GPU where there are GPUs."""
    gpus = ray_library().cluster_resources().get("GPU", 0)
    return {"CPU": 1, "GPU": 1} if gpus else {"CPU": 1}


def place(what: str, bundles: Sequence[Bundle], strategy: str, timeout: float) -> Any:
    """Reserve room for processes.

    Args:
        what: The setting with their number.
        bundles: What each of them needs.
        strategy: ``PACK`` on few machines, or ``SPREAD`` over many.
        timeout: Seconds until there must be room.

    Returns:
        The placement group.

    Raises:
        ConfigError: The cluster has no room.
    """
    ray = ray_library()
    from ray.util.placement_group import placement_group, remove_placement_group

    named = f"{_prefix()}{what}-{uuid.uuid4().hex}"
    group = placement_group([dict(each) for each in bundles], strategy=strategy, name=named)
    if not ray.wait([group.ready()], timeout=timeout)[0]:
        remove_placement_group(group)
        needed = {name: sum(each[name] for each in bundles) for name in bundles[0]}
        free = {name: ray.available_resources().get(name, 0.0) for name in needed}
        words = ", ".join(
            f"{needed[name]:g} {name} of which {free[name]:g} are free" for name in free
        )
        raise ConfigError(
            f"cluster.{what} is {len(bundles)}, which needs {words}, and the cluster had no room "
            f"within {timeout:g} s: ask for less, or add machines with `ray start --address`"
        )
    return group


def end_all() -> None:
    """End all processes of this run and give back their room, also for one that died.

    Removing a reservation ends the processes in it.
    """
    from ray.util.placement_group import (
        get_placement_group,
        placement_group_table,
        remove_placement_group,
    )

    for row in placement_group_table().values():
        if row["name"].startswith(_prefix()) and row["state"] != "REMOVED":
            remove_placement_group(get_placement_group(row["name"]))


def _prefix() -> str:
    """What the names of this run's reservations begin with."""
    return f"agentgym-{ray_library().get_runtime_context().get_job_id()}-"


def start_in(
    group: Any, number: int, needs: Bundle, kind: type, *arguments: Any, calls: int
) -> Any:
    """Start an actor in its place; returns its handle at once.

    Args:
        group: The placement group.
        number: Of the place.
        needs: Resources of the place.
        kind: Class of the actor.
        *arguments: Of its constructor.
        calls: Most calls in flight.
    """
    ray = ray_library()
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    actor = ray.remote(kind).options(
        num_cpus=needs["CPU"],
        num_gpus=needs.get("GPU", 0),
        max_concurrency=calls,
        max_restarts=0,
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, number),
    )
    return actor.remote(*arguments)


async def call(method: Any, *arguments: Any) -> Any:
    """The answer of an actor's method.

    Raises:
        Lost: Its process died, or the answer was lost.
        Exception: What the method raised.
    """
    ray = ray_library()
    from ray.exceptions import RayError, RayTaskError

    reference = method.remote(*arguments)
    try:
        return await reference
    except asyncio.CancelledError:
        ray.cancel(reference)
        raise
    except RayTaskError as problem:
        cause = problem.cause
        if isinstance(cause, RayError):
            raise lost(cause) from problem
        raise cause from problem
    except RayError as problem:
        raise lost(problem) from problem


def lost(problem: Exception) -> Lost:
    """Why an answer was lost: the first sentence of what Ray has to say."""
    return Lost(one_line(problem).split(". ")[0])


def kill(actor: Any) -> None:
    """End an actor's process now."""
    ray_library().kill(actor)
