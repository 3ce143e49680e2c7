"""`ftnas train` of a search: its supernet and full trainings, by one process or by those that torchrun starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import SMOKE, make_run, refused
from command_line import ftnas as tried
from quick_runs import ftnas, quick, results

from ftnas import api
from ftnas.files import read_json

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def torchrun(processes: int, *arguments: object) -> subprocess.Popen[str]:
    command = [*TORCHRUN, str(processes), "-m", "ftnas", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def saving(out: Path, *options: object) -> subprocess.Popen[str]:
    """Return two processes that train together into ``out``, where they have saved a checkpoint."""
    process = torchrun(2, *options)
    until = time.monotonic() + 200
    while not (out / "checkpoint.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.1)
    return process


@pytest.mark.slow
def test_a_search_goes_on_from_its_trained_supernet_with_nothing_repeated(tmp_path: Path) -> None:
    config, run, whole = quick(tmp_path), tmp_path / "run", tmp_path / "whole"
    trained = json.loads(tried("train", config, "--run", run, "--json").stdout)
    assert (trained["trained"], trained["processes"]) == (["supernet"], 1)
    before = (run / "supernet" / "supernet.safetensors").stat().st_mtime_ns
    api.search(config, run)
    assert (run / "supernet" / "supernet.safetensors").stat().st_mtime_ns == before
    ftnas("search", config, "--run", whole)
    assert results(run) == results(whole)


def test_what_the_study_chose_is_trained_too(quick_search: Path, tmp_path: Path) -> None:
    config, run = quick(tmp_path), tmp_path / "run"
    shutil.copytree(quick_search, run)
    for name in ("comparison.json", "warnings.json", "winner/genotype.json"):
        (run / name).unlink()
    (winner,) = (path.parent for path in run.glob("trainings/winner-*/result.json"))
    kept = (winner / "weights.safetensors").read_bytes()
    (winner / "result.json").unlink()
    trained = api.train_search(config, run)
    assert trained.trained == ("supernet", winner.name)
    assert (winner / "weights.safetensors").read_bytes() == kept


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--faults", "weights.bit_flip:0.1"],
            "--faults: is for the training of one net; change the search with --set",
        ),
        (["--epochs", 3], "--epochs: is for the training of one net"),
        (["--run", "a", "--out", "b"], "--run, --out: both name the run folder"),
        (["--set", "supernet.precision=tf32"], "supernet.precision: tf32 is for GPUs, the device is cpu"),
        (["--set", "training.precision=half"], "training.precision: Input should be 'float32', 'tf32' or 'bf16'"),
        (["--set", "training.compile=cuda_graphs"], "training.compile: cuda_graphs is for GPUs"),
    ],
)
def test_a_wrong_option_of_a_search_is_told(tmp_path: Path, options: list[object], words: str) -> None:
    assert words in refused(tmp_path, "train", SMOKE, "--set", "device=cpu", *options)


@pytest.mark.parametrize(
    "change", ["training.precision=bf16", "supernet.precision=bf16", "training.channels_last=false"]
)
def test_precision_and_layout_are_part_of_a_run(tmp_path: Path, change: str) -> None:
    told = tried("train", SMOKE, "--run", make_run(tmp_path / "run"), "--set", change)
    assert told.exit_code == 2
    assert f"was made by another configuration ({change.partition('=')[0]} is" in told.stderr


def test_a_search_of_spiking_nets_is_not_trained_so(tmp_path: Path) -> None:
    config = SMOKE.with_name("snn_wine.yaml")
    assert "family: only searches of cells are trained so, got 'snn-graph'" in refused(tmp_path, "train", config)


@pytest.mark.parametrize(
    ("options", "words"),
    [([], "--out: a folder for the trained net resnet20 is needed"), (["--run", "a"], "--run: is for the YAML file")],
)
def test_a_net_needs_a_folder_of_its_own(tmp_path: Path, options: list[str], words: str) -> None:
    assert words in refused(tmp_path, "train", "resnet20", *options)


@pytest.mark.slow
def test_two_processes_train_a_supernet_and_one_goes_on(tmp_path: Path) -> None:
    config, run = quick(tmp_path), tmp_path / "run"
    output, errors = (process := torchrun(2, "train", config, "--out", run, "--json")).communicate(timeout=300)
    assert process.returncode == 0, errors
    assert json.loads(output)["processes"] == 2  # one process alone has printed
    assert (run / "supernet" / "supernet.safetensors").exists()
    api.search(config, run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "training.batch_size=63"], "training.batch_size: 63 cannot be shared by 2 processes"),
        (["--faults", "weights.no_such:1"], "no_such"),
        (
            ["--set", "training.compile=default", "--set", "training.objective=qat"],
            "compile: default is for one process",
        ),
    ],
)
def test_a_mistake_is_told_once_and_ends_every_process_with_two(tmp_path: Path, options: list[str], words: str) -> None:
    process = torchrun(2, "train", "resnet20", "--out", tmp_path / "net", *options)
    _, errors = process.communicate(timeout=300)
    assert len([line for line in errors.splitlines() if line.startswith("ftnas: ")]) == 1
    assert words in errors
    assert errors.count("exitcode  : 2 ") == 2
    assert not (tmp_path / "net").exists()


@pytest.mark.slow
def test_a_folder_that_is_another_training_is_told_once_by_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = torchrun(2, "train", "resnet20", "--out", tmp_path)
    _, errors = process.communicate(timeout=300)
    assert len([line for line in errors.splitlines() if line.startswith("ftnas: ")]) == 1
    assert errors.count("exitcode  : 2 ") == 2


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_dies_ends_all_and_one_alone_goes_on(tmp_path: Path, killed: int) -> None:
    out = tmp_path / "net"
    options = ["train", "resnet20", "--set", "width=0.1", "--epochs", "8", "--out", out]
    process = saving(out, *options)
    victims = sorted(int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    os.kill(victims[killed], signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode != 0
    assert "Traceback" not in errors.partition("torch/distributed")[0]
    assert not (out / "result.json").exists()
    ftnas(*options)
    assert len(read_json(out / "history.json")) == 8


@pytest.mark.slow
def test_a_signal_stops_all_after_the_same_step(tmp_path: Path) -> None:
    out = tmp_path / "net"
    options = ["train", "resnet20", "--set", "width=0.1", "--epochs", "8", "--out", out]
    process = saving(out, *options)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    lines = [line for line in errors.splitlines() if line.startswith("ftnas: stopped by SIGTERM after")]
    assert len(lines) == 1, errors
    ftnas(*options)
    assert len(read_json(out / "history.json")) == 8
