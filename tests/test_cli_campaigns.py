"""``ftnas campaign`` and ``ftnas sites``: what they print and write, and how they refuse."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import contents, ftnas, make_run, refused

from ftnas.campaign import read_records
from ftnas.data import load_data
from ftnas.files import read_tensors, write_json, write_tensors
from ftnas.holding import OWN_FILES
from ftnas.networks import build_baseline
from ftnas.pipeline.campaigns import ACCURACY, HEAT_MAP, LAYER_BITS, LAYERS, RESULTS, TABLE
from ftnas.quantization import Quantization

FLIPS = ("--faults", "weights.bitflip:1e-3,1e-2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder with a winner and another training: small nets that have seen images, untrained."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "run")
    images = load_data("digits").train_images[:200]
    for name, width in (("winner-x", 1 / 64), ("other", 1 / 32)):
        spec = {"baseline": "vgg16", "width": width, "numbers": Quantization().to_dict()}
        torch.manual_seed(0)
        model = build_baseline("vgg16", width=width, image_shape=(1, 8, 8), classes=10)
        model(images)
        home = folder / "trainings" / name
        write_json(home / "model.json", {"name": name, "model": spec, "seed": 0})
        write_tensors(home / "weights.safetensors", model.state_dict())
    write_json(folder / "winner" / "result.json", {"name": "winner-x"})
    (folder / "trainings" / "begun").mkdir()
    write_json(folder / "trainings" / "begun" / "model.json", {"name": "begun"})
    return folder


def campaign(run: Path, out: Path, *arguments: object, images: int = 40) -> str:
    result = ftnas("campaign", run, "--out", out, "--images", images, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.stdout.split())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_chips_are_measured_written_and_drawn(run: Path, tmp_path: Path) -> None:
    printed = campaign(run, tmp_path / "c", *FLIPS, "--chips", 3)
    files = {path.name for path in (tmp_path / "c").iterdir()} - {*OWN_FILES, ".records.jsonl.lock"}
    assert files == {"records.jsonl", RESULTS, TABLE, f"{ACCURACY}.svg", f"{ACCURACY}.png"}
    content = json.loads((tmp_path / "c" / RESULTS).read_text())
    assert (content["net"], content["data"]) == ("winner-x", {"name": "digits", "test_images": 40})
    assert [row["rate"] for row in content["rows"]] == [0.001, 0.01]
    assert [float(row["accuracy"]) for row in table(tmp_path / "c" / TABLE)] == [
        row["accuracy"] for row in content["rows"]
    ]
    assert "3 chips" in printed
    assert f"population: {content['population']}" in printed


def test_single_faults_are_injected_written_and_drawn(run: Path, tmp_path: Path) -> None:
    arguments = ("--single", "weights", "--by", "layer_bit", "--n", 460, "--kinds", "flip, stuck_at_1")
    printed = campaign(run, tmp_path / "c", *arguments, images=10)
    files = {path.name for path in (tmp_path / "c").iterdir()} - {*OWN_FILES, ".records.jsonl.lock"}
    drawn = {f"{HEAT_MAP}.svg", f"{HEAT_MAP}.png"}
    assert files == {"records.jsonl", RESULTS, TABLE, LAYERS, LAYER_BITS} | drawn
    content = json.loads((tmp_path / "c" / RESULTS).read_text())
    assert content["population"] in printed
    assert "(flip, stuck_at_1), every bit alike" in content["population"]
    assert len(table(tmp_path / "c" / LAYER_BITS)) == 8 * len(table(tmp_path / "c" / LAYERS))
    assert content["rows"][-1]["injected"] == 460
    assert "worst of" in printed


def test_any_training_of_a_run_can_be_measured(run: Path, tmp_path: Path) -> None:
    campaign(run / "trainings" / "other", tmp_path / "c", *FLIPS, "--chips", 1)
    assert json.loads((tmp_path / "c" / RESULTS).read_text())["net"] == "other"


def test_the_same_command_goes_on_and_ends_with_the_same_files(run: Path, tmp_path: Path) -> None:
    campaign(run, tmp_path / "c", *FLIPS, "--chips", 3)
    before = contents(tmp_path / "c")
    records = before["records.jsonl"]
    (tmp_path / "c" / "records.jsonl").write_bytes(records[:-30])
    campaign(run, tmp_path / "c", *FLIPS, "--chips", 3, "--workers", 2)
    assert contents(tmp_path / "c") == before


def test_shards_leave_the_results_to_the_command_that_joins_them(run: Path, tmp_path: Path) -> None:
    for index in (0, 1):
        printed = campaign(run, tmp_path / "c", *FLIPS, "--chips", 3, "--shard", f"{index}/2")
        assert f"{index + 1} units are left to other shards" in printed
        assert not (tmp_path / "c" / RESULTS).exists()
    campaign(run, tmp_path / "c", *FLIPS, "--chips", 3)
    campaign(run, tmp_path / "whole", *FLIPS, "--chips", 3)
    joined = {name: text for name, text in contents(tmp_path / "c").items() if "-of-" not in name}
    assert joined == contents(tmp_path / "whole")


def test_a_margin_that_was_not_reached_is_said(run: Path, tmp_path: Path) -> None:
    printed = campaign(run, tmp_path / "c", *FLIPS, "--margin", 0.001, "--max-chips", 21)
    assert "warning: the margin of 0.001 was not reached" in printed


def test_a_chip_can_be_exported(run: Path, tmp_path: Path) -> None:
    faults = ("--faults", "weights.bitflip:1e-2", "--faults", "features.bit_flip:1e-4")
    campaign(run, tmp_path / "c", *faults, "--chips", 1, "--export-chip", 2, images=10)
    plan = table(tmp_path / "c" / "plan_of_chip_2_at_0.01.csv")
    assert {row["tensor"].rpartition(".")[2] for row in plan} == {"weight", "output"}
    assert {row["kind"] for row in plan} == {"flip"}
    state, _ = read_tensors(tmp_path / "c" / "weights_of_chip_2_at_0.01.safetensors")
    clean, _ = read_tensors(run / "trainings" / "winner-x" / "weights.safetensors")
    assert state.keys() == clean.keys()


def test_sites_are_listed_with_shapes_formats_and_totals(run: Path) -> None:
    result = ftnas("sites", run, "*.weight")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["site", "layer", "shape", "format", "MACs", "per", "value", "values", "bits"]
    assert lines[1].startswith("layers.0.conv.weight")
    assert "weights: " in lines[-1]
    outputs = ftnas("sites", run, "classifier.output")
    assert "classifier.output" in outputs.stdout
    assert " 10 " in outputs.stdout.splitlines()[1]


KILLED = """
import sys, time
import ftnas.campaign.chips as chips
measure = chips.chip_logits
def slow(*arguments, **options):
    time.sleep(0.03)
    return measure(*arguments, **options)
