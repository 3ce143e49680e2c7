"""``ftnas launch`` without NNI's server: check of the join, keys, one folder for two commands, refusals."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import contents, ftnas, lacking, refused
from launches import (
    ACCEPTED,
    NAMES,
    ROOT,
    TINY,
    free_port,
    keys_of,
    launch,
    telling,
    trial,
    written,
)

from ftnas.consent import VARIABLE
from ftnas.errors import LaunchError
from ftnas.pipeline import launching_nni
from ftnas.pipeline.experiments import load_experiment
from ftnas.pipeline.launching import joined
from ftnas.pipeline.launching_jobs import do_job, job_keys
from ftnas.pipeline.launching_nni import Trial
from ftnas.pipeline.launching_processes import is_free


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished experiment, done by ``ftnas experiment``."""
    folder = tmp_path_factory.mktemp("finished")
    result = ftnas("experiment", written(folder), "--out", folder / "out")
    assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    return telling(monkeypatch, tmp_path)


# The join


def test_a_result_is_taken_if_it_is_of_what_nni_lists_it_under() -> None:
    found = Trial(**trial(0, "a", "1")["trial"])
    assert joined(found, {"a": "1", "b": "2"})["clean"] == 0.5


@pytest.mark.parametrize(
    ("listed", "echoed", "words"),
    [
        ({"name": "a", "key": "1"}, {"name": "b", "key": "2"}, ["a (key 1)", "of b (key 2)", "launch again"]),
        ({"name": "a", "key": "1"}, {"name": "a", "key": "9"}, ["a (key 1)", "of a (key 9)"]),
        ({"name": "a", "key": "9"}, {"name": "a", "key": "9"}, ["a (key 9)"]),
        ({"name": "c", "key": "3"}, {"name": "c", "key": "3"}, ["c (key 3)"]),
        ({"name": "a", "key": "1"}, None, ["trial 4 (a): ended well but reported no result"]),
    ],
)
def test_a_mispaired_result_is_an_error_that_names_both(
    listed: dict[str, str], echoed: dict[str, str] | None, words: list[str]
) -> None:
    found = Trial(number=4, status="SUCCEEDED", given=listed, echoed=echoed, place="here")
    with pytest.raises(LaunchError) as error:
        joined(found, {"a": "1", "b": "2"})
    assert lacking(str(error.value), ["trial 4", *words]) == []


def test_a_mispaired_result_ends_the_launch_and_is_no_row(told: Callable[..., None], tmp_path: Path) -> None:
    config = written(tmp_path)
    keys = keys_of(config)
    told(trial(0, NAMES[0], keys[NAMES[0]]), trial(1, NAMES[1], keys[NAMES[1]], of=NAMES[2]))
    result = launch(config, tmp_path / "out")
    assert result.exit_code == 2
    assert lacking(result.stderr.splitlines()[-1], [f"NNI lists it as {NAMES[1]}", f"is of {NAMES[2]}"]) == []
    assert (tmp_path / "out" / "trainings" / NAMES[0] / "measured.json").exists()
    assert not list((tmp_path / "out").rglob(f"{NAMES[1]}/*"))
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_trial_that_fails_is_named_the_others_go_on_and_only_it_is_left(
    told: Callable[..., None], tmp_path: Path
) -> None:
    config = written(tmp_path)
    keys = keys_of(config)
    told(
        trial(0, NAMES[0], keys[NAMES[0]]),
        trial(1, NAMES[1], keys[NAMES[1]], status="FAILED"),
        *(trial(number, NAMES[number], keys[NAMES[number]]) for number in (3, 2)),
        {"event": "ended"},
    )
    result = launch(config, tmp_path / "out")
    assert result.exit_code == 2
    assert f"{NAMES[1]}: failed: no more disk" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert lacking(last, [f"1 of 4 trainings failed: {NAMES[1]}", "the same command tries them again"]) == []
    assert "no login" not in result.stdout and "open to everyone who reaches this machine: http" in result.stderr
    assert not (tmp_path / "out" / "results.json").exists()
    record = json.loads((tmp_path / "out" / "nni" / "server.json").read_text())
    assert {"host", "pid", "port", "experiment", "addresses"} <= set(record)
    told(trial(0, NAMES[1], keys[NAMES[1]]), {"event": "ended"})
    again = launch(config, tmp_path / "out")
    assert again.exit_code == 0, again.output
    assert "1/1" in again.stderr or "0/1" in again.stderr
    assert (tmp_path / "out" / "results.json").exists()


# Keys


def test_a_key_follows_from_all_that_decides_a_result_and_from_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "mine.py"
    monkeypatch.setenv(VARIABLE, str(own))
    own.write_text("from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n")
    genotype = tmp_path / "genotype.json"
    shutil.copy(ROOT / "experiments/results/digits_weight_faults/winner/genotype.json", genotype)
    axes = {
        "net": {
            "cell": {"net": str(genotype), "space": "digits_weights"},
            "own": {"net": f"{own}:net"},
            "resnet": {"net": "resnet20", "width": 0.125},
        }
    }
    before = keys_of(written(tmp_path, axes=axes))
    assert len(set(before.values())) == len(before) == 6
    assert keys_of(written(tmp_path, axes=axes, workers=2, description="x")) == before
    base = {**TINY["base"], "threads": 2}
    assert keys_of(written(tmp_path, axes=axes, base=base)) == before
    for change in ({"chips": 3}, {"faults": ["weights.bit_flip:0.02"]}, {"sharpness": 0.4}):
        assert not set(keys_of(written(tmp_path, axes=axes, **change)).values()) & set(before.values())
    own.write_text(own.read_text() + "# another\n")
    genotype.write_text(genotype.read_text().replace("skip_connect", "sep_conv_3x3", 1))
    after = keys_of(written(tmp_path, axes=axes))
    changed = {name.partition("-")[0] for name in before if before[name] != after[name]}
    assert changed == {"cell", "own"}


