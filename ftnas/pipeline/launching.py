"""Final trainings as an NNI experiment: cells, baselines and seeds, on NNI's training services, results joined here."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas.errors import LaunchError
from ftnas.files import read_json, write_json, write_text
from ftnas.holding import holding
from ftnas.pipeline.config import TrainConfig
from ftnas.pipeline.experiment_folder import CONFIG, MEASURED, ExperimentSummary, config_text
from ftnas.pipeline.experiment_results import write_results
from ftnas.pipeline.experiments import TRAININGS, ExperimentConfig, open_experiment
from ftnas.pipeline.launching_jobs import job_keys
from ftnas.pipeline.launching_keeper import nni_server
from ftnas.pipeline.launching_nni import SUCCEEDED, Trial, check_versions, records_of
from ftnas.pipeline.launching_processes import PAUSE, addresses, end_all, holder_of, is_free, members
from ftnas.pipeline.launching_server import SECONDS_TO_END
from ftnas.pipeline.launching_service import LOCAL, ServiceSettings, nni_config
from ftnas.pipeline.limits import check_cores
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.training import prepare_training

NNI_WORDS = ("-m nni ", "nni_node")  # on the command lines of NNI's own processes
NNI, RECORD = "nni", "server.json"  # the folder of all that is NNI's, and what is known of its server


@dataclass(frozen=True)
class Launch:
    """Where and how an experiment is launched.

    Attributes:
        service: of the trials.
        source: what begins the message of an error of the service: its file, or its name.
        concurrency: trials at a time.
        port: of NNI's web server; services with other machines take the next one, too.
        tell: is called with lines for the user.
    """

    service: ServiceSettings
    source: str
    concurrency: int
    port: int
    tell: Callable[[str], None]


def launch_experiment(config: ExperimentConfig, folder: Path, launch: Launch) -> ExperimentSummary:
    """Do what ``run_experiment`` does, each training a trial of NNI; either goes on in a folder of the other.

    NNI's web server listens on every interface and asks for no login while this runs.

    Raises:
        LaunchError: NNI cannot start, or some trainings failed, which are named when the others are done.
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    check_versions()
    trainings = config.trainings()
    if launch.service.platform == LOCAL:
        check_cores(next(iter(trainings.values())).threads, launch.concurrency)
    keys = job_keys(config, trainings)
    _nni_config(config, folder, launch, [])  # refuses what is wrong before anything is written
    if not (folder / NNI / RECORD).exists():
        check_ports(launch)
    with holding(folder, CONFIG):
        open_experiment(folder, config)
        jobs = [{"name": name, "key": keys[name]} for name in trainings if not _is_done(folder, name)]
        if jobs:
            _clear(folder / NNI)
            check_ports(launch)
            write_text(folder / NNI / "code" / CONFIG, config_text(config))
            failed = _run(_nni_config(config, folder, launch, jobs), trainings, keys, folder, launch)
            if failed:
                raise LaunchError(_told(failed, len(jobs)))
        found = [dict(read_json(folder / TRAININGS / name / MEASURED)) for name in trainings]
        return write_results(config, folder, found)


def view_experiment(folder: Path, *, port: int, tell: Callable[[str], None]) -> None:
    """Show NNI's web page of what was last launched in ``folder``, until Ctrl-C.

    Raises:
        LaunchError: nothing was, or NNI cannot start.
    """
    check_versions()
    home = folder / NNI
    last = read_json(home / RECORD).get("experiment") if (home / RECORD).exists() else None
    if last not in records_of(home / "experiments"):
        raise LaunchError(f"{folder}: nothing was launched there that could be viewed")
    plan = {"view": last, "port": port, "order": str((home / "order").resolve())}
    with holding(folder, CONFIG):
        _clear(home)
        _refuse_taken(port)
        with nni_server(home, plan) as events:
            _note_started(home, next(events), port, tell)
            for _ in events:
                pass


def check_ports(launch: Launch) -> None:
    """Refuse ports that are taken.

    Raises:
        LaunchError: names the port.
    """
    _refuse_taken(launch.port)
    if launch.service.platform != LOCAL and not is_free(launch.port + 1):
        raise LaunchError(
            f"--port {launch.port}: for service {launch.service.platform} NNI takes the next port, too, and "
            f"{launch.port + 1} is taken by {holder_of(launch.port + 1)}; choose another"
        )


def _refuse_taken(port: int) -> None:
    if not is_free(port):
        raise LaunchError(f"--port {port}: is taken by {holder_of(port)}; choose another")


