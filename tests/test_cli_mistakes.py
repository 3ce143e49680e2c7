"""What the user got wrong in an experiment, a space or data: one line, exit code 2, and nothing on disk."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import SMOKE, SPACE, ftnas, lacking, search

from ftnas.data.cifar10 import BATCHES, FOLDER


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
        ("search.max_parameters=100", ["search.max_parameters", "100", "tiny", "smallest", "parameters"]),
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
