"""Progress: a bar on a terminal, and elsewhere plain lines on standard error and nothing else."""

from __future__ import annotations

import os
import pty
import re
import sys
import time
from collections.abc import Iterator
from io import FileIO
from types import SimpleNamespace

import pytest

from ftnas.pipeline import progress
from ftnas.pipeline.progress import progress_bar


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.05)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose last number is the time."""
    times = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: times[-1]))
    return times


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


def test_a_stage_begins_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("supernet", 40):
        assert lines_of(capsys) == ["supernet: 0/40"]


def test_a_stage_shorter_than_the_time_between_lines_prints_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("supernet", 2) as advance:
        advance()
        advance()
    assert lines_of(capsys) == ["supernet: 0/2"]


def test_from_time_to_time_a_line_tells_what_is_done_and_left(often: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("leaders on fresh chips", 4) as advance:
        advance()
        time.sleep(0.3)
    first, *later = lines_of(capsys)
    assert first == "leaders on fresh chips: 0/4"
    assert later
    assert all(re.fullmatch(r"leaders on fresh chips: 1/4, about \d+ s left", line) for line in later)


def test_no_line_comes_after_a_stage_has_ended(often: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), progress_bar("supernet", 4) as advance:
        advance()
        raise ZeroDivisionError
    lines_of(capsys)
    time.sleep(0.2)
    assert lines_of(capsys) == []


def test_a_stage_without_steps_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("perturbation", 0) as advance:
        advance()
    assert lines_of(capsys) == []


def test_the_time_left_is_that_of_the_steps_so_far(clock: list[float]) -> None:
    stage = progress._Stage("supernet", 10)
    for seconds in (30.0, 60.0):
        clock.append(seconds)
        stage.advance()
    assert str(stage) == "supernet: 2/10, about 4 min 0 s left"
    clock.append(120.0)  # the third step takes longer
    assert str(stage) == "supernet: 2/10, about 8 min 0 s left"


def test_steps_that_a_resumed_run_only_reads_are_soon_forgotten(clock: list[float]) -> None:
    stage = progress._Stage("finalists", 200)
    for step in range(100):
        clock.append(max(0, step - 79) * 30.0)  # eighty in a moment, then one in 30 s
        stage.advance()
    assert str(stage) == "finalists: 100/200, about 50 min 0 s left"


def test_a_finished_stage_has_nothing_left(clock: list[float]) -> None:
    stage = progress._Stage("supernet", 1)
    clock.append(5.0)
    stage.advance()
    assert str(stage) == "supernet: 1/1"


def seen_on(reader: int, writer: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a stage of two steps prints where standard error is ``writer``, read from the other end."""
    with os.fdopen(writer, "w") as errors, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", errors)
        with progress_bar("supernet", 2) as advance:
            advance()
            advance()
    with os.fdopen(reader, "rb", buffering=0) as end:
        return b"".join(chunks(end)).decode()


def chunks(end: FileIO) -> Iterator[bytes]:
    while True:
        try:
            chunk = end.read(4096)
        except OSError:  # Linux ends a terminal without writers this way
            return
        if not chunk:
            return
        yield chunk


def test_a_terminal_shows_a_bar_that_fills(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    seen = seen_on(*pty.openpty(), monkeypatch)
    assert capfd.readouterr().out == ""
    assert "━" in seen
    assert "2/2" in seen
    assert "supernet: 0/2" not in seen


def test_a_pipe_gets_plain_lines_and_standard_output_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert seen_on(*os.pipe(), monkeypatch) == "supernet: 0/2\n"
    assert capfd.readouterr().out == ""
