"""Environments of other libraries, named ``KIND:TARGET``, such as ``openenv:http://127.0.0.1:8000``.

Only names are here. The classes live in ``agentgym.interop`` and are imported when they are needed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class Scheme(NamedTuple):
    """A kind of foreign environment."""

    entry_point: str
    """``module:Class`` of its adapter."""
    target: str
    """What stands behind the colon, for help texts."""


SCHEMES: dict[str, Scheme] = {
    "gym": Scheme("agentgym.interop.gymnasium_env:GymnasiumWorld", "id, or file.py:Class"),
    "nemo-gym": Scheme(
        "agentgym.interop.nemo_gym_env:NeMoGymWorld", "URL of a resource server, with --data ROWS"
    ),
    "openenv": Scheme("agentgym.interop.openenv.others:OthersWorld", "URL of an OpenEnv server"),
    "reasoning-gym": Scheme(
        "agentgym.interop.reasoning_gym_env:ReasoningGymWorld", "name of a dataset"
    ),
    "skyrl-gym": Scheme("agentgym.interop.skyrl_gym_env:SkyRLGymWorld", "id, with --data ROWS"),
    "textarena": Scheme("agentgym.interop.textarena_env:TextArenaWorld", "id of a game for one"),
    "verifiers": Scheme("agentgym.interop.verifiers_env:VerifiersWorld", "id of a taskset"),
    "verifiers-v0": Scheme(
        "agentgym.interop.verifiers_classic_env:ClassicVerifiersWorld", "id of a classic one"
    ),
    "trl": Scheme("agentgym.interop.trl_env:TRLWorld", "file.py:Class"),
}
"""Prefix of a name to its kind."""

_FILE = re.compile(r"(.+\.py)(:[^\W\d]\w*)?")


def split(name: str) -> tuple[str, str] | None:
    """Kind and target of a name; None where it names no foreign environment.

    Examples:
        >>> split("openenv:http://127.0.0.1:8000")
        ('openenv', 'http://127.0.0.1:8000')
        >>> split("agentgym/Hotter-v0")
    """
    kind, colon, target = name.partition(":")
    return (kind, target) if colon and target and kind in SCHEMES else None


def absolute(name: str) -> str:
    """With the absolute path where the target is a file, so that it is valid in other folders."""
    kind, _, target = name.partition(":")
    if found := _FILE.fullmatch(target):
        return f"{kind}:{Path(found[1]).expanduser().resolve()}{found[2] or ''}"
    return name


def label(name: str) -> str:
    """Without the folder of a file, so that it is equal on every machine."""
    kind, _, target = name.partition(":")
    if found := _FILE.fullmatch(target):
        return f"{kind}:{Path(found[1]).name}{found[2] or ''}"
    return name
