"""Whole runs: stopping, repeating, comparing more and sharing them out changes no result."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import contents
from quick_runs import RESULTS, ftnas, quick, quick_run, results

from ftnas import api
from ftnas.files import read_json


@pytest.fixture(scope="module")
def compared(quick_search: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the finished run in which a baseline was compared as well."""
    run = tmp_path_factory.mktemp("compared") / "run"
    shutil.copytree(quick_search, run)
    ftnas("compare", run, "resnet20", "--training", "plain", "--training", "fault-tolerant")
    return run


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(run / "comparison.json")["rows"]
    return rows


def test_compare_adds_rows_and_leaves_those_that_are_there(quick_search: Path, compared: Path) -> None:
    before, after = rows_of(quick_search), rows_of(compared)
    assert after[: len(before)] == before
    assert [(row["label"], row["size"], row["training"]) for row in after[len(before) :]] == [
        ("resnet20 x 0.0156", "scaled", "plain"),
        ("resnet20 x 0.0156", "scaled", "fault-tolerant"),
    ]


def test_compare_for_what_is_compared_already_changes_nothing(compared: Path) -> None:
    before = contents(compared)
    ftnas("compare", compared, "resnet20")
    assert contents(compared) == before


def test_a_baseline_that_cannot_be_small_enough_is_compared_all_the_same_and_warned_of(compared: Path) -> None:
    winner, *_, baseline = rows_of(compared)
    assert baseline["flops"] > 1.25 * winner["flops"]
    assert any(f"{baseline['label']} has" in text for text in read_json(compared / "warnings.json"))


def test_the_same_seed_gives_the_same_results_bit_for_bit(quick_search: Path, tmp_path: Path) -> None:
    assert results(quick_run(tmp_path)) == results(quick_search)


def test_another_seed_gives_other_scores(quick_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scored(Exception):
        pass

    def scores(run: Path) -> list[float]:
        return [row["faulty"] for row in read_json(run / "study" / "candidates.json")]

    def end(*_: object) -> None:
        raise Scored

    monkeypatch.setattr("ftnas.pipeline.run.choose_winner", end)
    with pytest.raises(Scored):
        api.search(quick(tmp_path, seed=1), tmp_path / "run")
    assert scores(tmp_path / "run") != scores(quick_search)


KILLED = """
import os, pathlib, signal, sys
import ftnas.cli.main, ftnas.pipeline.run, ftnas.search.scoring

event, left = sys.argv[1], int(sys.argv[2])
del sys.argv[1:3]
room, name = {"score": (ftnas.search.scoring.Scorer, "score"), "move": (pathlib.Path, "replace")}[event]
whole = getattr(room, name)

def count(*arguments, **more):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **more)

setattr(room, name, count)
ftnas.cli.main.app()
"""


def killed_run(folder: Path, event: str, number: int) -> Path:
    """Return the folder of a quick run killed as it was to ``score`` or ``move`` for that time, counted from 0."""
    arguments = [event, number, "search", quick(folder), "--run", folder / "run"]
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder / "run"


def test_a_run_killed_in_the_study_goes_on_to_the_same_results(quick_search: Path, tmp_path: Path) -> None:
    # 14 scores derive an architecture by perturbation, each form once; the next are the study's.
    run = killed_run(tmp_path, "score", 17)
    assert (run / "study" / "journal.log").exists()
    assert not (run / "study" / "candidates.json").exists()
    quick_run(tmp_path)
    assert results(run) == results(quick_search)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2, 3, 6, 7, 10, 13, 16, 23, 32, 36, 40, 43, 44])
def test_a_run_killed_before_any_file_is_in_place_goes_on_to_the_same_results(
    number: int, quick_search: Path, tmp_path: Path
) -> None:
    run = killed_run(tmp_path, "move", number)
    quick_run(tmp_path)
    assert results(run) == results(quick_search)


@pytest.mark.slow
def test_two_workers_give_the_results_of_one(quick_search: Path, tmp_path: Path) -> None:
    # In a process of its own: workers import the program that starts them.
    arguments = ["search", quick(tmp_path), "--run", tmp_path / "run", "--set", "workers=2"]
    subprocess.run([sys.executable, "-m", "ftnas", *map(str, arguments)], check=True, capture_output=True)
    assert results(tmp_path / "run") == results(quick_search)


def test_evolution_fills_the_same_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("nni")
    run = quick_run(tmp_path, "--controller", "nni-evolution")
    assert results(run).keys() >= set(RESULTS)
    assert len(read_json(run / "study" / "candidates.json")) == 6
    proposals = (run / "study" / "proposals.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([json.loads(line) for line in proposals]) > 6
