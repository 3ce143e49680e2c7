"""The processes of a launch: what is noticed of NNI's server, and that none is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from command_line import lacking
from launches import (
    TINY,
    launch,
    processes_with,
    telling,
    wait_until,
    written,
)

from ftnas.errors import FtnasError
from ftnas.pipeline import launching, launching_keeper, launching_nni, launching_server
from ftnas.pipeline.experiments import ExperimentConfig
from ftnas.pipeline.launching_nni import Trial
from ftnas.pipeline.launching_processes import kill_session, members
from ftnas.pipeline.launching_server import END_WITH_PARENT


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    return telling(monkeypatch, tmp_path)


def test_a_server_that_does_not_answer_is_one_line(
    told: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told(stubborn=True)
    monkeypatch.setattr(launching_keeper, "SECONDS_OF_SILENCE", 1.0)
    monkeypatch.setattr(launching_keeper, "SECONDS_TO_END", 0.5)
    result = launch(written(tmp_path), tmp_path / "out")
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert lacking(last, ["NNI's server has not answered for 1 s", tmp_path / "out" / "nni" / "server.log"]) == []
    assert processes_with(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([{"event": "failed", "reason": "no space"}], ["NNI's server: no space"]),
        ([{"event": "failed", "reason": "[Errno 98] in use"}], ["in use"]),
    ],
)
def test_what_a_server_fails_of_is_one_line(
    events: list[dict[str, Any]], words: list[str], told: Callable[..., None], tmp_path: Path
) -> None:
    told(*events)
    result = launch(written(tmp_path), tmp_path / "out")
    assert (result.exit_code, lacking(result.stderr.splitlines()[-1], words)) == (2, [])


@dataclass
class Experiment:
    """In place of NNI's handle: what the server answers, look by look."""

    answers: list[Any]
    status: str = "RUNNING"
    exit_code: int | None = None
    id: str = "none"
    config: Any = None

    def get_status(self) -> str:
        return self.status

    def poll(self) -> int | None:
        return self.exit_code


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that watches an experiment of some answers and returns what was told of its trials."""

    def trials(experiment: Experiment) -> list[Trial]:
        answer = experiment.answers.pop(0) if len(experiment.answers) > 1 else experiment.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    def watch(*answers: Any, wanted: int = 1, **state: Any) -> list[dict[str, Any]]:
        config = SimpleNamespace(experiment_working_directory=str(tmp_path))
        events: list[dict[str, Any]] = []
        launching_server._watch(
            Experiment(list(answers), config=config, **state),
            wanted,
            threading.Event(),
            lambda event, **content: events.append(content) if event == "trial" else None,
        )
        return [content["trial"] for content in events]

    monkeypatch.setattr(launching_nni, "trials", trials)
    monkeypatch.setattr(launching_nni, "server_process", lambda experiment: experiment)
    monkeypatch.setattr(launching_nni, "last_words", lambda experiment, trial: "ftnas: no more disk")
    monkeypatch.setattr(launching_server, "SECONDS_BETWEEN_LOOKS", 0.001)
    return watch


def looked(number: int, status: str, echoed: dict[str, Any] | None = None) -> Trial:
    return Trial(number=number, status=status, given={}, echoed=echoed, place="here")


def test_a_trial_is_told_once_when_its_last_number_is_there_too(watched: Callable[..., Any]) -> None:
    late, there = looked(0, "SUCCEEDED"), looked(0, "SUCCEEDED", {"default": 1.0})
    told = watched([looked(0, "RUNNING")], [late], [there], [there, looked(1, "FAILED")], wanted=2)
    assert [(trial["number"], trial["echoed"], trial["said"]) for trial in told] == [
        (0, {"default": 1.0}, ""), (1, None, "ftnas: no more disk"),
    ]  # fmt: skip


def test_a_trial_that_never_reports_is_told_without_a_result(watched: Callable[..., Any]) -> None:
    assert [trial["echoed"] for trial in watched([looked(0, "SUCCEEDED")])] == [None]


@pytest.mark.parametrize(
    ("answers", "state", "words"),
    [
        ([OSError()], {"exit_code": 1}, "NNI's server has ended: the disk is full"),
        ([[], OSError()], {"exit_code": None}, "NNI's server has not answered for 0 s"),
        ([[]], {"status": "ERROR"}, "NNI has given up: the disk is full"),
    ],
)
def test_a_server_that_can_do_no_more_is_noticed(
    answers: list[Any],
    state: dict[str, Any],
    words: str,
    watched: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(launching_server, "SECONDS_OF_SILENCE", 0.01)
    log = tmp_path / "none" / "log" / "nnimanager.log"
    log.parent.mkdir(parents=True)
    log.write_text("[2026] INFO (a) all is well\n[2026] ERROR (NNIManager) the disk is full\n    at line 3\n")
    with pytest.raises(RuntimeError) as error:
        watched(*answers, **state)
    assert words in str(error.value)


def test_no_process_of_a_session_is_left_even_if_they_do_not_want_to_end() -> None:
    script = "import signal, subprocess, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); "
    leader = subprocess.Popen(
        [sys.executable, "-c", script + "subprocess.Popen(['sleep', '600']); time.sleep(600)"],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert leader.stdout is not None
    try:
        leader.stdout.readline()
        assert wait_until(lambda: len(members(leader.pid)) == 2)
        kill_session(leader.pid)
        assert members(leader.pid) == []
    finally:
        leader.kill()
        leader.communicate()


def test_a_trial_ends_when_what_started_it_is_gone(tmp_path: Path) -> None:
    trial = "import time; from ftnas.pipeline import launching_trial as t; import threading; "
    trial += "threading.Thread(target=t._end_with_parent, daemon=True).start(); "
    trial += f"open({str(tmp_path / 'begun')!r}, 'w').close(); time.sleep(600)"
    starter = f"import subprocess, sys, time, os; subprocess.Popen([sys.executable, '-c', {trial!r}])\n"
    starter += f"while not os.path.exists({str(tmp_path / 'begun')!r}): time.sleep(0.05)\n"
    subprocess.run([sys.executable, "-c", starter], check=True)
    assert wait_until(lambda: processes_with(str(tmp_path / "begun")) == [])


def test_nnis_server_ends_when_what_keeps_it_is_gone(tmp_path: Path) -> None:
    import nni_node  # type: ignore[import-untyped]

    node, preload = Path(nni_node.__path__[0], "node"), tmp_path / "with space.js"
    preload.write_text(END_WITH_PARENT)
    idle = tmp_path / "idle.js"
    idle.write_text("require('fs').writeFileSync(process.argv[2], '1'); setInterval(() => {}, 1000);")
    words = [str(node), str(idle), str(tmp_path / "begun")]
    starter = f"import subprocess, time, os; subprocess.Popen({words!r})\n"
    starter += f"while not os.path.exists({str(tmp_path / 'begun')!r}): time.sleep(0.05)\n"
    environment = launching_keeper._environment(tmp_path) | {"NODE_OPTIONS": f'--require "{preload}"'}
    subprocess.run([sys.executable, "-c", starter], check=True, env=environment)
    assert wait_until(lambda: processes_with(str(tmp_path / "begun")) == [])


@pytest.mark.parametrize("tuner", [False, True])
def test_what_was_left_behind_in_the_folder_is_ended_before_a_new_launch(tuner: bool, tmp_path: Path) -> None:
    home = tmp_path / "out" / "nni"
    home.mkdir(parents=True)
    words = ["-m", "nni", "--exp_params", "e30"] if tuner else [str(home)]  # of the tuner, no word names the folder
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *words], start_new_session=True)
    try:
        record = {"host": launching.platform.node(), "session": left.pid, "pid": left.pid, "port": 1, "experiment": "x"}
        (home / "server.json").write_text(json.dumps(record))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launching, "SECONDS_TO_END", 0.2)
            with pytest.warns(UserWarning, match="an earlier launch left behind"):
                launching._clear(home)
        assert members(left.pid) == []
        launching._clear(home)  # nothing is left, nothing is said
    finally:
        left.kill()
        left.wait()


def test_a_training_that_another_process_is_at_is_not_touched(tmp_path: Path) -> None:
    from ftnas.locking import LOCK, holding_lock
    from ftnas.pipeline.experiments import train_and_measure

    config = ExperimentConfig.model_validate(TINY)
    folder = tmp_path / "one"
    folder.mkdir()
    with holding_lock(folder / LOCK, of=folder), pytest.raises(FtnasError, match="is in use by process"):
        train_and_measure(config.trainings()["resnet-seed0"], folder, config, lambda: None)
    assert psutil.pid_exists(os.getpid())
    assert not (folder / "training.yaml").exists()