chips.chip_logits = slow
from ftnas.cli.main import app
app(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_files(run: Path, tmp_path: Path) -> None:
    arguments = ["campaign", str(run), "--out", str(tmp_path / "c"), "--images", "40", *FLIPS, "--chips", "60"]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stderr=subprocess.DEVNULL)
    file = tmp_path / "c" / "records.jsonl"
    while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") > 5):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 5 < file.read_bytes().count(b"\n") < 61
    campaign(run, tmp_path / "c", *FLIPS, "--chips", 60)
    campaign(run, tmp_path / "whole", *FLIPS, "--chips", 60)
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["--faults: none are given", "--faults weights.bitflip:1e-3"]),
        ((*FLIPS,), ["margin: None, chips: None"]),
        ((*FLIPS, "--chips", 3, "--by", "layer"), ["--by: is for single faults", "--single weights"]),
        ((*FLIPS, "--chips", 3, "--exhaustive"), ["--exhaustive: is for single faults"]),
        (("--single", "weights", *FLIPS), ["--faults: is for chips"]),
        (("--single", "weights", "--n", 10, "--max-chips", 3), ["--max-chips: is for chips"]),
        (("--single", "weights"), ["margin: None, n: None"]),
        (("--single", "weights", "--n", 10, "--sites", "nothing*"), ["'nothing*'", "matches no fault site"]),
        (("--single", "weights", "--n", 10, "--kinds", "flap"), ["kinds: ['flap']"]),
        (("--faults", "weights.bitflip:2", "--chips", 1), ["rate must be a number in [0, 1]", "2"]),
        (("--faults", "weights.bitflop:0.1", "--chips", 1), ["unknown fault 'weights.bitflop'", "weights.bit_flip"]),
        ((*FLIPS, "--chips", 1, "--shard", "2/2"), ["shard: 2/2"]),
        ((*FLIPS, "--margin", 0.01, "--shard", "0/2"), ["margin: a shard cannot know"]),
        ((*FLIPS, "--chips", 1, "--images", 100_000), ["images: 100000", "1 to 597"]),
        ((*FLIPS, "--chips", 1, "--data", "mnist"), ["unknown data set 'mnist'", "digits"]),
        ((*FLIPS, "--chips", 1, "--workers", 0), ["workers: 0"]),
        ((*FLIPS, "--chips", 1, "--batch-size", 0), ["batch_size: 0"]),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: tuple[object, ...], words: list[str], run: Path, tmp_path: Path
) -> None:
    line = refused(tmp_path, "campaign", run, "--out", tmp_path / "c", *arguments)
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("command", [("sites",), ("campaign", *FLIPS, "--chips", 1, "--out", "c")])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere", "is neither a run folder nor a training"),
        ("run/trainings", "is neither a run folder nor a training"),
        ("run/trainings/begun", "holds no finished training"),
        ("unfinished", "has no winner yet"),
    ],
)
def test_a_place_without_a_net_is_named(
    command: tuple[Any, ...], place: str, words: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "unfinished")
    path = run.parent / place if place.startswith("run") else tmp_path / place
    line = refused(tmp_path, command[0], path, *command[1:])
    assert words in line
    assert str(path) in line


