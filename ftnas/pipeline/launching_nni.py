"""NNI as a launcher of trials. The only module of the launcher that imports NNI; each function does so when called."""
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from packaging.version import Version

from ftnas.errors import LaunchError

ENDED = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")
SUCCEEDED = "SUCCEEDED"

SECONDS_TO_ANSWER = 20.0
FIRST_BAD_FILELOCK = Version("3.12")


@dataclass(frozen=True)
class Trial:
    """A trial as NNI's table shows it.

    Attributes:
        number: in the order of the batch, from 0.
        status: one of NNI's words.
        given: the parameters that the table lists it under.
        echoed: what the trial itself reported in the end; ``None`` if nothing.
        place: its folder, or the machine and the folder there.
        said: the last line on its standard error, of one that failed.
    """

    number: int
    status: str
    given: Mapping[str, Any]
    echoed: Mapping[str, Any] | None
    place: str
    said: str = ""


def check_versions() -> None:
    """Refuse an environment in which NNI cannot work, before it hangs in it.

    Raises:
        LaunchError: names the package, and the command that mends it.
    """
    try:
        version("nni")
        lock = version("filelock")
    except PackageNotFoundError as error:
        raise LaunchError(f'launching needs NNI, and {error.name} is not installed: pip install "ftnas[nni]"') from None
    if Version(lock) >= FIRST_BAD_FILELOCK:
        raise LaunchError(
            f'filelock {lock}: NNI 3.0 would hang for ever with it: pip install "filelock<{FIRST_BAD_FILELOCK}"'
        )


def whole_config(config: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """Return the configuration of an NNI experiment with all defaults and absolute paths, checked by NNI's own classes.

    Args:
        config: keys of NNI's ``ExperimentConfig``, ``training_service`` as a mapping.
        source: what begins the message of an error.

    Raises:
        LaunchError: NNI refuses it; its own words, in one line.
    """
    from nni.experiment.config import ExperimentConfig

    logging.getLogger("nni").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of passwords, of which the launcher warns itself
            checked = ExperimentConfig(**config)
            if isinstance(checked.training_service, dict):
                raise LaunchError(
                    f"{source}: unknown training service {checked.training_service.get('platform')!r}; choose from "
                    f"{', '.join(platforms())}"
                )
            return dict(checked.json())
    except (AssertionError, AttributeError, OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or "a value is out of range"
        raise LaunchError(f"{source}: NNI refuses it: {reason}") from None


def platforms() -> list[str]:
    """Return the names of NNI's training services."""
    from nni.experiment.config.training_service import TrainingServiceConfig

    return sorted(found.platform for found in TrainingServiceConfig.__subclasses__())


def start(config: Mapping[str, Any], port: int) -> Any:
    """Start NNI's server with the experiment of ``config`` (see ``whole_config``) and return NNI's handle of it."""
    from nni.experiment import Experiment
    from nni.experiment.config import ExperimentConfig

    experiment = Experiment(ExperimentConfig(**config))
    experiment.start(port)
    return experiment


def view(identity: str, port: int) -> Any:
    """Start NNI's server to show the experiment that ended, and return NNI's handle of it."""
    from nni.experiment import Experiment

    experiment = Experiment(None, id=identity)
    experiment.view(port, non_blocking=True)
    return experiment


def server_process(experiment: Any) -> Any:
    """Return the process of NNI's server."""
    return experiment._proc


def trials(experiment: Any) -> list[Trial]:
    """Return the trials that have begun, in their order.

    Raises:
        OSError: the server does not answer.
    """
    found = [
        Trial(
            number=job.sequenceId,
            status=job.status,
            given=dict(job.hyperParameters[0].parameters) if job.hyperParameters else {},
            echoed=_metric(job.finalMetricData),
            place=str(job.logPath),
        )
        for job in experiment.list_trial_jobs()
    ]
    return sorted(found, key=lambda trial: trial.number)


def last_words(experiment: Any, trial: Trial) -> str:
    """Return the last line on the standard error of ``trial``, on whichever machine; empty if it is not known."""
    identity = trial.place.rstrip("/").rpartition("/")[2]
    address = f"http://localhost:{experiment.port}/api/v1/nni/trial-file/{identity}/stderr"
    with suppress(OSError), urlopen(address, timeout=SECONDS_TO_ANSWER) as answer:
        lines = [line.strip() for line in answer.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines and lines[-1] != "stderr is empty." else ""
    return ""


def _metric(records: Any) -> dict[str, Any] | None:
    """Return the final metric of a trial, which NNI hands on as JSON in JSON."""
    found = records[-1].data if records else None
    with suppress(ValueError):
        while isinstance(found, str):
            found = json.loads(found)
    return dict(found) if isinstance(found, Mapping) else None


def fetch() -> dict[str, Any]:
    """Return the parameters that NNI gives the trial that this process is."""
    import nni

    return dict(nni.get_next_parameter() or {})


def report(metric: Mapping[str, Any]) -> None:
    """Tell NNI the result of the trial that this process is; ``default`` is the number that it shows."""
    import nni

    nni.report_final_result(dict(metric))


def records_of(folder: Path) -> list[str]:
    """Return the identities of the experiments whose records NNI keeps in ``folder``."""
    return sorted(path.parent.parent.name for path in folder.glob("*/db/nni.sqlite"))
