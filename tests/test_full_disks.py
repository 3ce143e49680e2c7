"""Disks that take no more: one line, the last good state stays, and no line of a log comes twice."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from damage import flip

from ftnas.errors import CampaignError, RunError
from ftnas.files import read_json, write_json
from ftnas.holding import list_checksums
from ftnas.pipeline.logbook import Logbook, read_metrics


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    list_checksums(tmp_path / "run")
    return tmp_path / "run"


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


NO_SPACE = r"cannot be written \(No space left on device\); what was there is untouched, and the same command goes on"


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.write_text", "pathlib.Path.replace", "pathlib.Path.chmod"])
def test_a_full_disk_is_one_line_and_the_old_file_stays(
    step: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(folder / "result.json", "old")
    with monkeypatch.context() as patch:
        patch.setattr(step, full)
        with pytest.raises(RunError, match=rf"\A\S+result.json: {NO_SPACE}"):
            write_json(folder / "result.json", "new")
    assert read_json(folder / "result.json") == "old"
    assert not list(folder.glob(".*.part"))


def test_a_full_disk_costs_a_campaign_no_line_that_was_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftnas.campaign.records import open_records, read_records

    header = {"schema": 1, "campaign": "test"}
    with (
        pytest.raises(
            CampaignError, match=r"records.jsonl: cannot be written \(No space left on device\); whole lines"
        ),
        open_records(tmp_path / "records.jsonl", header) as records,
    ):
        records.append([{"unit": "chip 0"}])
        monkeypatch.setattr("os.fsync", full)
        records.append([{"unit": "chip 1"}])
    monkeypatch.undo()
    assert [unit["unit"] for unit in read_records(tmp_path / "records.jsonl").units][:1] == ["chip 0"]
    with open_records(tmp_path / "records.jsonl", header) as records:
        records.append([{"unit": "chip 2"}])


def test_a_full_disk_under_tensorboards_thread_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.excepthook", lambda args: None)  # as the command line does for disks
    with (
        pytest.raises(RunError, match=r"\A\S+: cannot be written \(No space left on device\)"),
        Logbook(tmp_path) as book,
    ):
        worker = book._events._get_file_writer().event_writer._async_writer._worker
        monkeypatch.setattr(worker._record_writer, "write", full)
        monkeypatch.setattr(worker._record_writer, "flush", lambda: None)
        for step in range(100):
            book.scalar("loss", 0.5, step=step)
            worker.join(0.05)


def test_an_interrupted_book_gets_no_line_twice(tmp_path: Path) -> None:
    for steps in (3, 5):
        with Logbook(tmp_path) as book:
            for step in range(steps):
                book.scalar("loss", step / 4, step=step)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2, 3, 4]


def test_a_damaged_line_of_a_book_is_named(tmp_path: Path) -> None:
    with Logbook(tmp_path) as book:
        book.scalar("loss", 0.5, step=0)
    flip(tmp_path / "metrics.jsonl", 32)
    with pytest.raises(RunError, match=r"metrics.jsonl: line 1 is damaged \(its checksum is another\); move the file"):
        Logbook(tmp_path)
