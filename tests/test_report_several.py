"""Several runs on one page."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path

import pytest
from fake_run import FAULT, fake_run, read, write

from ftnas.errors import RunError
from ftnas.report.page import write_report, write_reports
from ftnas.report.record import read_run
from ftnas.report.several import called, entries_of, groups_of, overview_figures, winners_table


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.report.figures.write_png", lambda drawing, path: path.write_bytes(b"PNG"))


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Return three finished runs, the last under another fault."""
    first = fake_run(tmp_path / "first")
    runs = [first, *(Path(shutil.copytree(first, tmp_path / name)) for name in ("second", "third"))]
    change_winner(runs[2], fault="weights.stuck_cell")
    return runs


def change_winner(run: Path, *, fault: str | None = None, by: float = 0.0, only: list[float] | None = None) -> None:
    """Let the winner be measured under ``fault``, be ``by`` more accurate, or be measured at ``only`` these rates."""
    result = read(run / "winner/result.json")
    result["fault"] = fault or result["fault"]
    result["rates"] = [
        {**score, **{end: score[end] + by for end in ("mean", "low", "high")}}
        for score in result["rates"]
        if only is None or score["rate"] in only
    ]
    write(run / "winner/result.json", result)


def calls(runs: list[Path]) -> list[list[str]]:
    """Return what each winner is called, group by group."""
    groups = groups_of(entries_of([read_run(run) for run in runs]))
    return [[called(group, result) for _, result in group.results] for group in groups]


def test_the_page_holds_every_run_under_ids_of_its_own(runs: list[Path], tmp_path: Path) -> None:
    page = write_reports(runs, tmp_path / "all.html").read_text()
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for link in re.findall(r'href="#([^"]+)"', page):
        assert link in ids
    assert [name for name in ("first", "second", "third") if f"</span>{name}</h2>" in page] == [
        "first",
        "second",
        "third",
    ]
    assert not re.findall(r'(?:src|href)="(?!#|data:,)[^"]*"|url\(', page)


def test_figures_and_tables_lie_beside_the_page(runs: list[Path], tmp_path: Path) -> None:
    write_reports(runs, tmp_path / "out/all.html")
    kinds = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert kinds == ["all.html", "all_figures", "all_tables"]
    assert {path.name for path in (tmp_path / "out/all_figures").iterdir() if path.is_dir()} == {
        "1_first", "2_second", "3_third",
    }  # fmt: skip
    for file in ("1_first/pareto_front.svg", "2_second/vulnerability.png", "3_third/cells.svg"):
        assert (tmp_path / "out/all_figures" / file).exists()
    assert (tmp_path / "out/all_tables/3_third/layers.csv").exists()
    assert (tmp_path / "out/all_tables/winners.md").exists()


def test_runs_are_left_as_they_are(runs: list[Path], tmp_path: Path) -> None:
    before = sorted(path for run in runs for path in run.rglob("*"))
    write_reports(runs, tmp_path / "all.html")
    assert sorted(path for run in runs for path in run.rglob("*")) == before


def test_one_run_can_be_written_elsewhere(runs: list[Path], tmp_path: Path) -> None:
    page = write_reports(runs[:1], tmp_path / "one.html")
    assert "<h1>first</h1>" in page.read_text()
    assert (tmp_path / "one_figures/pareto_front.svg").exists()
    assert not (runs[0] / "report.html").exists()


def test_winners_under_other_faults_are_not_compared(runs: list[Path]) -> None:
    groups = groups_of(entries_of([read_run(run) for run in runs]))
    assert [(group.fault, [entry.title for entry in group.entries]) for group in groups] == [
        (FAULT, ["first", "second"]),
        ("weights.stuck_cell", ["third"]),
    ]


def test_winners_on_other_images_are_not_compared(runs: list[Path]) -> None:
    config = (runs[1] / "config.yaml").read_text()
    write(runs[1] / "config.yaml", config.replace("directory: null", "test_images: 100"))
    assert [len(group) for group in calls(runs)] == [1, 1, 1]


@pytest.mark.parametrize(("by", "expected"), [(0.0, ["best", "level"]), (-0.2, ["best", "behind"])])
def test_a_winner_is_worse_only_if_the_intervals_do_not_overlap(
    runs: list[Path], by: float, expected: list[str]
) -> None:
    change_winner(runs[1], by=by)
    assert calls(runs[:2]) == [expected]