def test_the_folder_of_another_campaign_is_refused_and_stays_readable(run: Path, tmp_path: Path) -> None:
    campaign(run, tmp_path / "c", *FLIPS, "--chips", 2)
    arguments = ("campaign", run, "--out", tmp_path / "c", "--images", 40, "--chips", 2)
    assert "faults is" in refused(tmp_path, *arguments, "--faults", "weights.bitflip:0.5")
    other = ("campaign", run / "trainings" / "other", "--out", tmp_path / "c", "--images", 40, *FLIPS, "--chips", 2)
    assert "model.hash is" in refused(tmp_path, *other)
    assert len(read_records(tmp_path / "c" / "records.jsonl").units) == 2


def test_damaged_records_are_named_by_file_and_line(run: Path, tmp_path: Path) -> None:
    campaign(run, tmp_path / "c", *FLIPS, "--chips", 3)
    file = tmp_path / "c" / "records.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"chip 1"', b'"chip 9"'))
    line = refused(tmp_path, "campaign", run, "--out", tmp_path / "c", "--images", 40, *FLIPS, "--chips", 3)
    assert f"{file}, line 3: is damaged" in line
    assert len(read_records(file).units) == 1


def test_a_folder_of_something_else_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("mine")
    line = refused(tmp_path, "campaign", run, "--out", tmp_path / "c", *FLIPS, "--chips", 1)
    assert "exists and holds no campaign" in line


def test_a_net_for_other_data_is_refused(run: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        f"{what}_{part}": values
        for part in ("train", "test")
        for what, values in (("x", generator.normal(size=(40, 3, 8, 8)).astype("float32")), ("y", np.arange(40) % 10))
    }
    np.savez(tmp_path / "other.npz", **arrays)
    line = refused(tmp_path, "sites", run, "--data", "npz", "--data-dir", tmp_path / "other.npz")
    assert "is of a net for other data than npz (3x8x8, 10 classes)" in line
