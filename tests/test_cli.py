"""The command line: run folders that do not fit, and how commands end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import SMOKE, SPACE, ftnas, lacking, make_run, refused

from ftnas import __version__
from ftnas.pipeline.config import load_config
from ftnas.pipeline.run_folder import open_run
from ftnas.space import load_space


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("seed=5", ["seed", "0", "5"]),
        ("search.trials=7", ["search.trials", "6", "7"]),
        ("faults=[features.mac_bit_bias:0.1]", ["faults", "0.003", "0.1"]),
        ("space=digits", ["space", "tiny", "digits"]),
    ],
)
def test_a_run_folder_of_another_configuration_is_refused_and_kept(
    assignment: str, words: list[str], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    line = refused(tmp_path, "search", SMOKE, "--run", run, "--set", assignment)
    assert lacking(line, [run, "another configuration", "--run", *words]) == []


def test_a_run_folder_of_another_search_space_is_refused_and_kept(tmp_path: Path) -> None:
    space, run = tmp_path / "mine.yaml", tmp_path / "run"
    space.write_text(yaml.safe_dump(SPACE))
    config = load_config(SMOKE, assignments=[f"space={space}"])
    open_run(run, config, load_space(config.space))
    space.write_text(yaml.safe_dump(SPACE | {"operators": ["none", "sep_conv_3x3"]}))
    line = refused(tmp_path, "search", SMOKE, "--run", run, "--set", f"space={space}")
    assert lacking(line, [run, "another search space", "--run"]) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_not_a_run_folder_is_refused_and_kept(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
    (place / "diary.txt" if kind == "folder" else place).write_text("dear diary")
    line = refused(tmp_path, "search", SMOKE, "--run", place)
    assert lacking(line, [place, "not a run folder", "--run"]) == []


def test_comparing_in_what_is_not_a_run_folder_is_refused(tmp_path: Path) -> None:
    assert lacking(refused(tmp_path, "compare", tmp_path), [tmp_path, "config.yaml"]) == []


def test_comparing_in_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert lacking(refused(tmp_path, "compare", run), [run, "no finished search", "ftnas search"]) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet21"], ["baselines.0", "resnet21", "resnet20"]),
        (["--size", "huge"], ["sizes.0", "huge", "own", "scaled"]),
        (["--training", "both"], ["trainings.0", "both", "fault-tolerant", "plain"]),
    ],
)
def test_an_unknown_comparison_is_refused(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert lacking(refused(tmp_path, "compare", run, *arguments), ["ftnas compare", *words]) == []


def test_a_run_folder_whose_configuration_was_spoilt_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "config.yaml").write_text("name: smoke\nfaults: [features.mac_bit_bias:0.1]\nsearch: {trials: none}\n")
    assert lacking(refused(tmp_path, "compare", run), [run / "config.yaml", "search.trials", "'none'"]) == []


def test_reporting_on_what_is_not_a_run_folder_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path / "run") in refused(tmp_path, "report", tmp_path / "run")


def test_a_mistake_in_the_code_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ftnas.pipeline.families.search_cells", broken)
    assert isinstance(ftnas("search", SMOKE, "--run", tmp_path / "run").exception, ZeroDivisionError)


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ftnas.pipeline.families.search_cells", interrupted)
    result = ftnas("search", SMOKE, "--run", tmp_path / "run")
    assert (result.exit_code, len(result.stderr.splitlines())) == (130, 1)
    assert "the same command" in result.stderr


def test_the_installed_program_ends_with_code_2_and_one_line_too(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "ftnas", "search", SMOKE, "--run", tmp_path / "run", "--set", "nonsense=1"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (result.returncode, len(result.stderr.splitlines()), result.stdout) == (2, 1, "")
    assert not (tmp_path / "run").exists()


def test_the_version_is_that_of_the_package() -> None:
    assert ftnas("--version").stdout.strip() == __version__