def test_winners_are_judged_at_the_strongest_rate_that_all_were_measured_at(runs: list[Path]) -> None:
    change_winner(runs[1], only=[3e-4, 1e-3, 1e-2])
    (group,) = groups_of(entries_of([read_run(run) for run in runs[:2]]))
    assert group.judged == 1e-2


def test_winners_without_a_common_rate_are_not_comparable(runs: list[Path], tmp_path: Path) -> None:
    change_winner(runs[0], only=[3e-3])
    change_winner(runs[1], only=[1e-3])
    assert calls(runs[:2]) == [["unknown", "unknown"]]
    assert "not comparable" in write_reports(runs[:2], tmp_path / "all.html").read_text()


def test_a_run_that_has_only_begun_stands_beside_a_finished_one(runs: list[Path], tmp_path: Path) -> None:
    page = write_reports([runs[0], fake_run(tmp_path / "begun", until="start")], tmp_path / "all.html").read_text()
    assert "No winner yet: begun." in page


def test_runs_that_have_only_begun_have_a_page(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / name, until="start") for name in ("one", "two")]
    assert "No winner yet: one, two." in write_reports(runs, tmp_path / "all.html").read_text()


def test_a_front_shows_the_genotype_of_each_dot(runs: list[Path]) -> None:
    records = [read_run(run) for run in runs[:2]]
    [fronts] = [figure for figure in overview_figures(entries_of(records)) if figure.section == "fronts"]
    row = records[0].front_rows[0]
    assert row.genotype
    assert f"first: {row.key}" in fronts.svg
    assert fronts.svg.count("normal 2: ") == 2 * len(records[0].front_rows)


def test_all_winners_of_a_group_share_one_figure(runs: list[Path]) -> None:
    found = overview_figures(entries_of([read_run(run) for run in runs]))
    winners = [figure.svg for figure in found if figure.section == "winners"]
    assert [[name in drawn for name in ("first", "second", "third")] for drawn in winners] == [
        [True, True, False],
        [False, False, True],
    ]


def test_the_table_of_winners_has_every_digit(runs: list[Path]) -> None:
    table = winners_table(entries_of([read_run(run) for run in runs]))
    assert table
    lines = list(csv.DictReader(io.StringIO(table.csv)))
    expected = {
        (run.name, score["rate"]): score["mean"] for run in runs for score in read(run / "winner/result.json")["rates"]
    }
    assert {(line["run"], float(line["rate"])): float(line["mean"]) for line in lines} == expected


def test_runs_of_one_name_are_told_apart_by_their_paths(runs: list[Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs[0], tmp_path / "elsewhere" / "first"))
    titles = [entry.title for entry in entries_of([read_run(runs[0]), read_run(other)])]
    assert titles == [str(runs[0]), str(other)]


def test_a_run_given_twice_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is given twice"):
        write_reports([runs[0], tmp_path / "second/../first"], tmp_path / "all.html")
    assert not (tmp_path / "all.html").exists()


def test_a_folder_as_the_page_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is a folder; name the file to write, such as .*report\.html"):
        write_reports(runs, tmp_path)


def test_a_folder_that_is_no_run_is_refused_before_anything_is_written(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        write_reports([runs[0], tmp_path], tmp_path / "all.html")
    assert not (tmp_path / "all_figures").exists()


def test_a_run_kept_without_its_candidates_file_still_has_its_front(runs: list[Path]) -> None:
    rows = read(runs[0] / "study/candidates.json")
    kept = [key for key in rows[0] if key not in ("genotype", "chips")]
    text = io.StringIO()
    writer = csv.DictWriter(text, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    whole = read_run(runs[0])
    (runs[0] / "study/candidates.json").unlink()
    write(runs[0] / "study/candidates.csv", text.getvalue())
    record = read_run(runs[0])
    assert [(c.key, c.faulty, c.flops) for c in record.candidates] == [
        (c.key, c.faulty, c.flops) for c in whole.candidates
    ]
    assert record.missing == ()
    leaders = {leader.key for leader in record.leaders}
    assert [row.genotype is not None for row in record.front_rows] == [row.key in leaders for row in record.front_rows]
    assert "genotype not kept" in write_report(runs[0]).read_text()


def test_a_damaged_table_of_candidates_is_one_line(runs: list[Path]) -> None:
    (runs[0] / "study/candidates.json").unlink()
    write(runs[0] / "study/candidates.csv", "trial,key\n0,abc\n")
    with pytest.raises(RunError, match=r"candidates\.csv: 0\.clean: Field required$"):
        read_run(runs[0])
