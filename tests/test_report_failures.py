"""A net whose training failed is marked wherever the comparison is shown."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from fake_run import RATE, fake_run, read, write

from ftnas.report.page import write_report
from ftnas.report.record import read_run
from ftnas.report.tables import comparison_csv, comparison_markdown
from ftnas.report.verdict import headline

FAILURE = "diverged in training at epoch 3"


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.report.figures.write_png", lambda drawing, path: path.write_bytes(b"PNG"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run in which one random cell diverged."""
    folder = fake_run(tmp_path / "run")
    content = read(folder / "comparison.json")
    cell = next(row for row in content["rows"] if row["family"] == "random")
    cell["failure"] = FAILURE
    write(folder / "comparison.json", content)
    return folder


def test_the_page_marks_the_net_that_failed_and_no_other(run: Path) -> None:
    assert write_report(run).read_text().count(FAILURE) == 1


def test_a_result_without_the_key_is_read_as_one_that_did_not_fail(tmp_path: Path) -> None:
    comparison = read_run(fake_run(tmp_path / "old")).comparison
    assert comparison
    assert {row.failure for row in comparison.rows} == {None}


def test_markdown_marks_the_net_that_failed(run: Path) -> None:
    lines = comparison_markdown(read(run / "comparison.json")["rows"], rate=RATE).splitlines()
    assert [line.split("|")[1].strip() for line in lines if FAILURE in line] == ["random cell 0"]


def test_csv_has_a_column_for_failures(run: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(comparison_csv(read(run / "comparison.json")["rows"]))))
    assert {line["label"] for line in lines if line["failure"] == FAILURE} == {"random cell 0"}
    assert {line["failure"] for line in lines} == {FAILURE, ""}


def test_the_mean_of_random_cells_says_how_many_of_them_failed(run: Path) -> None:
    comparison = read_run(run).comparison
    assert comparison
    assert "the mean of 6 random cells (1 failed in training)" in headline(comparison)
