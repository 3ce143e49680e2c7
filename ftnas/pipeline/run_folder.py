"""The folder of a run: it belongs to one configuration, and every stage finds there what is done already."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from ftnas import __version__
from ftnas.configuration import read_yaml, validate
from ftnas.errors import RunError
from ftnas.files import write_json, write_text
from ftnas.pipeline.config import RunConfig
from ftnas.space import SearchSpace

# What may differ between two starts of one run: it decides where and how fast, not what is computed.
FREE_KEYS = ("workers", "threads", "device")

CONFIG, SPACE, ENVIRONMENT = "config.yaml", "space.yaml", "environment.json"


@dataclass(frozen=True)
class RunFolder:
    """``path`` with the configuration and the search space that it belongs to."""

    path: Path
    config: RunConfig
    space: SearchSpace

    def file(self, *parts: str) -> Path:
        """Return the path of a file of this run."""
        return self.path.joinpath(*parts)


def open_run(path: Path, config: RunConfig, space: SearchSpace) -> RunFolder:
    """Make the run folder, or go on in the one that is there.

    Raises:
        RunError: the folder was made by another configuration or space, or is something else.
    """
    if (path / CONFIG).exists():
        _check_same(path / CONFIG, config.model_dump(mode="json"))
    elif path.exists() and not _is_empty(path):
        raise RunError(f"{path}: exists and is not a run folder; choose another with --run")
    else:
        write_text(path / CONFIG, config.to_yaml())
    # One by one, as a kill may have come between them.
    if (path / SPACE).exists():
        _check_space(path / SPACE, space)
    else:
        write_text(path / SPACE, yaml.safe_dump(space.to_dict(), sort_keys=False))
    if not (path / ENVIRONMENT).exists():
        write_json(path / ENVIRONMENT, describe_environment(config))
    return RunFolder(path, config, space)


def _is_empty(path: Path) -> bool:
    """Return whether ``path`` is a folder with nothing in it, or nothing but what a kill left of its first file."""
    return path.is_dir() and all(file.name.startswith(f".{CONFIG}.") for file in path.iterdir())


def reopen_run(path: Path) -> RunFolder:
    """Open a folder that a search has made, with its own configuration.

    Raises:
        RunError: there is no run in ``path``.
        ConfigError: its configuration was changed to something that is none.
    """
    if not (path / CONFIG).exists():
        raise RunError(f"{path}: is not a run folder (it has no {CONFIG})")
    config = validate(RunConfig, read_yaml(path / CONFIG), source=str(path / CONFIG))
    return RunFolder(path, config, validate(SearchSpace, read_yaml(path / SPACE), source=str(path / SPACE)))


def describe_environment(config: RunConfig) -> dict[str, Any]:
    """Return what a reader needs to repeat the run: versions, machine, seed, time and command."""
    return {
        "ftnas": __version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in ("torch", "numpy", "optuna", "nni", "scikit-learn")},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": config.threads,
        "workers": config.workers,
        "seed": config.seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["ftnas", *sys.argv[1:]]),
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


def _check_same(file: Path, content: dict[str, Any]) -> None:
    there = read_yaml(file)
    for key in sorted({*there, *content} - set(FREE_KEYS)):
        old, new = there.get(key), content.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k) and k != "directory"]
            if changed:
                inner = changed[0]
                raise _other_config(file, f"{key}.{inner}", old.get(inner), new.get(inner))
        elif old != new:
            raise _other_config(file, key, old, new)


def _other_config(file: Path, key: str, old: Any, new: Any) -> RunError:
    return RunError(
        f"{file.parent}: was made by another configuration ({key} is {old!r} there, {new!r} now); "
        "choose another folder with --run"
    )


def _check_space(file: Path, space: SearchSpace) -> None:
    if read_yaml(file) != yaml.safe_load(yaml.safe_dump(space.to_dict())):
        raise RunError(f"{file.parent}: was made with another search space {space.name}; choose another with --run")