def test_a_trial_refuses_what_is_another_training_on_its_machine(tmp_path: Path) -> None:
    config = written(tmp_path)
    shutil.copy(config, tmp_path / "experiment.yaml")
    with pytest.raises(LaunchError, match=r"resnet-seed0: is another training here .* launched as 12"):
        do_job(tmp_path / "out", tmp_path, {"name": "resnet-seed0", "key": "12"})
    with pytest.raises(LaunchError, match="nobody: is no training of tiny"):
        do_job(tmp_path / "out", tmp_path, {"name": "nobody", "key": "12"})
    assert not (tmp_path / "out").exists()


# One folder for both commands


def test_a_finished_experiment_is_told_without_nni(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    before = contents(tmp_path / "out")
    result = launch(written(tmp_path), tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((finished / "results.json").read_text())
    assert contents(tmp_path / "out") == before


def test_results_that_came_from_another_machine_are_taken_by_both_commands(
    finished: Path, told: Callable[..., None], tmp_path: Path
) -> None:
    config = written(tmp_path)
    keys = keys_of(config)
    events = [trial(number, name, keys[name]) for number, name in enumerate(NAMES)]
    for event, name in zip(events, NAMES, strict=True):
        there = json.loads((finished / "trainings" / name / "measured.json").read_text())
        event["trial"]["echoed"]["measured"] = there
    told(*events, {"event": "ended"})
    assert launch(config, tmp_path / "out").exit_code == 0
    assert not list((tmp_path / "out").rglob("weights.safetensors"))
    files = ("results.json", "results.csv", "figure.svg")
    assert all((tmp_path / "out" / file).read_bytes() == (finished / file).read_bytes() for file in files)
    (tmp_path / "out" / "results.json").unlink()
    assert ftnas("experiment", config, "--out", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "results.json").read_bytes() == (finished / "results.json").read_bytes()
    assert not list((tmp_path / "out").rglob("weights.safetensors"))


def test_the_finals_that_come_with_ftnas_are_cells_and_baselines_with_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_experiment(Path("experiments/finals.yaml"))
    nets = {str(training.net) for training in config.trainings().values()}
    assert {"resnet20", "mobilenet_v2"} < nets
    assert len([net for net in nets if net.endswith(".json") and Path(net).is_file()]) >= 2
    assert len(config.seeds) >= 3
    assert len(set(job_keys(config, config.trainings()).values())) == len(config.trainings())


# Refusals


def test_without_the_flag_nothing_starts_and_the_line_says_why(tmp_path: Path) -> None:
    line = refused(tmp_path, "launch", written(tmp_path), "--out", tmp_path / "out", "--port", 8123)
    assert lacking(line, ["port 8123 of every network interface", "without a login", ACCEPTED]) == []


def test_a_port_that_is_taken_is_refused_with_who_has_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        assert not is_free(port)
        line = refused(tmp_path, "launch", written(tmp_path), "--out", tmp_path / "out", "--port", port, ACCEPTED)
    assert lacking(line, [f"--port {port}: is taken by process {os.getpid()}", "choose another"]) == []


@pytest.mark.parametrize("there", ["3.12.0", "3.20.1", "4.0"])
def test_a_filelock_with_which_nni_hangs_is_refused_with_the_command_that_mends_it(
    there: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launching_nni, "version", lambda name: {"filelock": there}.get(name, "3.0"))
    line = refused(tmp_path, "launch", written(tmp_path), "--out", tmp_path / "out", ACCEPTED)
    assert lacking(line, [f"filelock {there}", 'pip install "filelock<3.12"']) == []


def test_without_nni_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def version(name: str) -> str:
        raise launching_nni.PackageNotFoundError(name)

    monkeypatch.setattr(launching_nni, "version", version)
    line = refused(tmp_path, "launch", written(tmp_path), "--out", tmp_path / "out", ACCEPTED)
    assert lacking(line, ["nni is not installed", 'pip install "ftnas[nni]"']) == []


@pytest.mark.parametrize("name", ["snn_resilience", "neuron_splitting"])
def test_an_experiment_without_trainings_is_refused(name: str, tmp_path: Path) -> None:
    line = refused(tmp_path, "launch", ROOT / f"experiments/{name}.yaml", "--out", tmp_path / "out", ACCEPTED)
    assert lacking(line, [f"{name}.yaml: is no experiment of trainings", "ftnas experiment"]) == []


def test_more_threads_than_cores_are_refused(tmp_path: Path) -> None:
    config = written(tmp_path, base=TINY["base"] | {"threads": 4096})
    line = refused(tmp_path, "launch", config, "--out", tmp_path / "out", ACCEPTED, "--port", free_port())
    assert lacking(line, ["threads: 4096", "cores of this machine"]) == []


def test_there_is_nothing_to_view_where_nothing_was_launched(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    line = refused(tmp_path, "launch", written(tmp_path), "--out", tmp_path / "out", "--view", ACCEPTED)
    assert lacking(line, [tmp_path / "out", "nothing was launched there"]) == []


def test_options_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    axes = {"net": {"a+b": {"net": "resnet20"}, "a b": {"net": "resnet20", "width": 0.25}}}
    line = refused(tmp_path, "experiment", written(tmp_path, axes=axes), "--out", tmp_path / "out")
    assert lacking(line, ["two trainings would be called a_b-seed0", "rename an option"]) == []
