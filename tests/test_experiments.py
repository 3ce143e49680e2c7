"""``ftnas experiment``: every combination trained and measured, gone on with after a cut, told in table and figure."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from command_line import contents, ftnas, lacking, refused

from ftnas.pipeline.experiments import ExperimentConfig, load_experiment
from ftnas.report.grid import grid_figure
from ftnas.training import SHARP

ROOT = Path(__file__).parents[1]
GRIDS = sorted((ROOT / "experiments").glob("flat_minima*.yaml"))
SMALL: dict[str, Any] = {
    "name": "small",
    "base": {
        "net": "resnet20",
        "width": 0.125,
        "data": {"name": "digits", "train_images": 120, "test_images": 100},
        "training": {"epochs": 1, "batch_size": 40, "objective": "qat"},
    },
    "axes": {
        "bits": {"4": {"numbers": {"weight_bits": 4}}, "8": {}},
        "training": {"QAT": {}, "SAQ, flat": {"training": {"objective": "saq", "rho": 0.1, "faults": []}}},
    },
    "against": "QAT",
    "seeds": [0, 1],
    "chips": 2,
    "faults": ["weights.bit_flip:0.01,0.02", "weights.stuck_bit:0.02:stuck_at_one=1"],
    "sharpness_images": 50,
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False))
    return path


def results(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "results.json").read_text()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    result = ftnas("experiment", written(folder), "--out", folder / "out")
    assert result.exit_code == 0, result.output
    assert "mean of 2 trainings on the same 2 chips" in result.output
    return folder / "out"


def test_every_combination_is_trained_for_every_seed(finished: Path) -> None:
    assert {path.name for path in (finished / "trainings").iterdir()} == {
        f"{bits}-{training}-seed{seed}" for bits in "48" for training in ("QAT", "SAQ_flat") for seed in (0, 1)
    }
    for path in (finished / "trainings").iterdir():
        config = yaml.safe_load((path / "training.yaml").read_text())
        assert config["numbers"]["weight_bits"] == int(path.name[0])
        assert config["training"]["objective"] == ("saq" if "SAQ" in path.name else "qat")
        assert f"seed{config['seed']}" in path.name


def test_a_row_is_the_mean_over_seeds_of_means_over_the_same_chips(finished: Path) -> None:
    rows = results(finished)["rows"]
    assert [row["options"] for row in rows] == [
        {"bits": bits, "training": training} for bits in ("4", "8") for training in ("QAT", "SAQ, flat")
    ]
    for row, name in zip(rows, ("4-QAT", "4-SAQ_flat", "8-QAT", "8-SAQ_flat"), strict=True):
        seeds = [json.loads((finished / "trainings" / f"{name}-seed{i}" / "measured.json").read_text()) for i in (0, 1)]
        for index, found in enumerate(row["faults"]):
            means = [fmean(seed["faults"][index]["chips"]) for seed in seeds]
            assert found["seeds"] == means
            assert found["mean"] == pytest.approx(fmean(means))
            assert found["low"] <= found["mean"] <= found["high"]
        assert row["zeros"] == pytest.approx(fmean(seed["zeros"] for seed in seeds))
        assert 0.1 < row["zeros"] < 0.95


def test_differences_are_against_the_option_that_was_named(finished: Path) -> None:
    content = results(finished)
    assert [found["options"]["training"] for found in content["differences"]] == ["SAQ, flat"] * 6
    first, rows = content["differences"][0], content["rows"]
    gains = [ours - theirs for ours, theirs in zip(rows[1]["faults"][0]["seeds"], rows[0]["faults"][0]["seeds"])]  # noqa: B905
    assert first["mean"] == pytest.approx(fmean(gains))


def test_table_and_figure_show_every_row(finished: Path) -> None:
    lines = list(csv.DictReader((finished / "results.csv").read_text().splitlines()))
    assert len(lines) == 4 * 3
    assert {(line["bits"], line["training"]) for line in lines} == {(b, t) for b in "48" for t in ("QAT", "SAQ, flat")}
    assert all(float(line["low"]) <= float(line["accuracy"]) <= float(line["high"]) for line in lines)
    assert (finished / "results.md").read_text().count("\n| ") == 5
    figure = (finished / "figure.svg").read_text()
    ElementTree.fromstring(figure)
    for words in ("bits 4: weights.bit_flip", "bits 8: weights.stuck_bit:stuck_at_one=1", "SAQ, flat"):
        assert words in figure
    assert (finished / "figure.png").stat().st_size > 1000


def test_of_a_single_choice_all_options_share_a_panel(finished: Path) -> None:
    content = results(finished)
    content["axes"] = {"training": content["axes"]["training"]}
    content["rows"] = [row | {"options": {"training": row["options"]["training"]}} for row in content["rows"][:2]]
    figure = grid_figure(content)
    assert figure.count("Accuracy (%)") == 2  # of the two faults
    assert figure.count("<polyline") == 2 * 2 + 2  # with the legend


def test_the_same_command_changes_nothing_and_a_lost_part_comes_back_the_same(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    config = written(tmp_path)
    before = contents(tmp_path / "out")
    assert ftnas("experiment", config, "--out", tmp_path / "out").exit_code == 0
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "trainings" / "4-QAT-seed1" / "measured.json").unlink()
    (tmp_path / "out" / "results.json").unlink()
    assert ftnas("experiment", config, "--out", tmp_path / "out").exit_code == 0
    assert contents(tmp_path / "out") == before


@pytest.mark.slow
def test_two_workers_find_what_one_does(finished: Path, tmp_path: Path) -> None:
    assert ftnas("experiment", written(tmp_path), "--out", tmp_path / "out", "--workers", 2).exit_code == 0
    assert results(tmp_path / "out") == results(finished)


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_experiments_that_come_with_ftnas_are_whole(path: Path) -> None:
    config = load_experiment(path)
    trained = [config.training(combination, 0).training for combination in config.combinations()]
    assert len(trained) == 12
    assert config.name == path.stem
    assert len(config.seeds) >= 3
    assert config.chips >= 20
    double = {settings.epochs for settings in trained if settings.objective not in SHARP}
    assert max(double) == 2 * min(double)


# Bad input


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes": {}}, ["axes: "]),
        ({"axes": {"bits": {}}}, ["axes.bits: at least one option is needed"]),
        ({"against": "FTT"}, ["against: unknown option; choose from 4, 8, QAT, SAQ, flat", "'FTT'"]),
        ({"seeds": [0]}, ["seeds: at least 2 needed, got 1"]),
        ({"seeds": [0, 0]}, ["seeds: each once"]),
        ({"faults": ["weights.bit_flop:1"]}, ["faults: unknown fault 'weights.bit_flop'"]),
        ({"axes": {"bits": {"4": {"nombers": {}}}}, "against": None}, ["small: 4: nombers: unknown key"]),
        (
            {"base": {"net": "resnet20", "data": {"name": "digits"}, "faults": ["weights.bit_flip:0.1"]}},
            ["base.faults"],
        ),
        ({"base": {"net": "lenet", "data": {"name": "digits"}}}, ["lenet: is nothing to train"]),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    changes: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    config = written(tmp_path, **changes)
    out = tmp_path / "out"
    assert lacking(refused(tmp_path, "experiment", config, "--out", out), words) == []


def test_a_folder_of_another_experiment_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    line = refused(tmp_path, "experiment", written(tmp_path, chips=3), "--out", tmp_path / "out")
    assert lacking(line, [tmp_path / "out", "is of another experiment (chips differs)"]) == []


def test_a_configuration_survives_yaml() -> None:
    config = ExperimentConfig.model_validate(SMALL)
    assert ExperimentConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config
