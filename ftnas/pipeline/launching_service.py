"""Which of NNI's training services trains, where its machines find Python, nets and folders, and how a trial starts."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from ftnas.configuration import Section, read_yaml, validate
from ftnas.consent import VARIABLE
from ftnas.errors import LaunchError
from ftnas.pipeline.launching_nni import platforms, whole_config
from ftnas.pipeline.launching_server import TRIAL_MODULE

LOCAL = "local"
# Keys of NNI's that the launcher sets.
_OURS = ("trial_command", "trial_code_directory")


class ServiceSettings(Section):
    """Where trials run."""

    service: dict[str, Any]
    """Keys of NNI's training service: ``platform`` and what it needs, such as ``machine_list``."""

    shared_storage: dict[str, Any] | None = None
    """Keys of NNI's shared storage, for the services that use one."""

    python: str = Field("python3", min_length=1)
    """The interpreter of the machines, in whose environment ftnas is installed; locally it is this one."""

    directory: str | None = None
    """The directory there in which nets and data are found; by default the one that is current here."""

    folder: str | None = None
    """The folder of the results as the machines see it; by default the same path as here."""

    @model_validator(mode="after")
    def _not_ours(self) -> Self:
        if not isinstance(self.service.get("platform"), str):
            raise ValueError("service.platform: this key is required")
        keys = {key.replace("_", "").lower(): key for key in self.service}
        for key in _OURS:
            if key.replace("_", "") in keys:
                raise ValueError(f"service.{key}: is set by ftnas; leave it out")
        if self.platform == LOCAL and self.service.get(keys.get("reusemode", "")):
            raise ValueError("service.reuse_mode: NNI 3.0 fails with it on the local service; leave it out")
        if self.platform != LOCAL and "nnimanagerip" not in keys:
            raise ValueError(
                "service.nni_manager_ip: this key is required: by which address its machines reach this one"
            )
        return self

    @property
    def platform(self) -> str:
        """The name of the training service."""
        return str(self.service["platform"])


def load_service(name: str | None, file: Path | None) -> ServiceSettings:
    """Return the settings of the service ``name``, or of the one that the YAML ``file`` describes.

    Raises:
        ConfigError: a key, type or value of the file is wrong.
        LaunchError: there is no such service, it needs a file, or the file describes another.
    """
    if file is not None:
        settings = validate(ServiceSettings, read_yaml(file), source=str(file))
        if name not in (None, settings.platform):
            raise LaunchError(f"--service {name}: {file} describes {settings.platform}")
        return settings
    if name in (None, LOCAL):
        return ServiceSettings(service={"platform": LOCAL})
    if name not in platforms():
        raise LaunchError(f"--service {name}: is none of NNI's; choose from {', '.join(platforms())}")
    raise LaunchError(f"--service {name}: its machines are to be described in a file, given with --service-config")


def nni_config(
    settings: ServiceSettings,
    *,
    name: str,
    jobs: list[dict[str, str]],
    concurrency: int,
    folder: Path,
    source: str,
) -> dict[str, Any]:
    """Return the whole configuration of an NNI experiment that does ``jobs``.

    Args:
        settings: of the service.
        name: of the experiment.
        jobs: parameters of the trials.
        concurrency: trials at a time.
        folder: of the results, here.
        source: what begins the message of an error.

    Raises:
        LaunchError: NNI refuses the service; its own words, in one line.
    """
    code = folder.resolve() / "nni" / "code"
    config: dict[str, Any] = {
        "experiment_name": name,
        "trial_command": trial_command(settings, folder),
        "trial_code_directory": str(Path.cwd()),  # of the check only, which asks for one that is there
        "trial_concurrency": concurrency,
        "max_trial_number": len(jobs),
        "search_space": {"training": {"_type": "choice", "_value": jobs}},
        "tuner": {"name": "BatchTuner"},
        "experiment_working_directory": str(folder.resolve() / "nni" / "experiments"),
        "training_service": dict(settings.service),
    }
    if settings.shared_storage is not None:
        config["shared_storage"] = settings.shared_storage
    if any("password" in machine for machine in _machines(settings)):
        warnings.warn("NNI's web page shows passwords of machines as they are; use a key file instead", stacklevel=2)
    whole = whole_config(config, source=source)
    services = whole["trainingService"] if isinstance(whole["trainingService"], list) else [whole["trainingService"]]
    for place in (whole, *services):
        place["trialCodeDirectory"] = str(code)
    return whole


def _consent_there(directory: str) -> list[str]:
    """Return the beginning of a command that lets machines run the Python files that the user lets this one run."""
    files = [Path(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]
    if not files:
        return []
    here = Path.cwd()
    there = [Path(directory, *file.relative_to(here).parts) if file.is_relative_to(here) else file for file in files]
    return ["env", f"{VARIABLE}={os.pathsep.join(map(str, there))}"]


def _machines(settings: ServiceSettings) -> list[Any]:
    found = [value for key, value in settings.service.items() if key.replace("_", "").lower() == "machinelist"]
    return [machine for machines in found if isinstance(machines, list) for machine in machines]


def trial_command(settings: ServiceSettings, folder: Path) -> str:
    """Return the line of shell that is a trial. It ends as one process, which sees when what started it is gone."""
    directory = settings.directory or str(Path.cwd())
    where = settings.folder or str(folder.resolve())
    if settings.platform == LOCAL:
        # The server has a home folder of its own; the trial has the user's.
        start = ["env", "-u", "NODE_OPTIONS", f"HOME={os.path.expanduser('~')}", sys.executable]
    else:
        start = [*_consent_there(directory), settings.python]
    # -P: what lies in the directory of the nets is not imported in place of packages.
    return f"cd {shlex.quote(directory)} && exec {shlex.join([*start, '-P', '-m', TRIAL_MODULE, where])}"
