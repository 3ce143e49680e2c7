"""One process a folder; and what signals, disks and other processes do to a command is one line."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from filelock import FileLock

from ftnas.cli.mistakes import one_line_errors
from ftnas.errors import RunError
from ftnas.holding import holding, is_new

HOLDING = """
import sys, time
from pathlib import Path
from ftnas.holding import holding
with holding(Path(sys.argv[1]), "config.yaml"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


# Two processes


def test_a_second_process_is_refused_with_host_process_and_command_of_the_first(run: Path) -> None:
    with holding(run, "config.yaml"), pytest.raises(RunError) as refusal, holding(run, "config.yaml"):
        raise AssertionError("two hold it")
    words = (
        rf"\A{run}: is in use by process {os.getpid()} on {socket.gethostname()} \(since \S+: ftnas.*\); wait for it"
    )
    assert re.match(words, str(refusal.value))


def test_a_folder_is_free_again_after_the_block_and_after_an_error(run: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="mine"), holding(run, "config.yaml"):
            raise ValueError("mine")
    assert not (run / ".lock.json").exists()


def test_a_kill_frees_the_folder(run: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", HOLDING, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"process {other.pid} on"), holding(run, "config.yaml"):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert json.loads((run / ".lock.json").read_text())["pid"] == other.pid
    with holding(run, "config.yaml"):
        assert json.loads((run / ".lock.json").read_text())["pid"] == os.getpid()


def test_a_holder_that_is_not_known_is_another_process(run: Path) -> None:
    with holding(run, "config.yaml"):
        (run / ".lock.json").write_text("half of")
        with pytest.raises(RunError, match="is in use by another process; wait for it"), holding(run, "config.yaml"):
            pass


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with holding(tmp_path, "config.yaml"):
        assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_folder_is_new_until_something_is_in_it(run: Path) -> None:
    assert is_new(run)
    with holding(run, "config.yaml"):
        (run / ".config.yaml.part").touch()
        assert is_new(run)
        (run / "config.yaml").touch()
        assert not is_new(run)
    (run.parent / "file").touch()
    assert not is_new(run.parent / "file")


def test_where_there_are_no_locks_that_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.warns(UserWarning, match="this file system has no locks"), holding(run, "config.yaml"):
        assert run.exists()


def test_a_folder_that_can_only_be_read_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with (
        pytest.raises(RunError, match=r"run: cannot be written \(Read-only file system\)"),
        holding(run, "config.yaml"),
    ):
        pass


# What a command says


def ended(number: int, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(typer.Exit) as end, one_line_errors():
        os.kill(os.getpid(), number)
    return end.value.exit_code, capsys.readouterr().err


def test_sigterm_is_one_line_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(signal.SIGTERM, capsys) == (
        143,
        "ftnas: stopped by SIGTERM; nothing is half-written, and the same command goes on from here\n",
    )


def test_ctrl_c_is_one_line_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = ended(signal.SIGINT, capsys)
    assert (code, line.partition(";")[0]) == (130, "ftnas: stopped by Ctrl-C")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_what_disks_do_is_one_line_wherever_it_happens(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end, one_line_errors():
        raise OSError(number, os.strerror(number), "plot.png")
    assert end.value.exit_code == 2
    assert capsys.readouterr().err.startswith(f"ftnas: plot.png: cannot be written ({os.strerror(number)})")


def test_another_error_of_the_system_is_a_bug_with_its_traceback() -> None:
    with pytest.raises(FileNotFoundError), one_line_errors():
        Path("/nowhere/at/all").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_nothing_takes_is_one_line() -> None:
    with open("/dev/full", "w") as nothing:
        done = subprocess.run(
            [sys.executable, "-m", "ftnas", "spaces"], stdout=nothing, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("ftnas: standard output: cannot be written (No space left on device)")