def _is_done(folder: Path, name: str) -> bool:
    return (folder / TRAININGS / name / MEASURED).exists()


def _nni_config(config: ExperimentConfig, folder: Path, launch: Launch, jobs: list[dict[str, str]]) -> dict[str, Any]:
    return nni_config(
        launch.service,
        name=config.name,
        jobs=jobs or [{"name": "none"}],
        concurrency=launch.concurrency,
        folder=folder,
        source=launch.source,
    )


def _run(
    whole: Mapping[str, Any],
    trainings: Mapping[str, TrainConfig],
    keys: Mapping[str, str],
    folder: Path,
    launch: Launch,
) -> list[str]:
    """Do the trials and return the names of the trainings that failed."""
    jobs = [job["name"] for job in whole["searchSpace"]["training"]["_value"]]
    home, failed = folder / NNI, []
    plan = {"config": whole, "port": launch.port, "trials": len(jobs), "order": str((home / "order").resolve())}
    with nni_server(home, plan) as events, progress_bar(f"{whole['experimentName']}: trainings", len(jobs)) as advance:
        _note_started(home, next(events), launch.port, launch.tell)
        for event in events:
            if event["event"] != "trial":
                continue
            trial = Trial(**event["trial"])
            name = jobs[trial.number]
            if trial.status == SUCCEEDED:
                _keep(joined(trial, keys), name, trainings[name], folder)
            else:
                failed.append(name)
                launch.tell(f"{name}: failed: {_why(trial)}")
            advance()
    return failed


def joined(trial: Trial, keys: Mapping[str, str]) -> dict[str, Any]:
    """Return what ``trial`` measured, after checking that it is a result of the training that NNI lists it under.

    Args:
        trial: that succeeded.
        keys: of all trainings, by name.

    Raises:
        LaunchError: it is of another; names both.
    """
    given, echoed = trial.given, trial.echoed
    if echoed is None:
        raise LaunchError(f"trial {trial.number} ({given.get('name')}): ended well but reported no result")
    ours = (given.get("name"), given.get("key"))
    theirs = (echoed.get("name"), echoed.get("key"))
    if ours != theirs or keys.get(str(ours[0])) != ours[1]:
        raise LaunchError(
            f"trial {trial.number}: NNI lists it as {ours[0]} (key {ours[1]}), its result is of {theirs[0]} (key "
            f"{theirs[1]}); nothing of it was taken, launch again"
        )
    return dict(echoed["measured"])


def _keep(measured: dict[str, Any], name: str, training: TrainConfig, folder: Path) -> None:
    """Write down what a trial ``measured`` if it has not done so itself, on a machine that does not see this folder."""
    home = folder / TRAININGS / name
    if not (home / MEASURED).exists():
        prepare_training(training, home)
        write_json(home / MEASURED, measured)
    elif read_json(home / MEASURED) != measured:
        raise LaunchError(f"{home / MEASURED}: is not what the trial of {name} reported; delete it and launch again")


def _why(trial: Trial) -> str:
    """Return why a trial failed: the last line that it wrote."""
    return trial.said.removeprefix("ftnas: ") or f"{trial.status.lower()}, without a word; see {trial.place}"


def _told(failed: Sequence[str], jobs: int) -> str:
    rest = "the others are done, and the" if len(failed) < jobs else "the"
    return f"{len(failed)} of {jobs} trainings failed: {', '.join(failed)}; {rest} same command tries them again"


def _note_started(home: Path, event: Mapping[str, Any], port: int, tell: Callable[[str], None]) -> None:
    """Write down where the server is, and say it."""
    where = addresses(port)
    known = {key: event[key] for key in ("experiment", "pid", "session")}
    write_json(home / RECORD, {"host": platform.node(), **known, "port": port, "addresses": where})
    tell(f"NNI's web page, open to everyone who reaches this machine: {' '.join(where)}")


def _clear(home: Path) -> None:
    """Wait for what a launch that was killed in this folder has left behind: it ends itself, or is ended.

    NNI's tuner must not be overlooked: it would go on asking its port, and answer to the new server there.
    """
    record = read_json(home / RECORD) if (home / RECORD).exists() else {}
    if record.get("host") != platform.node():
        return
    session, until = int(record["session"]), time.monotonic() + SECONDS_TO_END
    while (left := members(session, str(home.parent.resolve()), *NNI_WORDS)) and time.monotonic() < until:
        time.sleep(PAUSE)
    if left:
        warnings.warn(f"{home.parent}: ends processes that an earlier launch left behind", stacklevel=2)
        end_all(left, seconds=5)
