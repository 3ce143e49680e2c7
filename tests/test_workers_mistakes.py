"""What can be wrong with workers and storages is told in one line."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import SMOKE, ftnas, lacking, make_run, refused, search

from ftnas.errors import ConfigError, RunError
from ftnas.pipeline.config import load_config
from ftnas.pipeline.limits import check_cores
from ftnas.pipeline.run_folder import describe_environment, reopen_run
from ftnas.pipeline.scoring_workers import about_this_process, experiment_of, has_ended
from ftnas.pipeline.shared_weights import WEIGHTS
from ftnas.search.tasks import TaskBoard


@pytest.fixture
def silent() -> Iterator[int]:
    """Yield a port on which someone listens and says nothing."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


@pytest.fixture
def quick_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.search.storages.ANSWER_SECONDS", 2)


@pytest.mark.usefixtures("quick_answers")
@pytest.mark.parametrize("scheme", ["grpc", "postgresql"])
def test_a_storage_that_does_not_answer_is_one_line_without_the_password(
    tmp_path: Path, scheme: str, silent: int
) -> None:
    if scheme == "postgresql":
        pytest.importorskip("psycopg", reason="pip install 'ftnas[postgresql]'")
    path = "" if scheme == "grpc" else "/db"
    line = search(tmp_path, "--storage", f"{scheme}://me:secret@127.0.0.1:{silent}{path}")
    assert lacking(line, ["storage", f"{scheme}://me:***@127.0.0.1:{silent}"]) == []
    assert "secret" not in line


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("foo://host", "unknown kind of storage; choose from sqlite:///FILE"),
        ("runs/r1", "unknown kind of storage"),
        ("grpc://host", "a host and a port are needed"),
        ("grpc://host:x", "a host and a port are needed"),
        ("sqlite:////nowhere/at/all.db", "cannot be used: unable to open database file"),
        ("sqlite:///{x}", "is not a URL of a database"),
        ("postgresql+nonsense://host/db", "SQLAlchemy knows no such driver"),
    ],
)
def test_a_storage_that_is_none_is_one_line(tmp_path: Path, url: str, words: str) -> None:
    assert lacking(search(tmp_path, "--storage", url), [f"storage {url}: ", words]) == []


def test_a_missing_driver_is_named_with_what_installs_it(tmp_path: Path) -> None:
    line = search(tmp_path, "--storage", "mysql+pymysql://me:secret@host/db")
    assert line.endswith("storage mysql+pymysql://me:***@host/db: its driver is not installed: pip install pymysql")


def test_the_command_that_a_run_notes_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:secret@host/db"
    monkeypatch.setattr("sys.argv", ["ftnas", "search", "a.yaml", "--storage", url, f"--storage={url}"])
    assert "secret" not in describe_environment(load_config(SMOKE))["command"]


def test_more_threads_than_cores_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    line = search(tmp_path, "--set", "threads=3")
    assert line == "ftnas: threads: 3 is more than the 2 cores of this machine; allowed is 1 to 2"


def test_more_workers_than_cores_for_their_threads_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    check_cores(2, 2)
    check_cores(4)
    with pytest.warns(UserWarning, match="workers: 3 x 2 threads are more than the 4 cores of this machine"):
        check_cores(2, 3)
    with pytest.raises(ConfigError):
        check_cores(5)


def test_options_that_would_change_nothing_are_refused(tmp_path: Path) -> None:
    spiking = SMOKE.with_name("snn_wine.yaml")
    line = search(tmp_path, "--storage", "grpc://host:1", config=spiking)
    assert line == "ftnas: --storage: would change nothing for family snn-graph; it is for cells"
    line = search(tmp_path, "--replay", tmp_path / "order.json", config=spiking)
    assert line == "ftnas: --replay: would change nothing for family snn-graph; it is for cells"


def test_an_order_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "study/order.json: cannot be read" in search(tmp_path, "--replay", tmp_path)


def test_a_replay_needs_the_controller_that_can(tmp_path: Path) -> None:
    pytest.importorskip("nni")
    (tmp_path / "order.json").write_text("[]")
    line = search(tmp_path, "--replay", tmp_path / "order.json", "--controller", "nni-evolution")
    assert line == "ftnas: --replay: needs the controller optuna, got nni-evolution"


@pytest.mark.parametrize("command", [("worker",), ("dashboard",), ("storage-server", "--port", "13000")])
def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert "is not a run folder" in refused(tmp_path, command[0], tmp_path / "nothing", *command[1:])


def test_a_worker_says_what_it_waits_for_and_gives_up(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    result = ftnas("worker", run, "--wait", 0)
    assert result.exit_code == 2
    first, last = result.stderr.splitlines()
    weights = run.joinpath(*WEIGHTS)
    assert first == f"waiting for {weights}, which the search has not trained yet"
    assert last == f"ftnas: --wait 0: waited in vain for {weights}, which the search has not trained yet"


def test_a_worker_on_a_finished_study_has_nothing_to_do(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "study").mkdir()
    (run / "study" / "leaders.json").write_text("[]")
    result = ftnas("worker", run, "--json")
    assert result.exit_code == 0
    assert '"scored": 0' in result.stdout


def test_a_worker_of_a_run_with_more_threads_than_there_are_cores_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    config = run / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("threads: 1", "threads: 8"), encoding="utf-8")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert lacking(refused(tmp_path, "worker", run), ["asks for 8 threads", "2 cores", "--threads"]) == []


def test_a_dashboard_of_a_run_without_a_study_is_one_line(tmp_path: Path) -> None:
    assert "there is no study of Optuna's controller in this run" in refused(
        tmp_path, "dashboard", make_run(tmp_path / "run")
    )


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, silent: int) -> None:
    run = make_run(tmp_path / "run")
    assert f"--port {silent}: cannot be used on 127.0.0.1" in refused(tmp_path, "storage-server", run, "--port", silent)


def test_boards_are_known_by_configuration_space_and_weights(tmp_path: Path) -> None:
    run = reopen_run(make_run(tmp_path / "run"))
    weights = run.file(*WEIGHTS)
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    here = experiment_of(run)
    free = run.config.model_copy(update={"workers": 9, "threads": 2, "device": "cpu"})
    assert experiment_of(type(run)(run.path, free, run.space)) == here
    other = experiment_of(type(run)(run.path, run.config.model_copy(update={"seed": 1}), run.space))
    assert other.board != here.board
    weights.write_bytes(b"others")
    assert experiment_of(run).board == here.board
    TaskBoard.open(tmp_path / "tasks.log", here)
    with pytest.raises(RunError, match="other shared weights"):
        TaskBoard.open(tmp_path / "tasks.log", experiment_of(run))


def test_a_process_is_known_to_have_ended_only_on_this_machine() -> None:
    about = about_this_process()
    assert not has_ended(about)
    gone = 2**22 + 1  # above any process number of Linux
    assert has_ended({**about, "process": gone})
    assert not has_ended({**about, "process": gone, "machine": "another"})
    assert not has_ended({**about, "process": "7"})
