"""`ftnas report`."""

from __future__ import annotations

from pathlib import Path

from command_line import ftnas, refused
from fake_run import fake_run


def test_the_report_of_one_run_lies_in_its_folder(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", until="supernet")
    result = ftnas("report", run)
    assert (result.exit_code, result.stdout.strip()) == (0, str(run / "report.html"))
    assert (run / "report.html").exists()


def test_several_runs_are_written_where_out_says(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / name, until="supernet") for name in ("one", "two")]
    result = ftnas("report", *runs, "--out", tmp_path / "all.html")
    assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / "all.html"))
    assert "2 runs side by side" in (tmp_path / "all.html").read_text()


def test_several_runs_without_out_are_refused(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / name, until="start") for name in ("one", "two")]
    assert "--out" in refused(tmp_path, "report", *runs)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "one", until="start")
    assert "is not a run folder" in refused(tmp_path, "report", run, tmp_path, "--out", tmp_path / "all.html")
