"""Environments that are not registered: ``file.py:ClassName`` and ``package.module:ClassName``."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from gymnasium.envs.registration import EnvSpec

from agentgym.env.base import TextEnv
from agentgym.errors import ConfigError, MissingExtra, did_you_mean

_FILE = re.compile(r"(.+\.py):([^\W\d]\w*)")
_MODULE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")
_ID = re.compile(r"[^\w:.-]")


def names_class(name: str) -> bool:
    """Whether a name has the form of a class in a file or a module.

    Examples:
        >>> names_class("envs/treasure.py:Treasure"), names_class("agentgym/Hotter-v0")
        (True, False)
        >>> names_class("package.module:Treasure"), names_class("package.module:ns/Name-v0")
        (True, False)
    """
    return bool(_FILE.fullmatch(name) or _MODULE.fullmatch(name))


def absolute(name: str) -> str:
    """With the absolute path of the file; the name of a class in a module stays as it is."""
    if found := _FILE.fullmatch(name):
        return f"{Path(found[1]).expanduser().resolve()}:{found[2]}"
    return name


def label(name: str) -> str:
    """Without the folder of the file, so that it is equal on every machine."""
    found = _FILE.fullmatch(name)
    return f"{Path(found[1]).name}:{found[2]}" if found else name


def spec(name: str) -> EnvSpec:
    """How the class is made; its turn limit is its attribute ``max_turns``.

    Raises:
        ConfigError: The file, the module or the class does not exist, or cannot be used.
    """
    found = load_class(name)
    limit = found.max_turns
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"{name}: max_turns is {limit!r}, expected a number of turns from 1")
    return EnvSpec(
        as_id(label(name)),
        entry_point=found,  # type: ignore[arg-type]  # a class is called like a function
        max_episode_steps=limit,
    )


def as_id(name: str) -> str:
    """A name with the few characters of Gymnasium's ids; it is only shown."""
    return _ID.sub("_", name)


def load_object(name: str) -> Any:
    """The object behind ``file.py:name`` or ``package.module:name``, such as a function.

    Raises:
        ConfigError: The file, the module or the object does not exist.
    """
    if not names_class(name):
        raise ConfigError(f"got {name!r}, expected `file.py:name` or `module:name`")
    where, _, wanted = name.rpartition(":")
    module = _load_file(Path(where), name) if _FILE.fullmatch(name) else load_module(where, name)
    if not hasattr(module, wanted):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise ConfigError(f"{where} has no {wanted!r}.{did_you_mean(wanted, known)}")
    return getattr(module, wanted)


def load_class(name: str) -> type[TextEnv]:
    """The class behind ``file.py:ClassName`` or ``package.module:ClassName``.

    Raises:
        ConfigError: It does not exist, is abstract, or is not an ``agentgym.TextEnv``.
    """
    found = _FILE.fullmatch(name)
    where, _, wanted = name.rpartition(":")
    module = _load_file(Path(where), name) if found else load_module(where, name)
    kind = getattr(module, wanted, None)
    if kind is None:
        known = [key for key, each in vars(module).items() if _is_env(each, module)]
        raise ConfigError(
            f"{where} has no class {wanted!r}.{did_you_mean(wanted, known)} "
            f"Environments in it: {', '.join(known) or 'none'}"
        )
    if not (inspect.isclass(kind) and issubclass(kind, TextEnv)):
        raise ConfigError(f"{name} is not a subclass of agentgym.TextEnv")
    lacks = [key for key in dir(kind) if getattr(getattr(kind, key), "__isabstractmethod__", False)]
    if lacks:
        raise ConfigError(f"{name} is not complete: write the methods {', '.join(lacks)}")
    return kind


def load_module(module: str, name: str) -> ModuleType:
    """Import a module.

    Args:
        module: Its dotted name.
        name: What the user wrote, for the error.

    Raises:
        ConfigError: It is not there, or fails while it is imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as for a script; a console command has its own folder there
    try:
        return importlib.import_module(module)
    except MissingExtra:
        raise
    except (Exception, SystemExit) as problem:
        raise ConfigError(f"{name} cannot be imported: {_where(problem)}") from problem


def _load_file(path: Path, name: str) -> ModuleType:
    """Run a file as a module, once in a process; its folder becomes importable, as for a script."""
    path = path.expanduser().resolve()
    unique = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if unique in sys.modules:
        return sys.modules[unique]
    if not path.is_file():
        raise ConfigError(f"{name}: there is no file {path}")
    found = spec_from_file_location(unique, path)
    assert found is not None and found.loader is not None
    module = module_from_spec(found)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[unique] = module
    try:
        found.loader.exec_module(module)
    except MissingExtra:
        del sys.modules[unique]
        raise
    except (Exception, SystemExit) as problem:
        del sys.modules[unique]
        raise ConfigError(f"{name} cannot be imported: {_where(problem)}") from problem
    return module


def _is_env(value: object, module: ModuleType) -> bool:
    return (
        inspect.isclass(value)
        and issubclass(value, TextEnv)
        and value.__module__ == module.__name__
    )


def _where(problem: BaseException) -> str:
    """The error with file and line, in one line."""
    if isinstance(problem, SyntaxError):
        place = f"{problem.filename}, line {problem.lineno}: "
    else:
        frames = traceback.extract_tb(problem.__traceback__)
        own = [each for each in frames if not each.filename.startswith("<frozen")]
        last = own[-1] if own else None
        inside = last is not None and last.filename != __file__ and "importlib" not in last.filename
        place = f"{last.filename}, line {last.lineno}: " if last and inside else ""
    text = problem.msg if isinstance(problem, SyntaxError) else problem
    return f"{place}{type(problem).__name__}: {text}"
