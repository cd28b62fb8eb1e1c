"""The files of a new package with one environment."""

from __future__ import annotations

import keyword
import re
import sys
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from agentgym.errors import ConfigError

_FILES = {
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
    "__init__.py.txt": "{package}/__init__.py",
    "world.py.txt": "{package}/world.py",
    "test_world.py.txt": "tests/test_world.py",
}
"""Template to path of the file written from it."""


def new_environment(name: str, into: Path) -> tuple[str, Path]:
    """Write a package with a small environment that keeps the contract, ready to be changed.

    Args:
        name: Lower-case words joined by hyphens, such as ``lost-key``.
        into: Folder in which the package's own folder, called ``name``, is made.

    Returns:
        The id that the environment registers, and the folder.

    Raises:
        ConfigError: The name is not valid, is taken by an installed package, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(
            f"{name!r} is not a package name: expected lower-case words such as lost-key"
        )
    package, folder = name.replace("-", "_"), into / name
    if keyword.iskeyword(package):
        raise ConfigError(f"{name!r} is a keyword of Python: choose another name")
    if package in sys.stdlib_module_names or find_spec(package) is not None:
        raise ConfigError(f"a package {package!r} is installed already: choose another name")
    if folder.exists():
        raise ConfigError(f"{folder} exists already: choose another name, or remove it")
    world = "".join(word.capitalize() for word in name.split("-"))
    names = {"name": name, "package": package, "world": world, "id": f"{package}/{world}-v0"}
    into.mkdir(parents=True, exist_ok=True)
    # Moved to its place when it is whole.
    with tempfile.TemporaryDirectory(dir=into, prefix=f".{name}.") as made:
        whole = Path(made, name)
        for template, place in _FILES.items():
            path = whole / place.format(package=package)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = files("agentgym.cli").joinpath("templates", template).read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(names), encoding="utf-8")
        whole.rename(folder)
    return names["id"], folder
