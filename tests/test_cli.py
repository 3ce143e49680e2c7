"""The command line: what the user got wrong is one line, exit code 2, and nothing on disk."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import Result
from typer.testing import CliRunner

from ftnas import __version__
from ftnas.cli.main import app
from ftnas.data.cifar10 import BATCHES, FOLDER
from ftnas.pipeline.config import load_config
from ftnas.pipeline.run_folder import open_run
from ftnas.space import bundled_spaces, load_space

SMOKE = Path(__file__).parents[1] / "experiments" / "smoke.yaml"


def ftnas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, *arguments: object) -> str:
    """Check that a mistake is told in one line and changes nothing below ``folder``; return that line."""
    before = contents(folder)
    result = ftnas(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), (result.output, result.exception)
    assert contents(folder) == before
    (line,) = result.stderr.splitlines()
    assert line.startswith("ftnas: ")
    return line


def search(folder: Path, *arguments: object, config: Path = SMOKE) -> str:
    """Return the line with which a search into ``folder``/run is refused, without making it."""
    line = refused(folder, "search", config, "--run", folder / "run", *arguments)
    assert not (folder / "run").exists()
    return line


def lacking(line: str, words: Sequence[object]) -> list[str]:
    return [str(word) for word in words if str(word) not in line]


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("nonsense=1", ["smoke.yaml", "nonsense", "unknown key", "campaign"]),
        ("supernet.epoch=1", ["smoke.yaml", "supernet.epoch", "epochs"]),
        ("data.name=mnist", ["smoke.yaml", "data.name", "mnist", "digits, cifar10, npz"]),
        ("comparison.baselines=[resnet21]", ["smoke.yaml", "comparison.baselines", "resnet21", "resnet20", "vgg16"]),
        ("faults=[features.mac_bit_bias:1.5]", ["smoke.yaml", "faults", "rate", "1.5", "[0, 1]"]),
        ("faults=[features.rust:0.5]", ["smoke.yaml", "faults", "features.rust", "weights.stuck_cell"]),
        ("campaign.rates=[-0.5]", ["smoke.yaml", "campaign.rates", "-0.5", "0"]),
        ("search.sampler=cmaes", ["smoke.yaml", "search.sampler", "cmaes", "nsga2", "tpe", "gp", "random"]),
        ("space=huge", ["huge", "digits", "tiny"]),
        ("search.max_flops=1000", ["search.max_flops", "1000", "tiny", "cheapest"]),
        ("supernet.batch_size=5000", ["supernet.batch_size", "5000", "300"]),
        ("training.batch_size=5000", ["training.batch_size", "5000", "1200"]),
        ("training.augmentation.cutout=9", ["cutout", "9", "8"]),
        ("search.trials", ["--set search.trials", "KEY=VALUE"]),
        ("name.first=x", ["--set name.first=x", "not a section"]),
    ],
)
def test_a_wrong_assignment_is_refused(assignment: str, words: list[str], tmp_path: Path) -> None:
    assert lacking(search(tmp_path, "--set", assignment), words) == []


def test_an_unknown_controller_is_refused(tmp_path: Path) -> None:
    line = search(tmp_path, "--controller", "ray")
    assert lacking(line, ["search.controller", "ray", "optuna", "nni-evolution"]) == []


def test_a_controller_that_is_not_installed_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nni", None)
    monkeypatch.delitem(sys.modules, "ftnas.search.nni_evolution", raising=False)
    line = search(tmp_path, "--controller", "nni-evolution")
    assert lacking(line, ["nni-evolution", 'pip install "ftnas[nni]"']) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert lacking(search(tmp_path, "--set", "device=cuda"), ["cuda", "cpu"]) == []


def test_several_mistakes_are_a_line_each(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = ftnas("search", SMOKE, "--run", run, "--set", "nonsense=1", "--set", "search.trials=0")
    assert (result.exit_code, len(result.stderr.splitlines()), run.exists()) == (2, 2, False)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, ["cannot be read"]), ("[1, 2]", ["mapping"]), ("a: [", ["YAML"])],
    ids=["missing", "list", "broken"],
)
def test_an_experiment_that_is_no_yaml_mapping_is_refused(
    content: str | None, words: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "mine.yaml"
    if content is not None:
        config.write_text(content)
    assert lacking(search(tmp_path, config=config), [config, *words]) == []


SPACE = yaml.safe_load(bundled_spaces()["tiny"].read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"operators": ["none", "conv_7x7"]}, ["operators.1", "conv_7x7", "conv_1x1", "sep_conv_3x3"]),
        ({"primitives": ["none"]}, ["primitives", "unknown key", "operators"]),
        ({"final": {"channels": 4, "cells": 2, "reductions": [2]}}, ["final", "cell 2", "outside", "0..1"]),
        ({"search": {"channels": 4, "cells": 2, "reductions": [-1]}}, ["search", "cell -1", "outside", "0..1"]),
        ({"quantization": [{"weight_bits": 80}]}, ["quantization.0", "weight_bits", "2..16", "80"]),
        ({"quantization": [{"bits": 8}]}, ["quantization.0", "'bits'", "weight_bits"]),
        ({"quantization": [{"weight_range": "fixed"}]}, ["quantization.0", "weight_range", "fixed(LIMIT)"]),
        ({"preprocess": {"operator": "pool"}}, ["preprocess.operator", "pool", "relu_conv_bn_1x1"]),
    ],
)
def test_a_wrong_search_space_is_refused(changes: dict[str, object], words: list[str], tmp_path: Path) -> None:
    space = tmp_path / "mine.yaml"
    space.write_text(yaml.safe_dump(SPACE | changes))
    assert lacking(search(tmp_path, "--set", f"space={space}"), [space, *words]) == []


def test_a_search_space_that_is_not_there_is_refused(tmp_path: Path) -> None:
    line = search(tmp_path, "--set", f"space={tmp_path / 'mine.yaml'}")
    assert lacking(line, [tmp_path / "mine.yaml", "cannot be read"]) == []


def write_cifar10(folder: Path) -> Path:
    """Write a CIFAR-10 of 12 images in the official layout."""
    (folder / FOLDER).mkdir()
    for name in BATCHES:
        batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
        (folder / FOLDER / name).write_bytes(pickle.dumps(batch, protocol=2))
    return folder


def test_a_missing_cifar10_batch_is_named(tmp_path: Path) -> None:
    batch = write_cifar10(tmp_path) / FOLDER / "data_batch_4"
    batch.unlink()
    line = search(tmp_path, "--set", "data.name=cifar10", "--data-dir", tmp_path)
    assert lacking(line, [batch, "is missing"]) == []


def test_a_truncated_cifar10_batch_is_named(tmp_path: Path) -> None:
    batch = write_cifar10(tmp_path) / FOLDER / "test_batch"
    batch.write_bytes(batch.read_bytes()[:-20])
    line = search(tmp_path, "--set", "data.name=cifar10", "--data-dir", tmp_path)
    assert lacking(line, [batch, "truncated"]) == []


def test_cifar10_without_a_directory_asks_for_one(tmp_path: Path) -> None:
    assert lacking(search(tmp_path, "--set", "data.name=cifar10"), ["cifar10", "--data-dir"]) == []


@pytest.mark.parametrize(
    ("shape", "labels", "words"),
    [
        ((20, 8), 20, ["x_train", "[N, C, H, W]", "[20, 8]"]),
        ((20, 8, 8, 3), 20, ["x_train", "[N, C, H, W]", "[20, 8, 8, 3]", "channels last"]),
        ((20, 1, 8, 8), 19, ["20 images", "x_train", "19 labels", "y_train"]),
        ((20, 1, 9, 9), 20, ["x_train and x_test", "[1, 9, 9]", "[1, 8, 8]"]),
    ],
)
def test_an_npz_of_wrong_shapes_is_refused(
    shape: tuple[int, ...], labels: int, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(
        path,
        x_train=np.zeros(shape, np.uint8),
        y_train=np.arange(labels) % 2,
        x_test=np.zeros((4, 1, 8, 8), np.uint8),
        y_test=np.arange(4) % 2,
    )
    line = search(tmp_path, "--set", "data.name=npz", "--data-dir", path)
    assert lacking(line, [path, *words]) == []


def test_a_missing_npz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    assert lacking(search(tmp_path, "--set", "data.name=npz", "--data-dir", path), [path]) == []


def make_run(path: Path) -> Path:
    """Make the folder of a smoke run that has only begun."""
    config = load_config(SMOKE)
    open_run(path, config, load_space(config.space))
    return path


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

    monkeypatch.setattr("ftnas.pipeline.run.search", broken)
    assert isinstance(ftnas("search", SMOKE, "--run", tmp_path / "run").exception, ZeroDivisionError)


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ftnas.pipeline.run.search", interrupted)
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


def test_help_names_every_command() -> None:
    words = re.findall(r"\w+", ftnas("--help").stdout)
    assert {"search", "compare", "report", "spaces"} <= set(words)


def test_all_bundled_spaces_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    printed = ftnas("spaces").stdout
    assert [name for name in bundled_spaces() if name not in printed] == []
