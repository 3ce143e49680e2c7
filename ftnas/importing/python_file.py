"""A net in a Python file of the user's. This is the one place in ftnas that runs code, and only what a user allows."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ftnas.consent import demand_allowed
from ftnas.errors import ModelError
from ftnas.importing.mistakes import said
from ftnas.runtime import key_seed, seeded

# What a net's class may ask for, by the names that people use.
CLASSES, IMAGE_SHAPE = ("classes", "num_classes"), "image_shape"


def load_python(file: Path, name: str, *, image_shape: tuple[int, ...], classes: int, seed: int = 0) -> nn.Module:
    """Run ``file`` and return the net called ``name`` in it.

    ``name`` may be a net, a function that returns one, or a class of nets. A function or class is given ``classes=`` or
    ``num_classes=``, and ``image_shape=``, where it takes them. What the file draws at random follows from ``seed``,
    and what it prints goes to standard error.

    Args:
        file: the Python file; modules beside it can be imported from it.
        name: of the net, without dots.
        image_shape: of one image, channels first.
        classes: how many the data set has.
        seed: of the initialisation.

    Raises:
        ModelError: the file cannot be read or run, lacks the name, or has something else there.
    """
    place = f"{file}:{name}"
    with _guest(file), seeded("initialisation", seed):
        found = named(file, _run(file), name)
        if not isinstance(found, nn.Module):
            found = _call(found, {**dict.fromkeys(CLASSES, classes), IMAGE_SHAPE: image_shape}, place)
    if not isinstance(found, nn.Module):
        raise ModelError(f"{place}: is a {type(found).__name__}; allowed is a torch.nn.Module, or what returns one")
    return found


def is_class(file: Path, name: str) -> bool:
    """Run ``file`` and return whether ``name`` in it is a class, whose nets are untrained.

    Raises:
        ModelError: the file cannot be read or run, or lacks the name.
    """
    with _guest(file), seeded("initialisation", 0):
        return isinstance(named(file, _run(file), name), type)


def named(file: Path, module: ModuleType, name: str) -> Any:
    """Return what ``module``, which ``file`` became, calls ``name``.

    Raises:
        ModelError: nothing is called so.
    """
    if not hasattr(module, name):
        nets = [key for key, value in vars(module).items() if _is_own_net(module, value)]
        raise ModelError(f"{file}: has nothing called {name!r}; nets there: {', '.join(nets) or 'none'}")
    return getattr(module, name)


def _is_own_net(module: ModuleType, value: object) -> bool:
    if isinstance(value, type):
        return issubclass(value, nn.Module) and value.__module__ == module.__name__
    return isinstance(value, nn.Module)


@contextlib.contextmanager
def _guest(file: Path) -> Iterator[None]:
    """Let code of ``file`` import its neighbours, keep what it prints out of our own output, and write no bytecode."""
    folder, writes_none = str(file.resolve().parent), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.dont_write_bytecode = writes_none
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _run(file: Path) -> ModuleType:
    if not file.is_file():
        raise ModelError(f"{file}: {'is not a file' if file.exists() else 'is not there'}")
    demand_allowed(file)
    # A name that no other module can have; registered, since dataclasses and copies look their module up.
    name = f"_ftnas_user_{key_seed(str(file.resolve())):x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ModelError(f"{file}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ModelError(f"{where(error, file)}: the file does not run: {said(error)}") from error
    return module


def _call(builder: object, offered: Mapping[str, Any], place: str) -> Any:
    """Return what ``builder`` builds, given those of the ``offered`` arguments that it takes."""
    if not callable(builder):
        raise ModelError(
            f"{place}: is a {type(builder).__name__}; allowed is a torch.nn.Module, a class of them, or a function"
        )
    given = {name: offered[name] for name in _wanted(builder, offered, place)}
    try:
        return builder(**given)
    except (Exception, SystemExit) as error:
        raise ModelError(f"{place}: cannot be built: {said(error)}") from error


def _wanted(builder: Callable[..., Any], offered: Mapping[str, Any], place: str) -> list[str]:
    """Return the names of the arguments to give to ``builder``."""
    try:
        parameters = inspect.signature(builder).parameters
    except (TypeError, ValueError):
        return []
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [name for name, p in parameters.items() if p.default is p.empty and p.kind not in fixed]
    unknown = [name for name in needed if name not in offered]
    if unknown:
        raise ModelError(
            f"{place}: needs {', '.join(unknown)}; ftnas gives classes= or num_classes=, and image_shape=, no others"
        )
    return [name for name, p in parameters.items() if name in offered and p.kind is not p.POSITIONAL_ONLY]


def where(error: BaseException, file: Path) -> str:
    """Return ``file`` and the line of it in which ``error`` arose."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"{file}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"{file}, line {lines[-1]}" if lines else str(file)
