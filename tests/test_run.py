"""Whole runs: what they leave behind, and that stopping, repeating and sharing them out changes no result."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ftnas.cli.main import app
from ftnas.files import read_json, read_tensors
from ftnas.pipeline.config import load_config
from ftnas.space import Genotype, SearchSpace

SMOKE = Path(__file__).parents[1] / "experiments" / "smoke.yaml"
# Less of everything: a few seconds of work.
QUICK = {
    "name": "quick",
    "space": "tiny",
    "data": {"train_images": 120, "test_images": 100},
    "faults": ["features.mac_bit_bias:3e-2"],
    "supernet": {"epochs": 2, "warm_up": 1, "batch_size": 16},
    "search": {"trials": 6},
    "scoring": {"images": 30, "chips": 2, "leaders": 3, "fresh_chips": 2, "perturbation_images": 10},
    "finalists": {"top": 2, "random": 2, "epochs": 1, "chips": 2},
    "training": {"epochs": 1, "batch_size": 32},
    "comparison": {"baselines": [], "hand_made": [], "random_cells": 0},
}
RESULTS = (
    "supernet/architecture_weights.json",
    "supernet/supernet.safetensors",
    "study/candidates.json",
    "study/candidates.csv",
    "study/front.json",
    "study/leaders.json",
    "ranking.json",
    "comparison.json",
    "comparison.csv",
    "comparison.md",
    "winner/genotype.json",
    "winner/genotype.svg",
    "winner/result.json",
    "warnings.json",
)

ROW_KEYS = {"name", "label", "family", "training", "size", "macs", "flops", "parameters", "weight_bits", "seed"} | {
    "clean",
    "fault",
    "rates",
}


def ftnas(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)


def results(run: Path) -> dict[str, bytes]:
    """Return what a run has found, without times."""
    trained = [str(path.relative_to(run)) for path in sorted(run.glob("trainings/*/*")) if path.stem != "history"]
    return {name: (run / name).read_bytes() for name in (*RESULTS, *trained)}


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def quick(folder: Path, **changes: Any) -> Path:
    """Write the quick experiment into ``folder``."""
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump(QUICK | changes), encoding="utf-8")
    return path


def quick_run(folder: Path, *arguments: object, **changes: Any) -> Path:
    """Return the folder of a finished quick run."""
    ftnas("search", quick(folder, **changes), "--run", folder / "run", *arguments)
    return folder / "run"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("smoke") / "run"
    ftnas("search", SMOKE, "--run", run)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_run(tmp_path_factory.mktemp("quick"))


def test_a_run_writes_down_its_configuration_and_space(smoke: Path) -> None:
    assert load_config(smoke / "config.yaml") == load_config(SMOKE)
    space = yaml.safe_load((smoke / "space.yaml").read_text(encoding="utf-8"))
    assert SearchSpace.model_validate(space).name == "tiny"


def test_a_run_writes_down_versions_seed_and_command(smoke: Path) -> None:
    keys = {"ftnas", "python", "torch", "optuna", "numpy", "platform", "cores", "threads", "seed", "started", "command"}
    assert keys <= read_json(smoke / "environment.json").keys()


def test_a_run_keeps_its_supernet(smoke: Path) -> None:
    history = read_json(smoke / "supernet" / "history.json")
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert {"loss", "clean_loss", "faulty_loss", "seconds"} <= history[0].keys()
    weights = read_json(smoke / "supernet" / "architecture_weights.json")
    assert all(sum(row) == pytest.approx(1) for row in weights["normal"]["operators"])
    tensors, _ = read_tensors(smoke / "supernet" / "supernet.safetensors")
    assert {name.partition(".")[0] for name in tensors} == {"supernet", "architecture"}


def test_a_run_keeps_every_candidate_and_what_the_supernet_proposed_comes_first(smoke: Path) -> None:
    rows = read_json(smoke / "study" / "candidates.json")
    assert len({row["key"] for row in rows}) == len(rows) == 6
    assert rows[0]["source"] == "magnitude"
    assert {row["source"] for row in rows[2:]} == {"sampler"}
    assert all(Genotype.from_dict(row["genotype"]).key == row["key"] for row in rows)
    assert all(len(row["chips"]) == 2 and row["flops"] == 2 * row["macs"] for row in rows)


def test_the_candidates_as_csv_are_those_as_json(smoke: Path) -> None:
    with (smoke / "study" / "candidates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    whole = read_json(smoke / "study" / "candidates.json")
    assert [(row["key"], float(row["faulty"]), int(row["flops"])) for row in rows] == [
        (row["key"], row["faulty"], row["flops"]) for row in whole
    ]


def test_no_candidate_is_better_than_one_of_the_front(smoke: Path) -> None:
    rows = {row["key"]: row for row in read_json(smoke / "study" / "candidates.json")}
    front = [rows[key] for key in read_json(smoke / "study" / "front.json")]
    assert front
    assert not any(
        row["faulty"] > best["faulty"] and row["flops"] <= best["flops"] for row in rows.values() for best in front
    )


def test_leaders_are_scored_on_fresh_chips_and_come_best_first(smoke: Path) -> None:
    rows = read_json(smoke / "study" / "leaders.json")
    assert all(len(row["fresh_chips"]) == 2 for row in rows)
    assert [row["fresh_faulty"] for row in rows] == sorted((row["fresh_faulty"] for row in rows), reverse=True)


def test_every_training_leaves_its_model_history_weights_and_result(smoke: Path) -> None:
    folders = sorted((smoke / "trainings").iterdir())
    families = {folder.name.partition("-")[0].rstrip("0123456789") for folder in folders}
    assert {"top", "random", "winner", "matched", "mobilenet_v"} >= families >= {"top", "random", "winner"}
    for folder in folders:
        assert {file.name for file in folder.iterdir()} == {
            "model.json", "history.json", "result.json", "weights.safetensors"
        }  # fmt: skip
        history = read_json(folder / "history.json")
        assert [row["epoch"] for row in history] == [0, 1]
        assert {"loss", "clean_accuracy", "seconds"} <= history[0].keys()
        assert read_json(folder / "result.json").keys() >= ROW_KEYS
        assert read_tensors(folder / "weights.safetensors")[0]


def test_the_winner_is_one_of_the_leaders_and_heads_the_comparison(smoke: Path) -> None:
    result = read_json(smoke / "winner" / "result.json")
    genotype = Genotype.from_dict(read_json(smoke / "winner" / "genotype.json"))
    assert genotype.key == result["key"]
    assert result["key"] in {row["key"] for row in read_json(smoke / "study" / "leaders.json")[:2]}
    assert read_json(smoke / "comparison.json")["rows"][0] == result
    assert (smoke / "winner" / "genotype.svg").read_text(encoding="utf-8").startswith("<svg")


def test_the_comparison_has_an_interval_over_chips_at_every_rate(smoke: Path) -> None:
    content = read_json(smoke / "comparison.json")
    assert (content["fault"], content["rate"], content["chips"]) == ("features.mac_bit_bias", 3e-3, 20)
    assert any(row["label"].startswith("mobilenet_v2") for row in content["rows"])
    for row in content["rows"]:
        assert [rate["rate"] for rate in row["rates"]] == [3e-3, 1e-3]
        for rate in row["rates"]:
            assert len(rate["chips"]) == 20
            assert rate["low"] <= rate["mean"] <= rate["high"]


def test_the_comparison_as_csv_has_every_net(smoke: Path) -> None:
    names = [row["label"] for row in read_json(smoke / "comparison.json")["rows"]]
    for file in ("comparison.csv", "comparison.md"):
        text = (smoke / file).read_text(encoding="utf-8")
        assert [name for name in names if name not in text] == []


def test_the_ranking_compares_supernet_scores_with_all_short_trainings(smoke: Path) -> None:
    ranking = read_json(smoke / "ranking.json")
    assert (
        ranking["n"]
        == len(ranking["points"])
        == len(list(smoke.glob("trainings/top*"))) + len(list(smoke.glob("trainings/random*")))
    )
    assert {"low", "mean", "high"} <= ranking["gain_over_random"].keys()
    for name in ("tau_clean", "tau_faulty", "tau_flops", "tau_parameters"):
        if name in ranking:
            assert ranking[name]["low"] <= ranking[name]["value"] <= ranking[name]["high"]


def test_a_run_leaves_warnings_events_and_a_report(smoke: Path) -> None:
    assert all(isinstance(text, str) for text in read_json(smoke / "warnings.json"))
    assert list((smoke / "tensorboard").glob("events.out.tfevents.*"))
    assert "<html" in (smoke / "report.html").read_text(encoding="utf-8")
    assert (smoke / "study" / "journal.log").stat().st_size > 0


def test_a_run_leaves_no_part_of_a_file_behind(smoke: Path) -> None:
    assert [path for path in smoke.rglob("*") if path.name.startswith(".") or "checkpoint" in path.name] == []


def test_the_same_command_again_changes_no_file(smoke: Path) -> None:
    before = contents(smoke)
    ftnas("search", SMOKE, "--run", smoke)
    assert contents(smoke) == before


@pytest.fixture(scope="module")
def compared(finished: Path) -> Path:
    """Return a copy of the finished run in which a baseline was compared as well."""
    run = finished.with_name("compared")
    shutil.copytree(finished, run)
    ftnas("compare", run, "mobilenet_v2", "--training", "plain", "--training", "fault-tolerant")
    return run


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(run / "comparison.json")["rows"]
    return rows


def test_compare_adds_rows_and_leaves_those_that_are_there(finished: Path, compared: Path) -> None:
    before, after = rows_of(finished), rows_of(compared)
    assert after[: len(before)] == before
    assert [(row["label"], row["size"], row["training"]) for row in after[len(before) :]] == [
        ("mobilenet_v2 x 0.0156", "scaled", "plain"),
        ("mobilenet_v2 x 0.0156", "scaled", "fault-tolerant"),
    ]


def test_compare_for_what_is_compared_already_changes_nothing(compared: Path) -> None:
    before = contents(compared)
    ftnas("compare", compared, "mobilenet_v2")
    assert contents(compared) == before


def test_a_baseline_that_cannot_be_small_enough_is_compared_all_the_same_and_warned_of(compared: Path) -> None:
    winner, *_, baseline = rows_of(compared)
    assert baseline["flops"] > 1.25 * winner["flops"]
    assert any(f"{baseline['label']} has" in text for text in read_json(compared / "warnings.json"))


def test_the_same_seed_gives_the_same_results_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    assert results(quick_run(tmp_path)) == results(finished)


def test_another_seed_gives_other_scores(finished: Path, tmp_path: Path) -> None:
    def scores(run: Path) -> list[float]:
        return [row["faulty"] for row in read_json(run / "study" / "candidates.json")]

    assert scores(quick_run(tmp_path, seed=1)) != scores(finished)


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


def test_a_run_killed_in_the_study_goes_on_to_the_same_results(finished: Path, tmp_path: Path) -> None:
    # 25 scores derive an architecture by perturbation, the next are the study's.
    run = killed_run(tmp_path, "score", 28)
    assert (run / "study" / "journal.log").exists()
    assert not (run / "study" / "candidates.json").exists()
    quick_run(tmp_path)
    assert results(run) == results(finished)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2, 3, 6, 7, 10, 13, 16, 23, 32, 36, 40, 43, 44])
def test_a_run_killed_before_any_file_is_in_place_goes_on_to_the_same_results(
    number: int, finished: Path, tmp_path: Path
) -> None:
    run = killed_run(tmp_path, "move", number)
    quick_run(tmp_path)
    assert results(run) == results(finished)


@pytest.mark.slow
def test_two_workers_give_the_results_of_one(finished: Path, tmp_path: Path) -> None:
    # In a process of its own: workers import the program that starts them.
    arguments = ["search", quick(tmp_path), "--run", tmp_path / "run", "--set", "workers=2"]
    subprocess.run([sys.executable, "-m", "ftnas", *map(str, arguments)], check=True, capture_output=True)
    assert results(tmp_path / "run") == results(finished)


def test_evolution_fills_the_same_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("nni")
    run = quick_run(tmp_path, "--controller", "nni-evolution")
    assert results(run).keys() >= set(RESULTS)
    assert len(read_json(run / "study" / "candidates.json")) == 6
    proposals = (run / "study" / "proposals.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([json.loads(line) for line in proposals]) > 6
