"""The folder of a run, a training or a comparison: it belongs to one configuration, and keeps what is done already."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ftnas import __version__
from ftnas.checksums import Damaged, read_whole
from ftnas.configuration import read_yaml, validate
from ftnas.errors import RunError
from ftnas.files import write_json, write_text
from ftnas.holding import is_new
from ftnas.pipeline.config import CompareConfig, Recipe, RunConfig, TrainConfig
from ftnas.search.places import shown
from ftnas.space import SearchSpace
from ftnas.untrusted import demand_closed

# What may differ between two starts of one run: it decides where and how fast, not what is computed.
FREE_KEYS = ("workers", "threads", "device")

CONFIG, SPACE, ENVIRONMENT = "config.yaml", "space.yaml", "environment.json"
TRAIN_CONFIG, COMPARE_CONFIG = "training.yaml", "nets.yaml"


@dataclass(frozen=True)
class Workplace:
    """A folder in which nets are trained and measured.

    Attributes:
        path: of the folder.
        config: that it belongs to.
        space: of the cells that are trained there; ``None`` where none are.
    """

    path: Path
    config: Recipe
    space: SearchSpace | None

    def file(self, *parts: str) -> Path:
        """Return the path of a file in this folder."""
        return self.path.joinpath(*parts)

    def training(self, name: str) -> Path:
        """Return the folder of the training ``name``: of a folder that is of one training, itself."""
        return self.path if isinstance(self.config, TrainConfig) else self.file("trainings", name)


@dataclass(frozen=True)
class RunFolder(Workplace):
    """The folder of a search, which has a space."""

    config: RunConfig
    space: SearchSpace


@dataclass(frozen=True)
class ComparisonFolder(Workplace):
    """The folder of a comparison of nets, which has no cells to train."""

    config: CompareConfig
    space: None = None


class _Kind(NamedTuple):
    """A kind of folder: the file that tells it, what it is called, and the option that chooses another."""

    file: str
    section: type[Recipe]
    noun: str
    option: str


_KINDS = (
    _Kind(CONFIG, RunConfig, "run folder", "--run"),
    _Kind(TRAIN_CONFIG, TrainConfig, "training", "--out"),
    _Kind(COMPARE_CONFIG, CompareConfig, "comparison", "--out"),
)


def open_run(path: Path, config: RunConfig, space: SearchSpace) -> RunFolder:
    """Make the run folder, or go on in the one that is there; see ``open_workplace``."""
    open_workplace(path, config, space)
    return RunFolder(path, config, space)


def open_workplace(path: Path, config: Recipe, space: SearchSpace | None) -> Workplace:
    """Make the folder, or go on in the one that is there.

    Raises:
        RunError: the folder was made by another configuration or space, or is something else.
    """
    [kind] = [kind for kind in _KINDS if isinstance(config, kind.section)]
    if (path / kind.file).exists():
        _check_same(path / kind.file, config, kind)
    elif not is_new(path):
        raise RunError(f"{path}: exists and is not a {kind.noun}; choose another with {kind.option}")
    else:
        write_text(path / kind.file, config.to_yaml())
    # One by one, as a kill may have come between them.
    if space is not None and (path / SPACE).exists():
        _check_space(path / SPACE, space, kind)
    elif space is not None:
        write_text(path / SPACE, yaml.safe_dump(space.to_dict(), sort_keys=False))
    if not (path / ENVIRONMENT).exists():
        write_json(path / ENVIRONMENT, describe_environment(config))
    return Workplace(path, config, space)


def reopen_run(path: Path) -> RunFolder:
    """Open a folder that a search has made, with its own configuration.

    Raises:
        RunError: there is no run in ``path``.
        ConfigError: its configuration was changed to something that is none.
    """
    demand_closed(path)
    if not (path / CONFIG).exists():
        raise RunError(f"{path}: is not a run folder (it has no {CONFIG})")
    config = validate(RunConfig, read_yaml(path / CONFIG), source=str(path / CONFIG))
    _notice_changes(path / CONFIG)
    return RunFolder(path, config, _read_space(path))


def is_workplace(path: Path) -> bool:
    """Return whether a search, a training or a comparison was begun in ``path``."""
    return any((path / kind.file).exists() for kind in _KINDS)


def reopen(path: Path) -> Workplace:
    """Open a folder that a search, a training or a comparison has made.

    Raises:
        RunError: nothing of that kind is in ``path``.
        ConfigError: its configuration was changed to something that is none.
    """
    kind = next((kind for kind in _KINDS if (path / kind.file).exists()), None)
    if kind is None or kind.section is RunConfig:
        return reopen_run(path)
    demand_closed(path)
    config = validate(kind.section, read_yaml(path / kind.file), source=str(path / kind.file))
    _notice_changes(path / kind.file)
    return Workplace(path, config, _read_space(path) if (path / SPACE).exists() else None)


def _read_space(path: Path) -> SearchSpace:
    space = validate(SearchSpace, read_yaml(path / SPACE), source=str(path / SPACE))
    _notice_changes(path / SPACE)
    return space


def _notice_changes(file: Path) -> None:
    """Warn of a configuration that is not as it was written: somebody may have edited it, or it may be damaged."""
    try:
        read_whole(file)
    except Damaged as error:
        warnings.warn(f"{file}: was changed since it was written ({error})", stacklevel=2)


def describe_environment(config: Recipe) -> dict[str, Any]:
    """Return what a reader needs to repeat the work: versions, machine, seed, time and command."""
    return {
        "ftnas": __version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in ("torch", "numpy", "optuna", "nni", "scikit-learn")},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": config.threads,
        "workers": getattr(config, "workers", 1),
        "seed": config.seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["ftnas", *map(shown, sys.argv[1:])]),  # without the password of a storage
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _check_same(file: Path, config: Recipe, kind: _Kind) -> None:
    """Refuse a folder of another configuration; what ``file`` lacks is as it was before there was such a key."""
    there = validate(kind.section, read_yaml(file), source=str(file)).model_dump(mode="json")
    for key, now in config.model_dump(mode="json").items():
        old = there[key]
        if key in FREE_KEYS or old == now:
            continue
        if not isinstance(old, dict):
            raise _other_config(file, kind, key, old, now)
        changed = [inner for inner in now if old[inner] != now[inner] and inner != "directory"]
        if changed:
            raise _other_config(file, kind, f"{key}.{changed[0]}", old[changed[0]], now[changed[0]])


def _other_config(file: Path, kind: _Kind, key: str, old: Any, new: Any) -> RunError:
    return RunError(
        f"{file.parent}: was made by another configuration ({key} is {old!r} there, {new!r} now); "
        f"choose another folder with {kind.option}"
    )


def _check_space(file: Path, space: SearchSpace, kind: _Kind) -> None:
    if _read_space(file.parent).to_dict() != space.to_dict():
        raise RunError(
            f"{file.parent}: was made with another search space {space.name}; choose another with {kind.option}"
        )
