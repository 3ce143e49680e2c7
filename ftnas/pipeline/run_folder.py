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
from ftnas.configuration import read_yaml
from ftnas.errors import RunError
from ftnas.files import write_json, write_text
from ftnas.pipeline.config import RunConfig
from ftnas.space import SearchSpace, load_space

# What may differ between two starts of one run: it decides where and how fast, not what is computed.
FREE_KEYS = ("workers", "threads", "device")


@dataclass(frozen=True)
class RunFolder:
    """``path`` with the configuration and the search space that it belongs to."""

    path: Path
    config: RunConfig
    space: SearchSpace

    def file(self, *parts: str) -> Path:
        """Return the path of a file of this run."""
        return self.path.joinpath(*parts)


def open_run(path: Path, config: RunConfig) -> RunFolder:
    """Make the run folder, or go on in the one that is there.

    Raises:
        RunError: the folder was made by another configuration, or is something else.
    """
    space = load_space(config.space)
    content = config.model_dump(mode="json")
    if (path / "config.yaml").exists():
        _check_same(path / "config.yaml", content)
        _check_space(path / "space.yaml", space)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path}: exists and is not a run folder; choose another with --run")
    else:
        write_text(path / "space.yaml", yaml.safe_dump(space.to_dict(), sort_keys=False))
        write_json(path / "environment.json", describe_environment(config))
        write_text(path / "config.yaml", config.to_yaml())
    return RunFolder(path, config, space)


def reopen_run(path: Path) -> RunFolder:
    """Open a folder that a search has made, with its own configuration.

    Raises:
        RunError: there is no run in ``path``.
    """
    if not (path / "config.yaml").exists():
        raise RunError(f"{path}: is not a run folder (it has no config.yaml)")
    config = RunConfig.model_validate(read_yaml(path / "config.yaml"))
    return RunFolder(path, config, SearchSpace.model_validate(read_yaml(path / "space.yaml")))


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
