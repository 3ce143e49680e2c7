"""The process that keeps NNI's server: it serves as long as its standard input is open, and leaves nothing behind.

The command that launched it holds the other end. However that ends, killed or not, the end of file is read here, the
trials are ended, then the server. Should this process be killed, the server ends itself (``END_WITH_PARENT``), and so
do the trials (``launching_trial``).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ftnas.pipeline import launching_nni
from ftnas.pipeline.launching_processes import end_all, kill_session, members

TRIAL_MODULE = "ftnas.pipeline.launching_trial"
STOP = "stop"  # the file beside the markers of order, after which no trial begins

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_SAVE = 20.0  # of trials that are asked to end
SECONDS_TO_STOP = 20.0  # of NNI's server
SECONDS_TO_END = SECONDS_TO_SAVE + SECONDS_TO_STOP + 5  # of all
SECONDS_OF_SILENCE = 60.0  # of a server that is there and does not answer
LOOKS_FOR_METRIC = 10  # the last number of a trial may be stored after the trial has ended

# A preload of Node. The server is in a process group of its own and would live on without the process that keeps it.
END_WITH_PARENT = """\
const parent = process.ppid;
setInterval(() => { if (process.ppid !== parent) process.exit(1); }, 1000).unref();
"""


def main() -> None:
    """Start NNI's server as the first line of standard input says, and tell by lines of JSON what becomes of it.

    The one argument, the folder, is there to be seen in a list of processes.
    """
    tell = _teller()
    plan = json.loads(sys.stdin.readline())
    ended = threading.Event()
    threading.Thread(target=_end_with_input, args=(ended,), daemon=True).start()
    try:
        _serve(plan, ended, tell)
        tell("ended")
    except Exception as error:
        tell("failed", reason=_reason(error))
        raise
    finally:
        kill_session(os.getsid(0))


def _teller() -> Any:
    """Return a function that writes an event for the parent; what others print goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(event: str, **content: Any) -> None:
        with suppress(OSError):  # the parent is gone, which the end of the input tells
            channel.write(json.dumps({"event": event, **content}) + "\n")
            channel.flush()

    return tell


def _end_with_input(ended: threading.Event) -> None:
    """Wait for the end of the input, and end this session even if NNI hangs."""
    sys.stdin.read()
    ended.set()
    time.sleep(SECONDS_TO_END)
    kill_session(os.getsid(0))
    os._exit(1)


def _serve(plan: dict[str, Any], ended: threading.Event, tell: Any) -> None:
    viewing = "view" in plan
    experiment = (
        launching_nni.view(plan["view"], plan["port"]) if viewing else launching_nni.start(plan["config"], plan["port"])
    )
    try:
        tell(
            "started",
            experiment=experiment.id,
            pid=launching_nni.server_process(experiment).pid,
            session=os.getsid(0),
        )
        if viewing:
            _show(experiment, ended, tell)
        else:
            _watch(experiment, plan["trials"], ended, tell)
    finally:
        _stop(experiment, Path(plan["order"]) / experiment.id)


def _show(experiment: Any, ended: threading.Event, tell: Any) -> None:
    """Let the server show what it has until the input ends."""
    while not ended.wait(SECONDS_BETWEEN_LOOKS):
        if not _is_running(experiment):
            raise RuntimeError(f"NNI's server has ended{_last_error(experiment)}")
        tell("alive")


def _watch(experiment: Any, wanted: int, ended: threading.Event, tell: Any) -> None:
    """Tell of each trial when it has ended, until all ``wanted`` have, or the input has.

    Raises:
        RuntimeError: the server has ended, does not answer, or has given up, which it does without ending.
    """
    looks: dict[int, int] = {}  # at a trial that has ended, by its number
    told: set[int] = set()
    answered = time.monotonic()
    while len(told) < wanted and not ended.wait(SECONDS_BETWEEN_LOOKS):
        try:
            found, status = launching_nni.trials(experiment), experiment.get_status()
        except OSError:  # what requests raises is one
            if not _is_running(experiment):
                raise RuntimeError(f"NNI's server has ended{_last_error(experiment)}") from None
            if time.monotonic() - answered > SECONDS_OF_SILENCE:
                raise RuntimeError(f"NNI's server has not answered for {SECONDS_OF_SILENCE:.0f} s") from None
            continue
        answered = time.monotonic()
        for trial in found:
            if trial.number not in told and _is_complete(trial, looks):
                tell("trial", trial={**asdict(trial), "said": _said(experiment, trial)})
                told.add(trial.number)
        if status == "ERROR":
            raise RuntimeError(f"NNI has given up{_last_error(experiment)}")
        tell("alive")


def _is_complete(trial: launching_nni.Trial, looks: dict[int, int]) -> bool:
    """Return whether all is known of ``trial`` that will be; counts the looks at it."""
    if trial.status not in launching_nni.ENDED:
        return False
    looks[trial.number] = looks.get(trial.number, 0) + 1
    is_late = trial.status == launching_nni.SUCCEEDED and trial.echoed is None
    return not is_late or looks[trial.number] > LOOKS_FOR_METRIC


def _said(experiment: Any, trial: launching_nni.Trial) -> str:
    return "" if trial.status == launching_nni.SUCCEEDED else launching_nni.last_words(experiment, trial)


def _is_running(experiment: Any) -> bool:
    return launching_nni.server_process(experiment).poll() is None


def _last_error(experiment: Any) -> str:
    """Return the last error in the log of NNI's server."""
    with suppress(OSError):
        log = Path(experiment.config.experiment_working_directory, experiment.id, "log", "nnimanager.log")
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.rpartition(" ERROR ")[2] for line in lines if " ERROR " in line]
        return f": {errors[-1].partition(') ')[2] or errors[-1]}" if errors else ""
    return ""


def _stop(experiment: Any, order: Path) -> None:
    """End the trials, which save what they have, then the server."""
    order.mkdir(parents=True, exist_ok=True)
    (order / STOP).touch()  # the server would begin the next trial as soon as one ends
    end_all(members(os.getsid(0), TRIAL_MODULE), seconds=SECONDS_TO_SAVE)
    stopping = threading.Thread(target=experiment.stop, daemon=True)
    stopping.start()
    stopping.join(SECONDS_TO_STOP)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    main()
